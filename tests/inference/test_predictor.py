"""`dualview.load(run).predict(...)`: on arrays and files, for every availability, against the network asked by hand."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import dualview
from dualview.batch import StudyBatch
from dualview.evaluation.operating_points import OperatingPoint, OperatingPoints
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained


def by_hand(run_dir, pa, lateral):
    """Probabilities (N, K) of uint8 images of 64 x 64 pixels, one study at a time and without a resize."""
    model = load_trained(RunDir(run_dir)).model

    def image(pixels):
        return None if pixels is None else torch.from_numpy(pixels)[None].float() / 255 * 2 - 1

    rows = []
    for one, other in zip(pa, lateral, strict=True):
        batch = StudyBatch.from_views(pa=[image(one)], lateral=[image(other)])
        with torch.no_grad():
            rows.append(torch.sigmoid(model(batch).by_route(batch).double())[0].numpy())
    return np.stack(rows)


@pytest.fixture
def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", ["auxloss", "dualnet", "hemis", "attention"])
def test_every_availability_is_what_the_network_says_of_the_study_alone(make_run, pictures, name):
    run_dir = make_run(name)
    pa, lateral = [pictures[0], pictures[1], None], [pictures[2], None, pictures[3]]
    result = dualview.load(run_dir, device="cpu").predict(pa=pa, lateral=lateral)
    np.testing.assert_allclose(result.probabilities, by_hand(run_dir, pa, lateral), rtol=0, atol=1e-5)
    assert result.views == ("pa+lateral", "pa", "lateral")
    assert result.predicted.all() and result.reasons == ("", "", "")
    assert not result.decided.any()  # no operating points yet
    assert set(result.as_dict()) == {"Nodule", "Effusion", "Hernia"}
    np.testing.assert_array_equal(result.as_dict()["Hernia"], result.probabilities[:, 2])


def test_arrays_tensors_and_files_of_one_picture_agree(make_run, draw_png, tmp_path):
    network = dualview.load(make_run(), device="cpu")
    pixels = draw_png(tmp_path / "a.png", seed=1)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    expected = network.predict(pa=str(tmp_path / "a.png")).probabilities
    assert expected.shape == (1, 3)
    of_arrays = {
        "path": tmp_path / "a.png",
        "uint8": pixels,
        "batch": pixels[None],
        "list": [pixels],
        "uint16": pixels.astype(np.uint16) * 257,
        "big endian": (pixels.astype(np.uint16) * 257).astype(">u2"),
        "float64": pixels / 255,
        "tensor": torch.from_numpy(pixels),
        "float tensor": torch.from_numpy(pixels).double() / 255,
        "16-bit file": str(tmp_path / "deep.png"),
    }
    for name, pa in of_arrays.items():
        np.testing.assert_allclose(network.predict(pa=pa).probabilities, expected, rtol=0, atol=1e-6, err_msg=name)


def test_batches_change_nothing_but_rounding(make_run, pictures):
    network = dualview.load(make_run(), device="cpu")
    pa = [*pictures, None, pictures[0]]
    lateral = [None, pictures[1], pictures[2], None, pictures[3], pictures[0]]
    one, many = network.predict(pa=pa, lateral=lateral, batch_size=1), network.predict(pa=pa, lateral=lateral)
    np.testing.assert_allclose(one.probabilities, many.probabilities, rtol=0, atol=1e-6)
    assert one.views == many.views


def test_operating_points_of_the_run_are_applied(make_run, pictures):
    run_dir = make_run()
    plain = dualview.load(run_dir, device="cpu").predict(pa=pictures)
    threshold = float(np.sort(plain.probabilities[:, 0])[2])
    OperatingPoints(
        rule="youden",
        chosen_on="val",
        temperature={"both": 1.0, "pa_only": 2.0, "lateral_only": 1.0},
        routes={
            "both": {},
            "pa_only": {"Nodule": OperatingPoint(threshold=threshold), "Hernia": OperatingPoint(threshold=None)},
            "lateral_only": {},
        },
    ).write(run_dir / "operating_points.json")
    result = dualview.load(run_dir, device="cpu").predict(pa=pictures)
    logits = np.log(plain.probabilities / (1 - plain.probabilities))
    np.testing.assert_allclose(result.probabilities, 1 / (1 + np.exp(-logits / 2)), rtol=1e-6)
    np.testing.assert_array_equal(result.decisions[:, 0], result.probabilities[:, 0] >= threshold)
    assert result.decided.tolist() == [[True, False, False]] * 4
    frame = result.to_frame()
    assert list(frame.columns) == [
        "views", "Nodule", "Nodule_decision", "Effusion", "Effusion_decision", "Hernia", "Hernia_decision", "reason",
    ]  # fmt: skip
    assert frame["Nodule_decision"].tolist() == result.decisions[:, 0].astype(int).tolist()
    assert frame["Hernia_decision"].isna().all()


def test_the_weight_of_positives_is_undone_from_what_the_checkpoint_says(make_run, pictures, caplog):
    """Without operating points too. A checkpoint that does not say it, and points of then, are named in a warning."""
    heavy, light = make_run(folder="heavy", pos_weight=[1.0, 2.0, 5.0]), make_run(folder="light")
    odds = []
    for run_dir in (heavy, light):
        probabilities = dualview.load(run_dir, device="cpu").predict(pa=pictures).probabilities
        odds.append(probabilities / (1 - probabilities))
    np.testing.assert_allclose(odds[1] / odds[0], [[1, 2, 5]] * 4, rtol=1e-9)
    assert "did not undo" not in caplog.text
    manifest = heavy / "checkpoints/step-000007/manifest.json"
    content = json.loads(manifest.read_text())
    del content["pos_weight"], content["sha256"]
    manifest.write_text(json.dumps(content))
    plain = dualview.load(heavy, device="cpu").predict(pa=pictures).probabilities
    np.testing.assert_array_equal(plain, dualview.load(light, device="cpu").predict(pa=pictures).probabilities)
    assert "the checkpoint is of a dualview that did not undo loss.pos_weight: odds are up to 5 times" in caplog.text


def test_a_loss_that_learns_scores_is_told_where_they_are_shown_as_probabilities(make_run, caplog):
    run = make_run(folder="scores", loss={"name": "focal", "pos_weight": "none"})
    dualview.load(run)
    assert "loss.name was focal, which learns scores and not probabilities" in caplog.text
    caplog.clear()
    dualview.load(make_run(folder="probabilities"))
    assert "learns scores" not in caplog.text


def test_points_of_another_checkpoint_are_those_of_its_own_evaluation(make_run, pictures, caplog):
    caplog.set_level("INFO")
    run_dir = make_run()
    points = {route: {"Nodule": OperatingPoint(threshold=0.0)} for route in ("both", "pa_only", "lateral_only")}
    temperature = dict.fromkeys(points, 1.0)
    points = OperatingPoints(rule="youden", chosen_on="val", temperature=temperature, routes=points)
    points.write(run_dir / "operating_points.json")
    (run_dir / "checkpoints" / "best").unlink()
    (run_dir / "checkpoints" / "best").symlink_to("step-000003")  # another one than that of step 7
    assert not dualview.load(run_dir, checkpoint="last", device="cpu").predict(pa=pictures).decided.any()
    (run_dir / "evaluation-test-7").mkdir()
    points.write(run_dir / "evaluation-test-7" / "operating_points.json")
    assert "not the best checkpoint" not in caplog.text
    assert dualview.load(run_dir, checkpoint="last", device="cpu").predict(pa=pictures).decided[:, 0].all()
    assert f"those of its own evaluation, {run_dir}/evaluation-test-7/operating_points.json" in caplog.text


def test_what_cannot_be_read_is_a_reason_and_the_other_view_answers(make_run, pictures, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    network = dualview.load(make_run(), device="cpu")
    result = network.predict(
        pa=[tmp_path / "absent.png", tmp_path / "broken.png", None, np.zeros((64, 64), np.uint8)],
        lateral=[pictures[0], None, None, None],
    )
    assert result.views == ("lateral", "", "", "")
    assert result.reasons[:3] == (
        "pa: no such file", "pa: is not an image in a known format", "no image is given",
    )  # fmt: skip
    assert "one value everywhere" in result.reasons[3]
    assert result.predicted.tolist() == [True, False, False, False]
    assert np.isnan(result.probabilities[1:]).all()
    alone = network.predict(lateral=pictures[0])
    np.testing.assert_array_equal(result.probabilities[0], alone.probabilities[0])


def test_networks_say_which_views_they_need(make_run, pictures):
    pa, lateral = [pictures[0], pictures[1], None], [pictures[2], None, pictures[3]]
    stacked = dualview.load(make_run("stacked", folder="stacked"), device="cpu").predict(pa=pa, lateral=lateral)
    assert stacked.views == ("pa+lateral", "", "")
    assert stacked.reasons == ("", *["the network (stacked) needs pa and lateral"] * 2)
    run_dir = make_run("single", folder="single", model={"view": "lateral"})
    single = dualview.load(run_dir, device="cpu").predict(pa=pa, lateral=lateral)
    assert single.views == ("lateral", "", "lateral")
    assert single.reasons == ("", "the network (single of lateral) needs lateral", "")
    expected = by_hand(run_dir, [None, None], [pictures[2], pictures[3]])
    np.testing.assert_allclose(single.probabilities[[0, 2]], expected, rtol=0, atol=1e-5)


def test_votes_are_the_mean_of_three_heads(make_run, pictures):
    run_dir = make_run(model={"joint_rule": "vote"})
    result = dualview.load(run_dir, device="cpu").predict(pa=pictures[:1], lateral=pictures[1:2])
    image = torch.from_numpy(pictures)[:, None].float() / 255 * 2 - 1
    batch = StudyBatch.from_views(pa=[image[0]], lateral=[image[1]])
    with torch.no_grad():
        heads = load_trained(RunDir(run_dir)).model(batch)
    expected = torch.sigmoid((heads.joint + heads.pa + heads.lateral) / 3)
    np.testing.assert_allclose(result.probabilities, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("pa", "lateral", "match"),
    [
        (None, None, "at least one view"),
        (["a", "b"], ["a"], "pa has 2 studies and lateral 1"),
        (np.zeros((64, 64), np.int16), None, "pixels are int16; give uint8, uint16, or floats"),
        (np.full((64, 64), 255.0), None, r"floats from 255 to 255; floats must lie in \[0, 1\]"),
        (np.full((64, 64), np.nan), None, r"floats must lie in \[0, 1\]"),
        (np.zeros((2, 64, 64, 3), np.uint8), None, r"shape \(2, 64, 64, 3\)"),
        ([np.zeros((64, 64, 3), np.uint8)], None, r"shape \(64, 64, 3\); give gray"),
        (np.zeros((64, 64), bool), None, "pixels are bool"),
        (torch.zeros(64, 64, dtype=torch.int64), None, "pixels are int64"),
    ],
)
def test_what_is_no_gray_picture_is_refused_with_what_is(make_run, pa, lateral, match):
    with pytest.raises(ValueError, match=match):
        dualview.load(make_run(), device="cpu").predict(pa=pa, lateral=lateral)


def test_importing_dualview_loads_nothing_heavy():
    code = "import sys, dualview; print(sorted({'torch', 'numpy', 'pandas', 'accelerate'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
