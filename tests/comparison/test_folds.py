"""Comparisons over folds: which runs there are, and what their predictions come to together. Nothing is trained."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from dualview.cli import app
from dualview.comparison.choice import choose_on_val
from dualview.comparison.folds import FOLD, pooled, with_calibrated_logits
from dualview.comparison.plan import read_plan
from dualview.comparison.result import compare_predictions
from dualview.comparison.runs import slurm_array
from dualview.errors import UserError
from dualview.evaluation.operating_points import choose_operating_points
from dualview.evaluation.prediction_columns import read_prediction_columns
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.bootstrap import resample_patients
from dualview.evaluation.statistics.strata import auroc_within, aurocs_within
from dualview.run.directory import RunDir
from dualview.views import Availability
from tests.comparison.test_result import KINDS, predictions, row
from tests.support.runs import write_comparison

FILE = """
compare:
  dir: {dir}
  seeds: [3, 5]
  baseline: one
  resamples: 100
  settings: {{few: {{data.split.max_train_patients: 10}}, many: {{}}}}
  variants:
    one: {{model.name: dualnet}}
    two: {{optim.learning_rate: 1e-3}}
model: {{backbone: densenet_tiny}}
data: {{split: {{folds: 3}}}}
tracking: {{wandb: disabled}}
"""
NUMBERS = np.arange(len(KINDS)) % 3 + 1  # the fold of each study


def in_folds(*, skill: float, seed: int, offset: float = 0.0) -> dict[int, PredictionTable]:
    """The test of each fold: 40 of the 120 studies of `predictions`, of networks whose logits are `offset` apart."""
    whole = predictions(skill=skill, seed=seed)
    tables = {}
    for fold in (1, 2, 3):
        part = whole.select(fold == NUMBERS)
        tables[fold] = replace(part, logits={name: values + offset * fold for name, values in part.logits.items()})
    return tables


# -- which runs --


def test_there_is_a_run_for_every_fold_of_every_setting_variant_and_seed(tmp_path):
    plan = read_plan(write_comparison(tmp_path, FILE))
    names = [f"{s}/{v}/seed-{n}/fold-{k}" for n, s, v, k in product((3, 5), ("few", "many"), ("one", "two"), (1, 2, 3))]
    assert [run.name for run in plan.runs] == names
    for run in plan.runs:
        split = run.config.data.split
        assert (split.folds, split.fold) == (3, run.fold)
        assert run.config.run.dir == tmp_path / "runs" / run.name
        assert split.max_train_patients == (10 if run.setting == "few" else None)  # nothing of a setting is in another
        assert run.config.data_seed == 0
    assert [plan.num_folds(setting) for setting in ("few", "many")] == [3, 3]
    assert "--array=0-23" in slurm_array(plan, command="dualview compare x.yaml")


def test_a_fold_that_is_named_is_the_only_one(tmp_path):
    plan = read_plan(write_comparison(tmp_path, FILE), overrides=["data.split.fold=2"])
    assert {run.config.data.split.fold for run in plan.runs} == {2}
    assert (len(plan.runs), plan.num_folds("few")) == (8, None)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("folds: 3", "folds: 1", "data.split.folds: found 1"),
        ("folds: 3", "folds: many", "data.split.folds: found 'many'"),
        (
            "{{optim.",
            "{{data.split.folds: 5, optim.",
            "compare, few: variants differ in data.split.folds (one 3, two 5)",
        ),
        ("folds: 3", "folds: 3, fold: 4", "fold is 4; with folds 3 it is from 1 to 3"),
        ("folds: 3", "folds: 3, file: split.csv", "file says which patients are tested"),
    ],
)
def test_folds_that_make_no_sense_are_refused(tmp_path, old, new, expected):
    with pytest.raises(UserError) as error:
        read_plan(write_comparison(tmp_path, FILE.replace(old, new)))
    assert expected in str(error.value)
    assert len(str(error.value)) < 1000


# -- what they come to --


def test_auroc_within_is_the_share_of_pairs_of_one_fold_in_the_right_order():
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 6, 60).astype(float), generator.random(60) < 0.3
    strata, patients = generator.integers(0, 4, 60), np.repeat(np.arange(30), 2)
    counts = resample_patients(patients, num_resamples=20)
    found = auroc_within(scores, positive=positive, counts=counts, strata=strata)
    for resample in range(20):
        wins = pairs = 0.0
        drawn = np.repeat(np.arange(60), counts[:, resample])
        for i, j in product(drawn[positive[drawn]], drawn[~positive[drawn]]):
            if strata[i] == strata[j]:
                wins += 1.0 * (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
                pairs += 1
        assert found[resample] == pytest.approx(wins / pairs, abs=1e-12)


def test_folds_without_a_pair_leave_it_undefined():
    truth, known = np.array([[True], [True], [False], [False]]), np.ones((4, 1), bool)
    values, resampled = aurocs_within(
        np.zeros((4, 1)), positive=truth, known=known, counts=np.ones((4, 7), np.uint8), strata=np.array([1, 1, 2, 2])
    )
    assert np.isnan(values).all()
    assert np.isnan(resampled).all()
    assert resampled.shape == (1, 7)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_auroc_is_that_of_pairs_of_one_network_and_auroc_pooled_of_all(offset):
    runs = {("", "a"): [pooled(in_folds(skill=1.0, seed=seed, offset=offset)) for seed in (1, 2)]}
    rows = compare_predictions(runs, baseline="a", num_resamples=100)
    within, everyone, precision = [], [], []
    for seed in (1, 2):
        whole = predictions(skill=1.0, seed=seed)
        truth, scores = whole.labels[:, 0], whole.logits["route"][:, 0]
        wins = pairs = 0.0
        for fold in (1, 2, 3):
            here = fold == NUMBERS
            number = truth[here].sum() * (1 - truth[here]).sum()
            wins, pairs = wins + number * roc_auc_score(truth[here], scores[here]), pairs + number
        within.append(wins / pairs)
        everyone.append(roc_auc_score(truth, scores + offset * NUMBERS))
        precision.append(average_precision_score(truth, scores + offset * NUMBERS))
    assert row(rows, "a", "all", "A").mean == pytest.approx(np.mean(within), abs=1e-12)
    assert row(rows, "a", "all", "A", "auroc_pooled").mean == pytest.approx(np.mean(everyone), abs=1e-12)
    assert row(rows, "a", "all", "A", "average_precision").mean == pytest.approx(np.mean(precision), abs=1e-12)
    assert row(rows, "a", "all").num_studies == len(KINDS)


def test_scores_of_networks_that_are_apart_lower_the_auroc_of_all_pairs_only():
    """Folds whose logits scatter by 1 beside noise of 1: true AUROC 0.76, 150 patients, 100 times."""
    generator = np.random.default_rng(0)
    truth, strata = np.arange(150) % 3 == 0, np.arange(150) // 3 % 5
    within, everyone = [], []
    for _ in range(100):
        scores = truth + generator.normal(size=150) + generator.normal(size=5)[strata]
        counts = np.ones((150, 1), np.uint8)
        within.append(float(auroc_within(scores, positive=truth, counts=counts, strata=strata)[0]))
        everyone.append(roc_auc_score(truth, scores))
    assert np.mean(within) == pytest.approx(0.760, abs=0.012)
    assert np.mean(everyone) < 0.72


def test_the_weight_of_positives_that_each_fold_has_counted_is_undone():
    whole = predictions(skill=1.0, seed=1)
    points = choose_operating_points(whole, log_pos_weight={"A": 0.7, "B": 0.0})
    undone = with_calibrated_logits(whole, points=points)
    for score in ("route", "lateral_hidden"):
        np.testing.assert_allclose(undone.logits[score], whole.logits[score] - [0.7, 0.0], atol=1e-12)


def test_runs_that_test_a_study_in_other_folds_are_refused():
    tables = in_folds(skill=1.0, seed=1)
    other = {fold: tables[fold % 3 + 1] for fold in tables}
    runs = {("", "a"): [pooled(tables)], ("", "b"): [pooled(other)]}
    with pytest.raises(UserError, match="test the same studies in other folds"):
        compare_predictions(runs, baseline="a", num_resamples=100)


def test_a_patient_in_the_val_of_two_folds_counts_in_both_and_is_resampled_as_one():
    vals = {}
    for name, skill in (("a", 0.5), ("b", 2.0)):
        whole = predictions(skill=skill, seed=1)
        vals["", name] = [
            pooled({1: whole.select(np.arange(80)), 2: whole.select(np.arange(60, 120))}, is_named_by_fold=True)
        ]
    choice = choose_on_val(vals, baseline="a")[""]
    assert choice.variant == "b"
    assert choice.ranked[0].num_studies == 140
    (table,) = vals["", "a"]
    assert len(set(table.study_ids)) == 140
    assert len(set(table.patient_ids)) == 120


# -- the command --


def write_finished_runs(plan, *, offset: float) -> None:
    """What training leaves of every run, with predictions made by hand; val of a fold is the test of the next."""
    for run in plan.runs:
        folder = RunDir(run.config.run.dir)
        folder.path.mkdir(parents=True)
        folder.config.write_text(run.config.to_yaml())
        folder.metrics.write_text("{}")
        tables = in_folds(skill=1.0 if run.variant == "one" else 2.0, seed=run.seed, offset=offset)
        tables[run.fold].write(folder.predictions("test"))
        val = tables[run.fold % 3 + 1]
        val.write(folder.predictions("val"))
        choose_operating_points(val, log_pos_weight={"A": 0.5 * run.fold, "B": 0.0}).write(folder.operating_points)


def test_more_folds_than_patients_are_one_error_and_no_run(tmp_path):
    file = write_comparison(tmp_path, FILE.replace("folds: 3}}", "folds: 13}}, phantom: {{num_studies: 12}}"))
    done = CliRunner().invoke(app, ["compare", str(file)])
    assert done.exit_code == 1
    assert "data.split.folds is 13, and there are 12 patients" in " ".join(done.output.split())
    assert "run(s) failed" not in done.output
    assert not (tmp_path / "runs").exists()


def test_the_command_pools_folds_and_writes_what_assess_reads(tmp_path, caplog):
    file = write_comparison(tmp_path, FILE.replace("[3, 5]", "[5]"))
    write_finished_runs(read_plan(file), offset=0.5)
    done = CliRunner().invoke(app, ["compare", str(file)])
    assert done.exit_code == 0, done.output
    assert "few: 3 folds: every patient is tested once" in done.output.replace("\n", " ")
    table = pd.read_csv(tmp_path / "runs/comparison-to-one.csv", keep_default_na=False)
    assert set(table["metric"]) == {"auroc", "average_precision", "auroc_pooled"}
    assert set(table.loc[table["group"] == "all", "num_studies"]) == {120}
    text = (tmp_path / "runs/comparison-to-one.md").read_text()
    assert "few: 3 folds: every patient is tested once" in text
    assert "of the folds' val (120 predictions)" in text
    pooled_file = tmp_path / "runs/few/two/seed-5/out-of-fold.parquet"
    read = read_prediction_columns(pooled_file, by=[FOLD])
    whole = predictions(skill=2.0, seed=5)
    order = [list(read.table.study_ids).index(study) for study in whole.study_ids]
    assert sorted(order) == list(range(120))  # each study once
    # The logits of finding A are 0.5 apart by fold, which is what the weight of positives has added to them.
    np.testing.assert_allclose(read.table.logits["route"][order, 0], whole.logits["route"][:, 0], atol=1e-12)
    assert list(read.table.attributes[FOLD][order]) == [str(number) for number in NUMBERS]
    assert_thresholds_are_those_of_each_fold(pooled_file, tmp_path=tmp_path, seed=5)
    assert "predictions of 3 folds, each by a network of its own" in caplog.text


def assert_thresholds_are_those_of_each_fold(pooled_file, *, tmp_path, seed) -> None:
    """The page of all patients decides each by the threshold that its own fold has chosen on its val."""
    done = CliRunner().invoke(app, ["assess", str(pooled_file), "--out", str(tmp_path / "all"), "--resamples", "100"])
    assert done.exit_code == 0, done.output
    counted = dict.fromkeys(("true_positive", "false_positive", "true_negative", "false_negative"), 0)
    tables = in_folds(skill=2.0, seed=seed, offset=0.5)
    for fold, table in tables.items():
        weights = {"A": 0.5 * fold, "B": 0.0}
        points = choose_operating_points(tables[fold % 3 + 1], log_pos_weight=weights)
        pa_only = np.flatnonzero(table.availability == Availability.PA_ONLY)
        threshold = points.routes["pa_only"]["B"].threshold
        for study in pa_only:
            is_called = expit(table.logits["route"][study, 1]) >= threshold
            is_right = is_called == (table.labels[study, 1] == 1)
            counted[f"{str(bool(is_right)).lower()}_{'positive' if is_called else 'negative'}"] += 1
    evaluation = json.loads((tmp_path / "all/evaluation.json").read_text())
    found = evaluation["groups"]["pa_only"]["findings"]["B"]["operating_point"]
    assert {name: found[name] for name in counted} == counted
    assert found["threshold"] is None  # each fold has its own
    assert evaluation["settings"]["operating_points"] == "the columns threshold:F, for each study its own"
    assert any("3 folds, each by a network of its own" in text for text in evaluation["versions"])
    page = (tmp_path / "all/report.html").read_text()
    summary = page[page.index("Summary</h2>") : page.index("What the lateral view is worth</h2>")]
    assert "Predictions of 3 folds, each by a network of its own" in " ".join(summary.split())
    assert "Predictions of another software" not in summary
    refused = CliRunner().invoke(
        app, ["assess", str(pooled_file), "--val", str(pooled_file), "--out", str(tmp_path / "x")]
    )
    assert "has thresholds of its own" in " ".join(refused.output.split())
