"""Images that are too dark to be true: found by any reader, told with numbers, mended by data.intensity_max."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dualview.cli import app
from dualview.config import Config, load
from dualview.data.images import sample as sampling
from dualview.data.images.files import FileImages
from dualview.data.images.picture import Picture
from dualview.data.images.sample import darkness, look_at, spread_paths
from dualview.data.images.store import MANIFEST, StoreImages
from dualview.data.load import load_data, store_settings
from dualview.errors import UserError
from dualview.run import datasets
from dualview.views import View
from tests.support.pictures import of_page, write_dicom, write_tiff


def noise(n, largest):
    return np.random.default_rng(n).integers(0, largest + 1, (64, 64)).astype(np.uint16)


def write_png(path, stored):
    Image.fromarray(stored).save(path)


@pytest.fixture
def source(tmp_path):
    """`source(write, suffix=..., largest=4095)`: a table of 20 patients with a PA and every other with a lateral."""

    def source(write, *, suffix="png", largest=4095, folder="images"):
        root = tmp_path / folder
        root.mkdir()
        rows = ["patient,study,view,path,A"]
        for n in range(20):
            for view in ("PA", "L")[: 1 + n % 2]:
                rows.append(f"p{n},s{n},{view},{n}{view}.{suffix},{n // 2 % 2}")
                write(root / f"{n}{view}.{suffix}", noise(n, largest))
        (root / "metadata.csv").write_text("\n".join(rows))
        (tmp_path / "c.yaml").write_text(
            "data: {source: csv, findings: [A], image_size_px: 64, num_workers: 0}\n"
            "model: {backbone: densenet_tiny}\ntrain: {max_steps: 1}\ntracking: {wandb: disabled}\n"
        )
        return [str(tmp_path / "c.yaml"), f"data.root={root}"]

    return source


WRITERS = {
    "12 bits in a 16-bit PNG": (write_png, "png", 4095),
    "8 bits in a 16-bit PNG": (write_png, "png", 255),
    "12 bits in a 16-bit TIFF": (lambda path, stored: write_tiff(path, [of_page(stored)]), "tif", 4095),
    "12 bits in a MinIsWhite TIFF": (lambda path, stored: write_tiff(path, [of_page(stored, t262=0)]), "tif", 4095),
    "12 bits in 16-bit DICOM": (lambda path, stored: write_dicom(path, stored, bits=16), "dcm", 4095),
    "12 bits in MONOCHROME1": (
        lambda path, stored: write_dicom(path, stored, bits=16, photometric="MONOCHROME1"),
        "dcm",
        4095,
    ),
    "12 bits of a negative slope, 0 white": (
        lambda path, stored: write_dicom(path, stored, bits=16, RescaleSlope="-1", RescaleIntercept="4095"),
        "dcm",
        4095,
    ),
    "12 bits in signed DICOM": (lambda path, stored: write_dicom(path, stored, bits=16, signed=True), "dcm", 4095),
}


def run(command, *arguments):
    result = CliRunner().invoke(app, [command, *arguments])
    return result.exit_code, " ".join(result.output.split())


def account(*arguments):
    """What `dualview data --json` prints, and what it warns of."""
    result = CliRunner().invoke(app, ["data", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), " ".join(result.stderr.split())


@pytest.mark.parametrize("kind", WRITERS)
def test_every_reader_tells_what_is_too_dark_and_is_mended(source, tmp_path, kind):
    write, suffix, largest = WRITERS[kind]
    arguments = source(write, suffix=suffix, largest=largest)
    counts, warned = account(*arguments)
    (told,) = counts["too_dark"]
    assert warned == f"warning: {told}"
    assert "30 of 30 images" in told and "data.intensity_max" in told and f"white: {largest} if" in told
    code, output = run("prepare", *arguments, f"data.store={tmp_path / 'store'}")
    assert code == 1 and "too dark to be true" in output and not (tmp_path / "store").exists()
    mended = [*arguments, f"data.intensity_max={largest}"]
    assert account(*mended)[0]["too_dark"] == []
    assert run("prepare", *mended, f"data.store={tmp_path / 'store'}")[0] == 0
    stored = StoreImages(tmp_path / "store").picture(f"0PA.{suffix}").pixels
    expected = noise(0, largest) / largest
    np.testing.assert_allclose(
        stored, 1 - expected if "WHITE" in kind.upper() or "ROME1" in kind else expected, atol=1e-4
    )


def test_training_ends_before_its_first_step(source, tmp_path):
    arguments = [*source(write_png), f"run.dir={tmp_path / 'run'}"]
    code, output = run("train", *arguments)
    assert code == 1 and "too dark to be true" in output and "data.intensity_max" in output
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert run("train", *arguments, "data.intensity_max=4095")[0] == 0


def test_a_run_that_goes_on_is_warned_only(source, tmp_path, monkeypatch, caplog):
    """Its settings are fixed, and it may have begun before there was a check."""
    arguments = [*source(write_png), f"run.dir={tmp_path / 'run'}"]
    with monkeypatch.context() as earlier:
        earlier.setattr(datasets, "too_dark", lambda *_: [])
        assert run("train", *arguments)[0] == 0
    code, output = run("train", *arguments)
    assert code == 0 and "too dark to be true" in caplog.text, output


def test_a_dark_store_is_found_in_training(source, tmp_path):
    """A store of an earlier version was made without the check."""
    arguments = [*source(write_png), f"data.store={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}"]
    assert run("prepare", *arguments, "data.intensity_max=65534")[0] == 0
    manifest = json.loads((tmp_path / "store" / MANIFEST).read_text())
    assert manifest["settings"].pop("intensity_max") == {"csv": 65534}
    manifest["settings"]["version"] = 1
    (tmp_path / "store" / MANIFEST).write_text(json.dumps(manifest))
    code, output = run("train", *arguments)
    assert code == 1 and "too dark to be true" in output


def test_a_store_without_the_key_still_opens_and_another_value_is_refused(source, tmp_path):
    arguments = [*source(write_png, largest=65535), f"data.store={tmp_path / 'store'}"]
    assert run("prepare", *arguments)[0] == 0
    file = tmp_path / "store" / MANIFEST
    manifest = json.loads(file.read_text())
    assert manifest["settings"].pop("intensity_max") == {}
    manifest["settings"]["version"] = 1
    file.write_text(json.dumps(manifest))
    config = load(tmp_path / "c.yaml", overrides=arguments[1:])
    store = StoreImages(tmp_path / "store")
    store.refuse_if_stale([], settings=store_settings(config.data), reader=None)
    changed = load(tmp_path / "c.yaml", overrides=[*arguments[1:], "data.intensity_max=4095"])
    with pytest.raises(UserError, match=r"intensity_max is \{'csv': 4095.0\}, the store has \{\}"):
        store.refuse_if_stale([], settings=store_settings(changed.data), reader=None)


def test_each_source_is_looked_at_by_itself(source, tmp_path):
    source(write_png, folder="bright", largest=65535)
    source(write_png, folder="dark")
    entries = [
        {"source": "csv", "name": name, "root": str(tmp_path / name), "findings": ["A"]} for name in ("bright", "dark")
    ]

    def config(dark):
        sources = [entries[0], {**entries[1], **dark}]
        return Config.model_validate({"data": {"sources": sources, "image_size_px": 64}})

    from dualview.commands.data import look_at_data  # noqa: PLC0415

    (told,) = look_at_data(config({}))["too_dark"]
    assert told.startswith("dark: ") and "intensity_max in its entry of data.sources" in told
    mended = config({"intensity_max": 4095})
    assert look_at_data(mended)["too_dark"] == []
    data = load_data(mended.data, seed=0)
    np.testing.assert_allclose(data.files.unit("dark:0PA.png")[0], noise(0, 4095) / 4095, atol=1e-6)
    np.testing.assert_allclose(data.files.unit("bright:0PA.png")[0], noise(0, 65535) / 65535, atol=1e-6)


def test_oddities_of_images_are_counted_by_kind(source, tmp_path):
    arguments = source(
        lambda path, stored: write_dicom(path, stored, WindowCenter=2000, WindowWidth=0), suffix="dcm"
    )  # fmt: skip
    counts, _ = account(*arguments)
    kind = "has a window without a usable centre and width; it counts as absent"
    (remark,) = counts["sources"][0]["remarks"]
    assert remark["kind"].startswith(kind) and remark["count"] == 30 and remark["example"] == "0PA.dcm"
    code, output = run("prepare", *arguments, f"data.store={tmp_path / 'store'}")
    assert code == 0 and f"30 {kind}, such as " in output


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", ["1", "-1"])
def test_a_window_too_wide_is_told_on_either_side(source, photometric, slope):
    """Two of the four are black altogether, and two white."""
    intercept = {"1": "0", "-1": "65535"}[slope]
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": 40000, "WindowWidth": 80000}
    arguments = source(lambda path, stored: write_dicom(path, stored, bits=16, photometric=photometric, **tags),
                       suffix="dcm")  # fmt: skip
    (told,) = account(*arguments)[0]["too_dark"]
    assert "30 of 30 images" in told and "windows or tables" in told


def test_a_view_that_is_dark_by_itself_is_told(source):
    arguments = source(lambda path, stored: write_png(path, stored // (16 if "L" in path.name else 1)), largest=65535)
    (told,) = account(*arguments)[0]["too_dark"]
    assert "10 of 30 images looked at (10 of 10 laterals)" in told and "bring the files to one depth" in told


# -- the look itself ---------------------------------------------------------------------------------


def look(images, *, view=View.PA, **settings):
    return look_at(
        [(view, str(n)) for n in range(len(images))],
        read=lambda path: Picture(images[int(path)], 65535.0, largest=4000.0, **settings),
    )


def test_most_images_must_be_dark_and_a_burnt_in_letter_does_not_hide_it():
    dark, bright = noise(0, 4000) / np.float32(65535), noise(0, 65535) / np.float32(65535)
    dark[:2, :10] = 1  # 20 of 4,096 pixels
    assert look([dark] * 3 + [bright] * 2).is_too_dark
    assert not look([dark] * 2 + [bright] * 2).is_too_dark
    assert not look([]).is_too_dark
    assert "3 of 5 images" in darkness(look([dark] * 3 + [bright] * 2), source="s", key="k")


def test_padding_is_no_part_of_the_look():
    inverted = 1 - noise(0, 4095) / np.float32(65535)
    padding = np.zeros((64, 64), bool)
    padding[:30] = True
    inverted[padding] = 0
    assert look([inverted], is_inverted=True, is_padding=padding).is_too_dark
    assert not look([inverted], is_inverted=True).is_too_dark


def test_the_sample_is_spread_over_the_table_and_both_views():
    def column(paths):
        array = np.empty(len(paths), object)
        array[:] = paths
        return array

    both = (
        column([(f"p{n}",) for n in range(100)]),
        column([(f"l{n}", "second") if n % 4 == 0 else () for n in range(100)]),
    )
    views, paths = zip(*spread_paths(both), strict=True)
    assert views == (View.PA,) * 16 + (View.LATERAL,) * 16
    assert len(paths) == len(set(paths)) == 32 and paths[0] == "p0" and paths[15] == "p99" and paths[-1] == "l96"
    few = column([(f"p{n}",) for n in range(100)]), column([("l0",)] + [()] * 99)
    assert len(spread_paths(few)) == 32 and spread_paths(few)[-1] == (View.LATERAL, "l0")
    assert spread_paths((column([("a",)]), column([()]))) == [(View.PA, "a")]
    assert sampling.NUM_IMAGES == 32


def test_the_pixels_of_a_run_with_the_key_are_those_of_its_files(tmp_path):
    write_png(tmp_path / "a.png", noise(1, 4095))
    read = FileImages(tmp_path, image_size_px=64, intensity_max=4095)
    np.testing.assert_allclose(read("a.png")[0], noise(1, 4095) / 4095 * 2 - 1, atol=1e-6)
