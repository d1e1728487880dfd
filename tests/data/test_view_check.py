"""Wrong views found from pixels: in phantoms and in real X-rays with views swapped on purpose."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from dualview.config import PhantomConfig, load
from dualview.data import view_classifiers
from dualview.data.load import load_data
from dualview.data.sources.phantom import draw
from dualview.data.table import StudyTable
from dualview.data.view_check import ViewCheck, check_views
from dualview.data.view_classifiers import gradient_histograms, mirror_symmetry
from dualview.errors import BadImage, UserError
from dualview.views import View


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home without weights of torchxrayvision, whatever the user's own holds."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def phantoms():
    """Studies of 60 patients, 50 PA and 40 lateral images, and their reader."""
    return draw(PhantomConfig(num_studies=60, both=0.5, pa_only=1 / 3, lateral_only=1 / 6), seed=0, image_size_px=64)


def looked_at(table, read, *, limit=10_000) -> ViewCheck:
    return check_views(
        [table], read=read, limit=limit, seed=0, num_workers=0, device=torch.device("cpu"), track=lambda work, *_: work
    )


def with_views_exchanged(table: StudyTable, paths: set[str]) -> StudyTable:
    """The table with these images under the other view."""
    images = (np.empty(len(table), object), np.empty(len(table), object))
    for row, of_study in enumerate(zip(*table.images, strict=True)):
        for view in View:
            stay = [path for path in of_study[view] if path not in paths]
            come = [path for path in of_study[view.other] if path in paths]
            images[view][row] = (*stay, *come)
    return replace(table, images=images)


def images_of(table: StudyTable) -> list[str]:
    return [path for view in View for paths in table.images[view] for path in paths]


def test_exactly_the_swapped_phantoms_are_suspect_and_tell_the_view_of_the_table(phantoms):
    table, read = phantoms
    paths = images_of(table)
    swapped = set(np.random.default_rng(1).choice(paths, 9, replace=False))
    check = looked_at(with_views_exchanged(table, swapped), read)
    assert set(check.suspects["path"]) == swapped
    assert all((row.view == "PA") == row.path.endswith("lateral") for row in check.suspects.itertuples())
    assert check.suspects["probability"].is_monotonic_increasing
    assert (check.num_images, len(check.images), check.bad) == (90, 90, ())
    assert check.accuracy == pytest.approx(81 / 90)
    assert not check.exchanged


def test_nothing_is_suspect_where_every_view_is_right(phantoms):
    check = looked_at(*phantoms)
    assert (len(check.suspects), check.auroc, check.accuracy, check.warnings) == (0, 1.0, 1.0, [])


def test_a_third_of_the_frontals_that_are_laterals_is_found(phantoms):
    """As in the DICOM headers of Open-i, where 1,381 of 4,013 PA images are laterals."""
    table, read = phantoms
    laterals = [path for path in images_of(table) if path.endswith("lateral")]
    swapped = set(laterals[:25])
    check = looked_at(with_views_exchanged(table, swapped), read)
    assert set(check.suspects["path"]) == swapped
    assert any("AUROC" in warning for warning in check.warnings)


def test_views_that_are_exchanged_throughout_are_a_warning(phantoms):
    table, read = phantoms
    check = looked_at(with_views_exchanged(table, set(images_of(table))), read)
    assert check.exchanged and "exchanged throughout" in check.warnings[0]


def test_every_image_is_looked_at_and_bad_ones_are_counted(phantoms):
    table, read = phantoms
    images = (table.images[View.PA].copy(), table.images[View.LATERAL])
    first = int(np.flatnonzero(table.view_mask[:, View.PA])[0])
    images[View.PA][first] = (*images[View.PA][first], "bad", "000003/pa")

    def read_or_refuse(path):
        if path == "bad":
            raise BadImage(path, reason="is bad")
        return read(path)

    check = looked_at(replace(table, images=images), read_or_refuse)
    assert check.bad == (("bad", "is bad"),)
    assert (check.num_images, len(check.images)) == (92, 91)
    assert sum(check.images["path"] == "000003/pa") == 1 + ("000003/pa" in images_of(table))


def test_of_more_images_than_the_limit_so_many_are_drawn(phantoms):
    check = looked_at(*phantoms, limit=50)
    assert (check.num_images, len(check.images)) == (90, 50)
    assert len(set(check.images["path"])) == 50
    assert set(check.images["view"]) == {"PA", "lateral"}


def test_too_few_images_of_a_view_are_an_error_with_their_numbers(phantoms):
    table, read = phantoms
    only_pa = table.seen_by([View.PA], needs_all=True)
    with pytest.raises(UserError, match=r"50 PA of 50 .*and 0 lateral of 0 .* 10 images of 5 patients"):
        looked_at(only_pa, read)
    with pytest.raises(UserError, match="the 30 images drawn from the table are 30 PA"):
        looked_at(only_pa, read, limit=30)
    one_patient = replace(table, patient_ids=np.full(len(table), "p", object))
    with pytest.raises(UserError, match=r"50 PA of 1 patient"):
        looked_at(one_patient, read)

    def refuse_laterals(path):
        if path.endswith("lateral"):
            raise BadImage(path, reason="is bad")
        return read(path)

    with pytest.raises(UserError, match=r"images that can be read are 50 PA of 50 .*and 0 lateral"):
        looked_at(table, refuse_laterals)


def test_ten_views_swapped_in_real_x_rays_come_first(covid_cxr):
    """Ten images at a time of the 29 patients with both views: nine or more of the first ten, on average of five draws.

    Measured: all ten in each draw, and no other image is suspect.
    """
    config = load(Path("configs/covid_cxr.yaml"), overrides=[f"data.root={covid_cxr}", "data.image_size_px=64"]).data
    data = load_data(config, seed=0)
    read = cache(data.read)
    tables = list(data.whole_splits.values())
    of_patient: dict[str, set[int]] = {}
    for table in tables:
        for patient, views in zip(table.patient_ids, table.view_mask, strict=True):
            of_patient.setdefault(patient, set()).update(np.flatnonzero(views))
    with_both = {patient for patient, views in of_patient.items() if len(views) == 2}
    assert len(with_both) == 29
    paths = sorted(
        path for table in tables for path in images_of(table.select(np.isin(table.patient_ids, list(with_both))))
    )
    found, suspects = [], []
    for draw_number in range(5):
        swapped = set(np.random.default_rng(draw_number).choice(paths, 10, replace=False))
        check = check_views(
            [with_views_exchanged(table, swapped) for table in tables],
            read=read,
            limit=10_000,
            seed=0,
            num_workers=0,
            device=torch.device("cpu"),
            track=lambda work, *_: work,
        )
        found.append(len(swapped & set(check.images["path"][:10])))
        suspects.append(len(check.suspects))
    assert np.mean(found) >= 9.5, found
    assert max(suspects) <= 12, suspects


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of the shape of torchxrayvision's, with random numbers that give logits of a few units."""
    file = tmp_path_factory.mktemp("weights") / "resnet.pt"
    torch.manual_seed(3)
    network = resnet50().eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, 224, 224))
        network.fc.weight /= logits.abs().mean()
    torch.save(network.state_dict(), file)
    return file


