"""`dualview evaluate` on runs trained here: the same numbers as training reported, for any number of processes."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from dualview.cli import app
from dualview.commands.train import train
from dualview.config import Config
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
    assert (run / "operating_points.json").read_text() == before  # those are of the best checkpoint


def test_mistakes_are_named(run):
    for arguments, expected in (
        (["--split", "tests"], "choose train, val or test"),
        (["--by", "sex"], "no such column of the study table; there are none"),
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
    generator = np.random.default_rng(0)
    rows = ["patient,study,view,path,A,sex"]
    for study in range(60):
        Image.fromarray(generator.integers(0, 255, (64, 64), dtype=np.uint8)).save(tmp_path / f"{study}.png")
        rows.append(f"p{study},{study},PA,{study}.png,{study % 2},{'FM'[study // 2 % 2]}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    values = config_for(tmp_path / "run").model_dump(mode="json")
    values["data"] |= {"source": "csv", "root": str(tmp_path), "findings": ["A"], "attributes": ["sex"]}
    train(Config.model_validate(values))
    done = evaluate(tmp_path / "run", "--by", "sex")
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "run/evaluation-test/evaluation.json").read_text())
    assert set(document["subgroups"]["sex"]) == {"F", "M"}
    assert sum(part["num_studies"] for part in document["subgroups"]["sex"].values()) == 12
