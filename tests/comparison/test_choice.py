"""Choosing on val, and what the table says of it, from predictions made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dualview.commands.tables import comparison_tables
from dualview.comparison.choice import choose_on_val
from dualview.comparison.plan import CompareConfig, Plan
from dualview.comparison.result import compare_predictions
from dualview.comparison.tables import Comparison, Cost, choice_line, find, markdown, write_tables
from dualview.evaluation.prediction_table import PredictionTable
from tests.comparison.test_result import KINDS, one_view, predictions


def comparison(
    tmp_path: Path,
    *,
    val: dict[str, list[PredictionTable]],
    test: dict[str, list[PredictionTable]],
    without_val: tuple[str, ...] = (),
) -> Comparison:
    """A comparison whose first variant is the baseline."""
    baseline, seeds = next(iter(test)), list(range(1, 1 + len(next(iter(test.values())))))
    config = CompareConfig(dir=tmp_path, seeds=seeds, baseline=baseline, variants={name: {} for name in test})
    by_key = {("", name): tables for name, tables in test.items()}
    return Comparison(
        plan=Plan(compare=config, runs=[]),
        rows=compare_predictions(by_key, baseline=baseline, num_resamples=200),
        costs={key: Cost(num_parameters=1, images_per_second=None) for key in by_key},
        choices=choose_on_val({("", name): tables for name, tables in val.items()}, baseline=baseline),
        without_val=list(without_val),
    )


@pytest.fixture(scope="module")
def disagreeing(tmp_path_factory) -> Comparison:
    """Val ranks b over a, test a over b; c sees one view, and is the best of all on complete studies."""
    seeds = (1, 2)
    return comparison(
        tmp_path_factory.mktemp("compare"),
        val={
            "a": [predictions(skill=1.0, seed=seed) for seed in seeds],
            "b": [predictions(skill=2.0, seed=seed) for seed in seeds],
            "c": [one_view(predictions(skill=3.0, seed=seed)) for seed in seeds],
        },
        test={
            "a": [predictions(skill=1.6, seed=seed) for seed in seeds],
            "b": [predictions(skill=1.2, seed=seed) for seed in seeds],
            "c": [one_view(predictions(skill=3.0, seed=seed)) for seed in seeds],
        },
    )


def macro(skill: float) -> float:
    """Macro AUROC on all studies, mean over seeds 1 and 2, by scikit-learn."""
    runs = [predictions(skill=skill, seed=seed) for seed in (1, 2)]
    return float(np.mean([roc_auc_score(run.labels[:, k], run.logits["route"][:, k]) for run in runs for k in (0, 1)]))


def test_the_network_is_chosen_on_val_and_reported_on_test_in_one_line(disagreeing):
    line = choice_line(disagreeing, setting="")
    assert "\n" not in line
    assert line.startswith(
        f"chosen on val: b (macro AUROC {macro(2.0):.3f} on all studies of val (120), the highest of 2"
    )
    assert f"(next a {macro(1.0):.3f}); c cannot judge these studies)" in line
    assert f"On test: {macro(1.2):.3f} [" in line
    assert "95 % interval over seeds and patients" in line
    assert line.endswith(f"Highest on test: a {macro(1.6):.3f}, optimistic, chosen by the test patients.")
    assert line in markdown(disagreeing)


def test_the_test_winner_of_each_column_is_marked_optimistic(disagreeing):
    text = markdown(disagreeing)
    assert "† highest of its column on test: as a choice it is optimistic" in text
    lines = {line.split(" | ")[0]: line.split(" | ") for line in text.splitlines() if line.startswith("| ")}
    by_column = list(zip(*(lines[f"| {name}"] for name in "abc"), strict=True))
    assert all(sum("†" in cell for cell in column) <= 1 for column in by_column)
    write_tables(disagreeing)
    table = pd.read_csv(disagreeing.plan.compare.dir / "comparison-to-a.csv")
    chosen = table[table["chosen_on_val"]]
    assert set(chosen["variant"]) == {"b"}
    of_all = table[(table["group"] == "all") & (table["finding"] == "macro") & (table["metric"] == "auroc")]
    assert list(of_all["best_on_test"]) == [True, False, False]
    assert (comparison_tables(disagreeing)[0].caption or "").count("optimistic") == 1


def test_one_seed_speaks_of_patients_only(tmp_path):
    runs = {name: [predictions(skill=skill, seed=1)] for name, skill in (("a", 1.0), ("b", 2.0))}
    result = comparison(tmp_path, val=runs, test=runs)
    for text in (markdown(result), choice_line(result, setting=""), str(comparison_tables(result)[0].caption)):
        assert "over patients only" in text
        assert "seeds and patients" not in text
    assert "mean over" not in markdown(result)
    assert "Highest on test" not in choice_line(result, setting="")  # The one chosen on val is the highest.


def test_networks_of_different_views_are_chosen_on_complete_studies(tmp_path):
    whole, part = predictions(skill=1.0, seed=1), one_view(predictions(skill=2.0, seed=1))
    line = choice_line(
        comparison(tmp_path, val={"a": [whole], "c": [part]}, test={"a": [whole], "c": [part]}), setting=""
    )
    assert line.startswith("chosen on val: c (macro AUROC ")
    assert "on both views of val (40)" in line


def test_without_predictions_of_val_nothing_is_chosen(tmp_path):
    runs = {"a": [predictions(skill=1.0, seed=1)]}
    result = comparison(tmp_path, val=runs, test=runs, without_val=("a/seed-1",))
    assert choice_line(result, setting="") == "no network is chosen: no predictions of val in a/seed-1."


def test_differences_with_few_patients_have_no_verdict(tmp_path):
    """Of 40 complete studies, finding A is in 3 and finding B in 8."""
    runs = {}
    for name, skill in (("a", 0.5), ("b", 1.0)):
        table = predictions(skill=skill, seed=1)
        both = np.flatnonzero(KINDS == 0)
        table.labels[both] = 0
        table.labels[both[:3], 0] = 1
        table.labels[both[:8], 1] = 1
        runs[name] = [table]
    result = comparison(tmp_path, val=runs, test=runs)
    rare, some = (find(result.rows, setting="", variant="b", group="both", finding=finding) for finding in "AB")
    assert (rare.num_positive_patients, rare.num_negative_patients) == (3, 37)
    assert (rare.low, rare.mean_low, rare.simultaneous_low, rare.num_compared) == (None, None, None, None)
    assert some.low is not None
    assert some.simultaneous_low is None
    assert (
        markdown(result).count("(too few to judge)") == 5
    )  # A, B, and their mean with both views and with either withheld
