"""`dualview evaluate` on runs trained here: the same numbers as training reported, for any number of processes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import dualview
from dualview.cli import app
from dualview.commands.train import train
from dualview.config import Config
from dualview.data.load import load_data
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import read_predictions
from tests.support.runs import tiny_config


def config_for(run_dir, **model):
    return tiny_config(run_dir, data={"phantom": {"num_studies": 100}}, model=model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train(config_for(run))
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run", symlinks=True)


def evaluate(run, *arguments):
    return CliRunner().invoke(app, ["evaluate", str(run), "--resamples", "100", *arguments])


def test_it_says_what_training_said(run):
    done = evaluate(run)
    assert done.exit_code == 0, done.output
    document = json.loads((run / "evaluation-test/evaluation.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    for group, of_group in metrics.items():
        assert document["groups"][group]["num_studies"] == of_group["num_studies"]
        assert document["groups"][group]["macro"]["auroc"]["value"] == pytest.approx(of_group["macro_auroc"], abs=1e-9)
    of_training = read_predictions(run / "predictions-test.parquet")
    ours = read_predictions(run / "evaluation-test/predictions.parquet")
    for score, logits in of_training.logits.items():
        assert np.array_equal(logits, ours.logits[score], equal_nan=True), score
    assert document["masked"]["num_studies"] == metrics["both"]["num_studies"]


def test_a_withheld_view_is_a_view_that_is_not_there(run):
    """auxloss: with the lateral withheld, a complete study gets what its PA head says."""
    predictions = read_predictions(run / "predictions-test.parquet")
    both = predictions.availability == 0
    np.testing.assert_allclose(predictions.logits["lateral_hidden"][both], predictions.logits["pa"][both], atol=1e-6)
    np.testing.assert_allclose(predictions.logits["pa_hidden"][both], predictions.logits["lateral"][both], atol=1e-6)
    assert np.isnan(predictions.logits["lateral_hidden"][~both]).all()


def test_another_checkpoint_split_rule_and_calibration(run):
    before = (run / "operating_points.json").read_text()
    done = evaluate(run, "--checkpoint", "2", "--split", "val", "--threshold", "sensitivity=0.9", "--calibrate")
    assert done.exit_code == 0, done.output
    document = json.loads((run / "evaluation-val-2/evaluation.json").read_text())
    assert document["checkpoint"] == {"name": "2", "step": 2}
    assert document["settings"]["operating_points"] == "sensitivity=0.9, chosen on val"
    assert set(document["temperature"]) == {"both", "pa_only", "lateral_only"}
    assert document["settings"]["operating_points_of"] == "evaluation"
    assert (run / "operating_points.json").read_text() == before  # those are of the best checkpoint
    done = evaluate(run, "--checkpoint", "2" if (run / "checkpoints/best").resolve().name != "step-000002" else "4",
                    "--set-thresholds")  # fmt: skip
    assert done.exit_code == 1 and "is for the best checkpoint" in " ".join(done.output.split())


OTHERS = [
    [], ["--split", "val"], ["--split", "train"], ["--threshold", "sensitivity=0.9"], ["--calibrate"], ["--out", "OUT"],
    ["--out", "OUT", "--threshold", "specificity=0.9", "--calibrate"], ["data.num_workers=1"],
]  # fmt: skip


def test_only_a_request_changes_the_operating_points_of_a_run(run, tmp_path):
    """Every other evaluation leaves the bytes alone, keeps its own beside its results and says whose they are."""
    file = run / "operating_points.json"
    before = file.read_bytes()
    for options in OTHERS:
        done = evaluate(run, *(option.replace("OUT", str(tmp_path / "out")) for option in options))
        assert done.exit_code == 0, done.output
        assert file.read_bytes() == before, options
        split = options[1] if "--split" in options else "test"
        folder = tmp_path / "out" if "--out" in options else run / f"evaluation-{split}"
        own, settings = (
            folder / "operating_points.json",
            json.loads((folder / "evaluation.json").read_text())["settings"],
        )
        chosen_here = {"--threshold", "--calibrate"} & set(options)
        assert settings["operating_points_of"] == ("evaluation" if chosen_here else "run")
        assert f"{own if chosen_here else file}" in done.output.replace("\n", "")
        assert chosen_here or own.read_bytes() == before


def test_operating_points_that_are_set_are_those_of_the_run_from_then_on(run):
    file = run / "operating_points.json"
    before = json.loads(file.read_text())
    done = evaluate(run, "--threshold", "sensitivity=0.9", "--set-thresholds")
    assert done.exit_code == 0, done.output
    points = read_operating_points(file)
    assert points.rule == "sensitivity=0.9" and json.loads(file.read_text()) != before
    assert dualview.load(run, device="cpu").points == points
    of_set = json.loads((run / "evaluation-test/evaluation.json").read_text())
    assert evaluate(run).exit_code == 0
    of_plain = json.loads((run / "evaluation-test/evaluation.json").read_text())
    assert of_plain == of_set and of_plain["settings"]["operating_points"] == "sensitivity=0.9, chosen on val"
    file.unlink()
    assert evaluate(run).exit_code == 0 and not file.exists()
    assert read_operating_points(run / "evaluation-test/operating_points.json").rule == "youden"


def write_noise(folder, *, labels, num_studies=60):
    """PA images of noise and metadata.csv with a column per finding, and one of sex."""
    generator = np.random.default_rng(0)
    rows = [",".join(("patient", "study", "view", "path", *labels, "sex"))]
    for study in range(num_studies):
        Image.fromarray(generator.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{study}.png")
        known = [str(int(label(study))) for label in labels.values()]
        rows.append(",".join((f"p{study}", str(study), "PA", f"{study}.png", *known, "FM"[study // 2 % 2])))
    (folder / "metadata.csv").write_text("\n".join(rows))


def test_probabilities_are_made_without_the_weight_of_positives(tmp_path, caplog):
    """By training, by evaluate, and by evaluate on a checkpoint of before it was kept, counted anew: all the same."""
    run = tmp_path / "run"
    write_noise(tmp_path, labels={"Rare": lambda study: study % 20 == 0, "Common": lambda study: study % 2})
    values = config_for(run).model_dump(mode="json")
    values["data"] |= {"source": "csv", "root": str(tmp_path), "findings": ["Rare", "Common"]}
    train(Config.model_validate(values))
    manifest = run / "checkpoints/best/manifest.json"
    content = json.loads(manifest.read_text())
    assert len(content["pos_weight"]) == len(content["findings"]) and content["pos_weight"][0] > 1.5
    of_training = json.loads((run / "operating_points.json").read_text())
    logs = dict(zip(content["findings"], np.log(content["pos_weight"]), strict=True))
    assert of_training["log_pos_weight"] == pytest.approx(logs)
    predictions = read_predictions(run / "predictions-test.parquet")
    use = predictions.evaluated[:, None] & predictions.label_mask
    for k, finding in enumerate(predictions.findings):
        probability = expit(predictions.logits["route"][:, k] - logs[finding])[use[:, k]]
        brier = np.square(probability - predictions.positive[use[:, k], k]).mean()
        metrics = json.loads((run / "metrics.json").read_text())["test"]["all"]["findings"][finding]
        assert metrics["brier"] == pytest.approx(brier, abs=1e-6)
    del content["pos_weight"], content["sha256"]
    manifest.write_text(json.dumps(content))
    assert evaluate(run, "--set-thresholds").exit_code == 0
    assert "did not keep the weights of loss.pos_weight" in caplog.text
    assert json.loads((run / "operating_points.json").read_text()) == of_training
    document = json.loads((run / "evaluation-test/evaluation.json").read_text())
    for finding in predictions.findings:
        assert document["groups"]["all"]["findings"][finding]["brier"]["value"] == pytest.approx(
            json.loads((run / "metrics.json").read_text())["test"]["all"]["findings"][finding]["brier"], abs=1e-6
        )
        assert document["calibration"]["both"][finding]["log_pos_weight"] == pytest.approx(logs[finding])


@pytest.mark.parametrize("left_out", [{"train_on": ["both"]}, {"split": {"max_train_patients": 20}}], ids=str)
def test_the_baseline_knows_the_whole_training_split(tmp_path, left_out):
    """By hand from the labels of all training studies, also of those that training leaves out."""
    config = tiny_config(tmp_path / "run", data={"phantom": {"num_studies": 100}, **left_out})
    train(config)
    assert evaluate(tmp_path / "run").exit_code == 0
    document = json.loads((tmp_path / "run/evaluation-test/evaluation.json").read_text())
    splits = load_data(config.data, seed=config.data_seed).whole_splits
    shares = np.stack([splits["train"].labels[splits["train"].availability == kind].mean(axis=0) for kind in range(3)])
    test = splits["test"]
    for k, finding in enumerate(test.findings):
        expected = roc_auc_score(test.labels[:, k], shares[test.availability, k])
        value = document["availability_baseline"]["findings"][finding]["auroc"]["value"]
        assert value == pytest.approx(expected, abs=1e-9)


def test_mistakes_are_named(run):
    for arguments, expected in (
        (["--split", "tests"], "choose train, val or test"),
        (["--by", "sex"], "no such column; the study table has none"),
        (["model.dropout=0.5"], "model.dropout cannot be changed for a network that is trained"),
        (["--checkpoint", "7"], "has no checkpoint '7'"),
        (["--threshold", "best"], "write youden, sensitivity=0.9"),
    ):
        done = evaluate(run, *arguments)
        assert done.exit_code == 1
        assert expected in " ".join(done.output.split()), arguments


def test_patients_that_were_trained_on_are_not_evaluated(run):
    rows = pd.read_csv(run / "split.csv", dtype=str)
    rows.loc[rows["split"] == "test", "split"] = "train"
    rows.to_csv(run / "split.csv", index=False)
    done = evaluate(run)
    assert done.exit_code == 1
    assert "patient(s) of the test split were trained on" in " ".join(done.output.split())


@pytest.mark.parametrize("name", ["stacked", "single"])
def test_networks_that_need_a_view_are_evaluated_without_withholding_it(tmp_path, name):
    train(config_for(tmp_path / "run", name=name))
    done = evaluate(tmp_path / "run")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "run/evaluation-test/evaluation.json").read_text())
    assert document["masked"] is None
    assert document["num_studies"] > 0


def test_columns_of_a_csv_divide_the_evaluation(tmp_path):
    write_noise(tmp_path, labels={"A": lambda study: study % 2})
    values = config_for(tmp_path / "run").model_dump(mode="json")
    values["data"] |= {"source": "csv", "root": str(tmp_path), "findings": ["A"], "attributes": ["sex"]}
    train(Config.model_validate(values))
    done = evaluate(tmp_path / "run", "--by", "sex")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "run/evaluation-test/evaluation.json").read_text())
    assert set(document["subgroups"]["sex"]) == {"F", "M"}
    assert sum(part["num_studies"] for part in document["subgroups"]["sex"].values()) == 12
