"""Gaps between groups of patients, against scikit-learn and against truths that are known."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dualview.evaluation.gaps import subgroup_gaps
from dualview.evaluation.looks import EvaluationSettings, measure_look
from dualview.evaluation.operating_points import choose_operating_points
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.evaluation.statistics.bootstrap import resample_patients
from dualview.evaluation.statistics.intervals import symmetric_interval
from dualview.evaluation.subgroups import NOT_KNOWN, subgroup_rows
from dualview.views import Availability

SETTINGS = EvaluationSettings(num_resamples=300)


def predictions(*, sites: list[str], skill: np.ndarray, seed: int = 0, prevalence: float = 0.4) -> PredictionTable:
    """One PA study a patient; skill (S, K) is how far positives are above negatives."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(skill.shape) < prevalence).astype(np.float32)
    logits = {name: np.full(labels.shape, np.nan) for name in SCORES}
    logits["route"] = generator.normal(size=labels.shape) + skill * labels
    names = np.array([f"s{number}" for number in range(len(sites))], object)
    return PredictionTable(
        findings=tuple(f"F{k}" for k in range(labels.shape[1])), study_ids=names, patient_ids=names,
        availability=np.full(len(sites), Availability.PA_ONLY, np.int8), evaluated=np.ones(len(sites), bool),
        labels=labels, label_mask=np.ones(labels.shape, bool), logits=logits,
        attributes={"site": np.array(sites, object)},
    )  # fmt: skip


def gaps_of(table: PredictionTable):
    parts = subgroup_rows(table, by=["site"])["site"]
    points = choose_operating_points(table)
    counts = resample_patients(table.patient_ids, num_resamples=SETTINGS.num_resamples)
    measured = {
        part: measure_look(table.select(rows), score="route", counts=counts[rows], points=points, settings=SETTINGS)
        for part, rows in parts.items()
    }
    return subgroup_gaps(table, parts=parts, measured=measured, counts=counts, points=points, settings=SETTINGS)


def test_a_group_that_is_served_worse_is_named_with_its_gap():
    """At site B the first finding is not told at all; 20 studies have no site and are in no rest."""
    sites = ["A"] * 200 + ["B"] * 200 + ["C"] * 200 + [""] * 20
    skill = np.full((620, 2), 1.5)
    skill[200:400, 0] = 0
    table = predictions(sites=sites, skill=skill)
    gaps = gaps_of(table)
    assert NOT_KNOWN not in gaps.findings["F0"].groups
    assert gaps.findings["F0"].worst == "B"
    worst = gaps.findings["F0"].groups["B"]
    rest = np.r_[0:200, 400:600]
    auroc = [roc_auc_score(table.labels[rows, 0], table.logits["route"][rows, 0]) for rows in (np.r_[200:400], rest)]
    assert worst.auroc.value == pytest.approx(auroc[0] - auroc[1], abs=1e-12)
    assert worst.rest == pytest.approx(auroc[1], abs=1e-12)
    assert worst.auroc.simultaneous_low < worst.auroc.low < worst.auroc.high < worst.auroc.simultaneous_high < 0
    assert worst.verdict == "lower"
    assert gaps.num_compared == 6
    assert gaps.findings["F1"].groups["B"].verdict == "undecided"


def test_of_two_groups_each_is_the_rest_of_the_other():
    table = predictions(sites=["A", "B"] * 150, skill=np.full((300, 1), 1.0))
    groups = gaps_of(table).findings["F0"].groups
    assert groups["A"].auroc.value == pytest.approx(-groups["B"].auroc.value, abs=1e-12)
    assert groups["A"].rest == pytest.approx(roc_auc_score(table.labels[1::2, 0], table.logits["route"][1::2, 0]))


def test_groups_of_few_patients_are_not_judged_and_are_never_the_worst():
    sites = ["A"] * 200 + ["B"] * 200 + ["C"] * 30
    table = predictions(sites=sites, skill=np.full((430, 1), 1.0))
    table.labels[400:, 0] = 0
    table.labels[400:409, 0] = 1
    table.logits["route"][400:409, 0] = -9  # The nine are ranked lowest of all.
    few = gaps_of(table)
    gap = few.findings["F0"].groups["C"]
    assert (gap.num_positive_patients, gap.num_negative_patients) == (9, 21)
    assert (gap.verdict, gap.auroc.simultaneous_low) == ("too_few", None)
    assert gap.auroc.low is not None
    assert few.findings["F0"].worst in {"A", "B"}
    assert few.num_compared == 2
    table.labels[404:, 0] = 0
    assert gaps_of(table).findings["F0"].groups["C"].auroc.low is None
    table.labels[400:, 0] = 0
    assert gaps_of(table).findings["F0"].groups["C"].verdict == "undefined"


def test_one_group_has_no_gap():
    table = predictions(sites=["A"] * 40 + [""] * 40, skill=np.ones((80, 1)))
    assert gaps_of(table) is None
    assert gaps_of(replace(table, attributes={"site": np.array(["A", "B"] * 40, object)})) is not None


def test_where_groups_do_not_differ_few_tables_say_that_they_do():
    """Four groups, three findings, 30 times; the intervals of one column hold together."""
    sites = [name for name in "ABCD" for _ in range(100)]
    false = 0
    for seed in range(30):
        gaps = gaps_of(predictions(sites=sites, skill=np.full((400, 3), 1.4), seed=seed, prevalence=0.25))
        verdicts = [gap.verdict for of_finding in gaps.findings.values() for gap in of_finding.groups.values()]
        false += any(verdict in {"lower", "higher"} for verdict in verdicts)
    assert false / 30 <= 0.05 + 2 * (0.05 * 0.95 / 30) ** 0.5


def test_a_small_group_that_stands_high_by_chance_is_not_called_higher_by_its_own_interval_either():
    """Of 40 patients a group, AUROC 0.96 for all; without the floor 7 of these 40 intervals leave 0 out."""
    sites = ["A"] * 300 + ["B"] * 40 + ["C"] * 40
    gaps = [
        group.auroc
        for seed in range(10)
        for of_finding in gaps_of(
            predictions(sites=sites, skill=np.full((380, 2), 2.5), seed=seed, prevalence=0.3)
        ).findings.values()
        for name, group in of_finding.groups.items()
        if name != "A"
    ]
    false = [gap.low > 0 or gap.high < 0 for gap in gaps if gap.low is not None]
    assert len(false) >= 30
    assert np.mean(false) <= 0.05 + 2 * (0.05 * 0.95 / len(false)) ** 0.5
    judged = [gap for gap in gaps if gap.simultaneous_low is not None]
    assert judged and all(gap.simultaneous_low <= gap.low <= gap.high <= gap.simultaneous_high for gap in judged)


def test_a_difference_raises_a_standard_error_that_is_too_small_and_not_one_of_zero():
    raised = symmetric_interval(0.1, standard_error=0.01, fewest=20, at_least=0.05)
    assert raised[1:] == pytest.approx((0.1 - 1.959964 * 0.05, 0.1 + 1.959964 * 0.05))
    plain = symmetric_interval(0.1, standard_error=0.06, fewest=20)
    assert symmetric_interval(0.1, standard_error=0.06, fewest=20, at_least=0.05) == plain
    assert symmetric_interval(0.1, standard_error=0.06, fewest=20, at_least=np.nan) == plain
    assert symmetric_interval(0.1, standard_error=0.0, fewest=20, at_least=0.05) == (0.1, None, None)
