"""`data.several_images_at_test`: evaluate, predict and load against a loop over every image and every pair by hand.

Two processes: test_ensemble.py.
"""

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import dualview
from dualview.batch import StudyBatch
from dualview.cli import app
from dualview.commands.train import train
from dualview.config import Config
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import read_predictions
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained
from tests.support.runs import tiny_config

KINDS = ["PPL", "PPLL", "P", "PP", "L", "LL", "PL", "PPPLL"]  # images of study n: KINDS[n % 8]
MEAN = "data.several_images_at_test=mean"
REDUCED = {"mean": np.mean, "max": np.max}


def write_studies(root, num_studies=40):
    """PNGs of noise of 64 px, metadata.csv, and some.csv of two studies of each kind; returns by study its paths."""
    generator = np.random.default_rng(3)
    rows, studies = [], {}
    for n in range(num_studies):
        studies[str(n)] = {"PA": [], "L": []}
        for number, letter in enumerate(KINDS[n % len(KINDS)]):
            path, view = f"{n}-{number}.png", {"P": "PA", "L": "L"}[letter]
            brightness = 100 + 60 * (n // 8 % 2)
            noise = generator.normal(brightness, 40, (64, 64)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(root / path)
            studies[str(n)][view].append(path)
            rows.append((f"p{n}", str(n), view, path, n // 8 % 2, n % 12 == 5))
    frame = pd.DataFrame(rows, columns=["patient", "study", "view", "path", "A", "B"])
    frame = frame.astype({"B": int})
    frame.to_csv(root / "metadata.csv", index=False)
    frame[frame["study"].astype(int) < 2 * len(KINDS)].to_csv(root / "some.csv", index=False)
    return studies


def settings(run, root, **data):
    values = tiny_config(run).model_dump(mode="json")
    values["data"] |= {"source": "csv", "root": str(root), "findings": ["A", "B"], **data}
    values["train"] |= {"max_steps": 2}
    values["loss"] |= {"pos_weight_max": 3.0}
    return Config.model_validate(values)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A folder with `images` and a `run`, whose evaluation takes the mean; and by study its paths by view."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "images").mkdir()
    studies = write_studies(folder / "images")
    train(settings(folder / "run", folder / "images"))
    evaluate(folder / "run", MEAN)
    return folder, studies


@pytest.fixture
def run(hospital, tmp_path):
    return shutil.copytree(hospital[0] / "run", tmp_path / "run", symlinks=True)


def evaluate(run, *words):
    done = CliRunner().invoke(app, ["evaluate", str(run), *words, "--resamples", "100"])
    assert done.exit_code == 0, done.output
    return done.output


def by_hand(model, root, paths, *, reduce, views=("PA", "L")):
    """Logits (K,) of a study: each image or pair of images alone through the network, then combined."""
    images = {
        view: [torch.from_numpy(np.array(Image.open(root / path)))[None].float() / 255 * 2 - 1 for path in paths[view]]
        if view in views else []
        for view in ("PA", "L")
    }  # fmt: skip
    answers = []
    for pa, lateral in itertools.product(images["PA"] or [None], images["L"] or [None]):
        batch = StudyBatch.from_views(pa=[pa], lateral=[lateral])
        with torch.no_grad():
            answers.append(model(batch).by_route(batch)[0].double().numpy())
    return reduce(answers, axis=0)


@pytest.mark.parametrize("how", ["mean", "max"])
def test_every_study_is_what_a_loop_over_its_images_says(run, hospital, how):
    folder, studies = hospital
    if how != "mean":
        evaluate(run, f"data.several_images_at_test={how}")
    predictions = read_predictions(run / "evaluation-test/predictions.parquet")
    model = load_trained(RunDir(run)).model
    of_training = read_predictions(run / "predictions-test.parquet")
    assert len(predictions) > 5
    seen_several = 0
    for row, study in enumerate(predictions.study_ids):
        paths = studies[study]
        expected = {"route": ("PA", "L")}
        expected |= {"pa": ("PA",)} if paths["PA"] else {}
        expected |= {"lateral": ("L",)} if paths["L"] else {}
        expected |= {"lateral_hidden": ("PA",), "pa_hidden": ("L",)} if paths["PA"] and paths["L"] else {}
        for score, views in expected.items():
            logits = by_hand(model, folder / "images", paths, reduce=REDUCED[how], views=views)
            np.testing.assert_allclose(predictions.logits[score][row], logits, atol=1e-5, err_msg=f"{study} {score}")
        several = len(paths["PA"]) > 1 or len(paths["L"]) > 1
        seen_several += several
        ours, of_first = predictions.logits["route"][row], of_training.logits["route"][row]
        if how == "mean":
            assert np.allclose(ours, of_first, atol=1e-5) != several, study
        else:
            assert (ours >= of_first - 1e-5).all(), study
    assert seen_several > 3
    document = json.loads((run / "evaluation-test/evaluation.json").read_text())
    assert document["several_images_at_test"] == how
    assert document["settings"]["operating_points_of"] == "evaluation"  # those of the run are of first images
    assert read_operating_points(run / "evaluation-test/operating_points.json").several_images_at_test == how
    assert read_operating_points(run / "operating_points.json").several_images_at_test == "first"


def test_first_is_what_it_was_bit_by_bit(run):
    evaluate(run, "data.several_images_at_test=first")
    ours = read_predictions(run / "evaluation-test/predictions.parquet")
    for score, logits in read_predictions(run / "predictions-test.parquet").logits.items():
        assert np.array_equal(logits, ours.logits[score], equal_nan=True), score
    assert json.loads((run / "evaluation-test/evaluation.json").read_text())["settings"]["operating_points_of"] == "run"


def test_a_run_trained_with_all_images_chooses_its_points_on_them(hospital, tmp_path):
    folder, studies = hospital
    train(settings(tmp_path / "run", folder / "images", several_images_at_test="mean"))
    assert read_operating_points(tmp_path / "run/operating_points.json").several_images_at_test == "mean"
    model = load_trained(RunDir(tmp_path / "run")).model
    predictions = read_predictions(tmp_path / "run/predictions-val.parquet")
    for row, study in enumerate(predictions.study_ids):
        logits = by_hand(model, folder / "images", studies[study], reduce=np.mean)
        np.testing.assert_allclose(predictions.logits["route"][row], logits, atol=1e-5)


def predict_csv(run, root, tmp_path, *words):
    out = tmp_path / "out.csv"
    out.unlink(missing_ok=True)
    arguments = ["predict", str(run), *words, "--csv", str(root / "some.csv"), "--out", str(out), "--device", "cpu",
                 "--overwrite", "--workers", "0"]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return pd.read_csv(out, dtype={"study": str}), done.output


def test_predict_takes_the_images_that_thresholds_were_chosen_with(run, hospital, tmp_path, caplog):
    folder, studies = hospital
    root = folder / "images"
    plain, _ = predict_csv(run, root, tmp_path)
    asked, _ = predict_csv(run, root, tmp_path, MEAN)
    assert "chosen with data.several_images_at_test first, not mean" in caplog.text
    assert asked["A_decision"].isna().all() and not plain["A_decision"].isna().all()
    evaluate(run, MEAN, "--set-thresholds")
    caplog.clear()
    of_points, _ = predict_csv(run, root, tmp_path)
    assert "chosen with" not in caplog.text and not of_points["A_decision"].isna().all()
    np.testing.assert_allclose(of_points["A"], asked["A"], atol=1e-9)
    trained = load_trained(RunDir(run))
    shift = [trained.log_pos_weight[finding] for finding in ("A", "B")]
    for row, study in enumerate(of_points["study"]):
        logits = by_hand(trained.model, root, studies[study], reduce=np.mean) - shift
        np.testing.assert_allclose(of_points.loc[row, ["A", "B"]].astype(float), 1 / (1 + np.exp(-logits)), atol=1e-5)
    # The plain evaluation follows the operating points, too, and so does load.
    evaluate(run)
    document = json.loads((run / "evaluation-test/evaluation.json").read_text())
    assert document["several_images_at_test"] == "mean" and document["settings"]["operating_points_of"] == "run"
    assert CliRunner().invoke(app, ["report", str(run)]).exit_code == 0
    assert "several images of a view, the mean of their logits counts" in (run / "report.html").read_text()
    network = dualview.load(run, device="cpu")
    assert network.several_images_at_test == "mean"
    entries = {
        view: [[root / path for path in studies[study][view]] or None for study in of_points["study"]]
        for view in ("PA", "L")
    }
    answers = network.predict(pa=entries["PA"], lateral=entries["L"])
    np.testing.assert_allclose(answers.probabilities, of_points[["A", "B"]], atol=1e-5)
    first = dualview.load(run, device="cpu", several_images_at_test="first").predict(pa=[entries["PA"][1]])
    alone = dualview.load(run, device="cpu", several_images_at_test="first").predict(pa=entries["PA"][1][0])
    np.testing.assert_array_equal(first.probabilities, alone.probabilities)


def test_a_bad_image_among_several_leaves_the_others(run, hospital, tmp_path):
    folder, studies = hospital
    root = shutil.copytree(folder / "images", tmp_path / "images")
    for n in studies:  # the first PA of every study that has several
        if len(studies[n]["PA"]) > 1:
            (root / studies[n]["PA"][0]).write_bytes(b"no image")
    evaluate(run, MEAN, f"data.root={root}")
    predictions = read_predictions(run / "evaluation-test/predictions.parquet")
    model = load_trained(RunDir(run)).model
    for row, study in enumerate(predictions.study_ids):
        left = dict(studies[study])
        left["PA"] = left["PA"][1:] if len(left["PA"]) > 1 else left["PA"]
        expected = by_hand(model, root, left, reduce=np.mean)
        np.testing.assert_allclose(predictions.logits["route"][row], expected, atol=1e-5)
    answers, _ = predict_csv(run, root, tmp_path, MEAN)
    reasons = dict(zip(answers["study"], answers["reason"].fillna(""), strict=True))
    assert "other images of the view are used" in reasons["0"] and reasons["2"] == ""


def test_other_overrides_of_predict_are_refused(run, tmp_path):
    done = CliRunner().invoke(app, ["predict", str(run), "data.root=x", "--csv", "x", "--out", str(tmp_path / "o.csv")])
    assert done.exit_code == 1 and "predict takes run directories and data.several_images_at_test" in " ".join(
        done.output.split()
    )
