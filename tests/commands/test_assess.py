"""`dualview assess` on predictions in columns: the numbers of `evaluate`, and those of scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve
from typer.testing import CliRunner

from dualview.cli import app
from dualview.commands.evaluation_parts import train_prevalence
from dualview.commands.train import train
from dualview.data.load import load_data
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import read_predictions
from dualview.views import ROUTES
from tests.support.runs import tiny_config

FINDINGS = ("Nodule", "Mass: left")


def run(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join(done.output.split())


def made_up(seed, *, num_studies=300, prefix="p"):
    """Nodule gains much by the lateral, the mass is hurt by it; two studies per patient."""
    generator = np.random.default_rng(seed)
    availability = generator.choice(ROUTES, num_studies, p=(0.7, 0.2, 0.1))
    frame = pd.DataFrame({
        "study": [f"{prefix}{n:04}" for n in range(num_studies)],
        "patient": [f"{prefix}0{n // 2}" for n in range(num_studies)],
        "availability": availability,
        "sex": generator.choice(["F", "M"], num_studies),
    })  # fmt: skip
    for finding, strengths in zip(FINDINGS, ((4, 0.2), (0.2, 4)), strict=True):
        label = (generator.random(num_studies) < 0.3).astype(float)
        for kind, strength in zip(("probability", "probability_lateral_hidden"), strengths, strict=True):
            frame[f"{kind}:{finding}"] = expit(strength * label + generator.normal(size=num_studies) - 1)
        frame[f"label:{finding}"] = np.where(generator.random(num_studies) < 0.1, np.nan, label)
        frame.loc[availability != "both", f"probability_lateral_hidden:{finding}"] = np.nan
    return frame


@pytest.fixture
def files(tmp_path):
    made_up(0).to_csv(tmp_path / "other.v2.csv", index=False)
    made_up(0).to_parquet(tmp_path / "other.parquet", index=False)
    made_up(1, prefix="v").to_parquet(tmp_path / "val.parquet", index=False)
    return tmp_path


def as_columns(predictions, log_pos_weight, *, scale="logit"):
    """What a run says of a split in the columns that `assess` reads, with the weight of positives undone."""
    frame = pd.DataFrame({
        "study": predictions.study_ids,
        "patient": predictions.patient_ids,
        "availability": [ROUTES[kind] for kind in predictions.availability],
    })  # fmt: skip
    for k, finding in enumerate(predictions.findings):
        frame[f"label:{finding}"] = np.where(predictions.label_mask[:, k], predictions.labels[:, k], np.nan)
        for score, suffix in (("route", ""), ("lateral_hidden", "_lateral_hidden"), ("pa_hidden", "_pa_hidden")):
            logits = predictions.logits[score][:, k] - log_pos_weight[finding]
            frame[f"{scale}{suffix}:{finding}"] = logits if scale == "logit" else expit(logits)
    return frame


def without_names(document):
    """What an evaluation says apart from the network and its heads, which no other software has."""
    masked = {key: value for key, value in document["masked"].items() if key != "heads"}
    kept = ("findings", "num_patients", "num_studies", "groups", "availability_baseline", "subgroups")
    return {**{key: document[key] for key in kept}, "masked": masked}


def test_a_run_in_these_columns_gets_the_numbers_of_evaluate(tmp_path):
    config = tiny_config(tmp_path / "run", data={"phantom": {"num_studies": 100}})
    train(config)
    for split in ("val", "test"):
        assert run("evaluate", tmp_path / "run", "--split", split, "--resamples", "100")[0] == 0
    points = read_operating_points(tmp_path / "run/operating_points.json")
    for split in ("val", "test"):
        predictions = read_predictions(tmp_path / f"run/evaluation-{split}/predictions.parquet")
        as_columns(predictions, points.log_pos_weight).to_csv(tmp_path / f"{split}.csv", index=False)
        as_columns(predictions, points.log_pos_weight).to_parquet(tmp_path / f"{split}.parquet", index=False)
        probabilities = as_columns(predictions, points.log_pos_weight, scale="probability")
        probabilities.to_parquet(tmp_path / f"{split}-probabilities.parquet", index=False)
    shares = train_prevalence(load_data(config.data, seed=config.data_seed).train)
    prevalence = {f"prevalence:{finding}": shares[:, k] for k, finding in enumerate(predictions.findings)}
    pd.DataFrame({"availability": ROUTES, **prevalence}).to_csv(tmp_path / "train.csv", index=False)

    of_run = json.loads((tmp_path / "run/evaluation-test/evaluation.json").read_text())
    for name in ("test.csv", "test.parquet", "test-probabilities.parquet"):
        val = tmp_path / name.replace("test", "val")
        code, output = run("assess", tmp_path / name, "--val", val, "--train-prevalence", tmp_path / "train.csv",
                           "--out", tmp_path / "out", "--resamples", "100")  # fmt: skip
        assert code == 0, output
        ours = json.loads((tmp_path / "out/evaluation.json").read_text())
        if "probabilities" not in name:
            assert without_names(ours) == without_names(of_run)
        for group in ("groups", "masked"):
            for look in ("all", "both") if group == "groups" else ("both", "lateral_hidden", "pa_hidden"):
                for finding in predictions.findings:
                    assert ours[group][look]["findings"][finding]["auroc"] == pytest.approx(
                        of_run[group][look]["findings"][finding]["auroc"], abs=1e-12
                    )
        for view in ("value_of_lateral", "value_of_pa"):
            assert {key: ours["masked"][view][key] for key in ("helped", "hurt", "undecided", "too_few")} == {
                key: of_run["masked"][view][key] for key in ("helped", "hurt", "undecided", "too_few")
            }


def test_scikit_learn_says_the_same(files):
    code, output = run("assess", files / "other.v2.csv", "--val", files / "val.parquet", "--by", "sex",
                       "--resamples", "300")  # fmt: skip
    assert code == 0, output
    folder = files / "other.v2-assessment"
    document = json.loads((folder / "evaluation.json").read_text())
    points = json.loads((folder / "operating_points.json").read_text())
    frame, val = made_up(0), made_up(1, prefix="v")
    parts = {"all": frame, **{kind: frame[frame.availability == kind] for kind in ROUTES}}
    for finding in FINDINGS:
        for group, rows in parts.items():
            known = rows[rows[f"label:{finding}"].notna()]
            truth, scores = known[f"label:{finding}"], known[f"probability:{finding}"]
            result = document["groups"][group]["findings"][finding]
            assert result["num_positive"] == truth.sum()
            assert result["auroc"]["value"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
            expected = average_precision_score(truth, scores)
            assert result["average_precision"]["value"] == pytest.approx(expected, abs=1e-9)
            assert result["brier"]["value"] == pytest.approx(brier_score_loss(truth, scores), abs=1e-9)
        both = frame[(frame.availability == "both") & frame[f"label:{finding}"].notna()]
        truth = both[f"label:{finding}"]
        hidden = roc_auc_score(truth, both[f"probability_lateral_hidden:{finding}"])
        gained = document["masked"]["value_of_lateral"]["findings"][finding]["auroc"]
        assert gained["value"] == pytest.approx(roc_auc_score(truth, both[f"probability:{finding}"]) - hidden, abs=1e-9)
        of_val = val[(val.availability == "both") & val[f"label:{finding}"].notna()]
        false, true, _ = roc_curve(of_val[f"label:{finding}"], of_val[f"probability:{finding}"])
        threshold = points["routes"]["both"][finding]["threshold"]
        called = of_val[f"probability:{finding}"] >= threshold
        youden = called[of_val[f"label:{finding}"] == 1].mean() - called[of_val[f"label:{finding}"] == 0].mean()
        assert youden == pytest.approx((true - false).max(), abs=1e-9)
        decided = both[f"probability:{finding}"] >= threshold
        reached = document["groups"]["both"]["findings"][finding]["operating_point"]
        assert reached["true_positive"] == (decided & (truth == 1)).sum()
        assert reached["false_positive"] == (decided & (truth == 0)).sum()
    value = document["masked"]["value_of_lateral"]
    assert (value["helped"], value["hurt"]) == (["Nodule"], ["Mass: left"])
    assert document["masked"]["value_of_pa"]["undefined"] == list(FINDINGS)  # no score has the PA withheld
    assert {part: look["num_studies"] for part, look in document["subgroups"]["sex"].items()} == dict(
        frame["sex"].value_counts().sort_index()
    )
    assert document["settings"]["operating_points"] == "youden, chosen on val"


def test_csv_and_parquet_are_one(files):
    documents = []
    for name in ("other.v2.csv", "other.parquet"):
        code, output = run("assess", files / name, "--out", files / "same", "--resamples", "100")
        assert code == 0, output
        documents.append(json.loads((files / "same/evaluation.json").read_text()))
    assert documents[0] == documents[1]
    assert "none: there are no predictions of val" in output
    assert documents[0]["settings"]["operating_points"].startswith("none: ")
    assert documents[0]["groups"]["all"]["findings"]["Nodule"]["operating_point"] is None


def test_the_page_stands_alone_and_beside_others(files):
    made_up(0).drop(columns=[f"probability_lateral_hidden:{finding}" for finding in FINDINGS]).to_csv(
        files / "one.csv", index=False
    )
    for name in ("one.csv", "other.parquet"):
        assert run("assess", files / name, "--resamples", "100")[0] == 0
    page = (files / "other-assessment/report.html").read_text()
    assert "Predictions of another software" in page and "Thresholds, none" in page
    assert "p0012" not in page and str(files) not in page
    assert "is not measured here" in (files / "one-assessment/report.html").read_text()
    code, output = run("report", files / "one-assessment", files / "other-assessment", "--out", files / "two.html")
    assert code == 0, output
    assert "other software" in (files / "two.html").read_text()
    code, output = run("report", files / "one-assessment", "--images")
    assert code == 1 and "without images" in output


def test_what_would_be_written_over_stays(files):
    folder = files / "folder"
    folder.mkdir()
    made_up(0).to_parquet(folder / "predictions.parquet", index=False)
    before = (folder / "predictions.parquet").read_bytes()
    code, output = run("assess", folder / "predictions.parquet", "--out", folder)
    assert code == 1 and "would be written over" in output
    assert (folder / "predictions.parquet").read_bytes() == before
    (folder / "config.yaml").write_text("")
    code, output = run("assess", files / "other.parquet", "--out", folder)
    assert code == 1 and "holds a run or its evaluation" in output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold", "youden"), "thresholds are chosen on val; give its predictions"),
        (("--val", "other.parquet"), "150 patient(s) are in"),
        (("--by", "age"), "--by age: "),
        (("--val", "nowhere.csv"), "no such table"),
    ],
)
def test_options_that_cannot_be_followed(files, options, said):
    options = [files / word if "." in word else word for word in options]
    code, output = run("assess", files / "other.v2.csv", "--out", files / "new", *options)
    assert code == 1 and said in output, output
    assert not (files / "new").exists()