def test_torchxrayvisions_classifier_is_asked_as_it_asks_itself(phantoms, weights, home):
    xinario = pytest.importorskip("torchxrayvision", reason="no torchxrayvision").baseline_models.xinario
    file = home / ".torchxrayvision" / "models_data" / "xinario_chestViewSplit_resnet-50.pt"
    file.parent.mkdir(parents=True)
    file.symlink_to(weights)
    theirs = xinario.ViewModel()  # finds its weights where ours are looked for
    table, _ = phantoms
    small = table.seen_by([View.PA], needs_all=True).select(np.arange(6))  # one view, and few, are enough for it
    read = draw(PhantomConfig(num_studies=60), seed=0, image_size_px=224)[1]
    check = looked_at(small, read)
    assert check.classifier == "torchxrayvision's view classifier"
    assert check.auroc is None and not check.exchanged
    with torch.inference_mode():
        for row in check.images.itertuples():
            frontal = float(theirs(read(row.path)[None] * 1024).softmax(dim=1)[0, 0])
            assert row.probability == pytest.approx(frontal, abs=1e-5)
    assert 0.01 < check.images["probability"].min() < check.images["probability"].max() < 0.99


def test_weights_that_cannot_be_read_are_an_error_with_a_remedy(phantoms, home):
    file = home / ".torchxrayvision" / "models_data" / "xinario_chestViewSplit_resnet-50.pt"
    file.parent.mkdir(parents=True)
    for content in (b"", b"half a download"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"resnet-50\.pt: cannot be read as the weights.*remove the file"):
            looked_at(*phantoms)
    torch.save({"a": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="cannot be read as the weights"):
        looked_at(*phantoms)


def test_histograms_do_not_see_brightness_contrast_or_inversion():
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = gradient_histograms(image)
    assert expected.shape == (1, view_classifiers.BINS, view_classifiers.CELLS, view_classifiers.CELLS)
    assert gradient_histograms(0.3 * image - 0.5) == pytest.approx(expected, abs=1e-4)
    assert gradient_histograms(-image) == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(gradient_histograms(torch.zeros(1, 1, 64, 64))).all()


@pytest.mark.parametrize(("turns", "orientation"), [(0, 0), (1, view_classifiers.BINS // 2)])
def test_a_ramp_has_one_orientation(turns, orientation):
    ramp = torch.linspace(-1, 1, 64).expand(1, 1, 64, 64).rot90(turns, (2, 3))
    histograms = gradient_histograms(ramp)
    others = np.delete(histograms, orientation, axis=1)
    assert histograms[:, orientation] == pytest.approx(1, abs=1e-3)
    assert others == pytest.approx(0, abs=1e-3)


def test_mirror_symmetry_is_one_for_a_picture_that_is_its_own_mirror_image():
    noise = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise[:, :, :8, :8], size=(64, 64), mode="bilinear")
    assert mirror_symmetry(gradient_histograms(smooth + smooth.flip(3))) == pytest.approx(1, abs=1e-3)
    assert mirror_symmetry(gradient_histograms(smooth)).max() < 0.9
