"""A joint head is called under-trained where the data show it, and not where heads differ by chance."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from dualview.evaluation.document import HeadAurocs
from dualview.evaluation.heads import head_aurocs
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.prediction_table import SCORES, PredictionTable
from dualview.views import Availability

HEADS = ("joint", "pa", "lateral")


def predictions(aurocs: dict[str, float], *, num_findings: int, seed: int, num_studies: int = 150) -> PredictionTable:
    """Complete studies, one per patient, binormal scores of three heads that have half of their noise in common."""
    generator = np.random.default_rng(seed)
    shape = (num_studies, num_findings)
    labels = (generator.random(shape) < 0.3).astype(np.float32)
    common = generator.normal(size=shape)
    logits = {name: np.full(shape, np.nan) for name in SCORES}
    for head in HEADS:
        noise = np.sqrt(0.5) * (common + generator.normal(size=shape))
        logits[head] = noise + np.sqrt(2) * norm.ppf(aurocs[head]) * labels
    names = np.array([f"s{number}" for number in range(num_studies)], object)
    return PredictionTable(
        findings=tuple(f"F{k}" for k in range(num_findings)), study_ids=names, patient_ids=names,
        availability=np.full(num_studies, Availability.BOTH, np.int8), evaluated=np.ones(num_studies, bool),
        labels=labels, label_mask=np.ones(shape, bool), logits=logits,
    )  # fmt: skip


def under_trained(table: PredictionTable) -> list[str]:
    heads = head_aurocs(table, settings=EvaluationSettings())
    return [finding for finding, of_finding in heads.items() if of_finding.is_under_trained]


def test_equal_heads_are_seldom_told_apart_though_one_of_them_is_nearly_always_better():
    """50 test sets of 5 findings; the better branch head is above the joint head in most of them by chance alone."""
    equal = dict.fromkeys(HEADS, 0.85)
    tables = [predictions(equal, num_findings=5, seed=seed) for seed in range(50)]
    assert np.mean([bool(under_trained(table)) for table in tables]) <= 0.05 + 2 * (0.05 * 0.95 / 50) ** 0.5
    heads = [
        of_finding for table in tables[:20] for of_finding in head_aurocs(table, settings=EvaluationSettings()).values()
    ]
    assert np.mean([of_finding.shortfall.value < 0 for of_finding in heads]) > 0.5


def test_a_joint_head_that_is_really_worse_is_found():
    worse = {"joint": 0.65, "pa": 0.92, "lateral": 0.7}
    found = [under_trained(predictions(worse, num_findings=8, seed=seed)) for seed in range(10)]
    assert np.mean([len(findings) for findings in found]) > 0.8 * 8


def test_the_shortfall_is_to_the_better_branch_and_counted_where_it_is_not_judged_too():
    table = predictions({"joint": 0.8, "pa": 0.6, "lateral": 0.9}, num_findings=2, seed=3)
    table.labels[:, 1] = np.arange(150) < 7  # seven patients: no interval, and no judgement
    heads = head_aurocs(table, settings=EvaluationSettings())
    for k, finding in enumerate(table.findings):
        aurocs = [roc_auc_score(table.labels[:, k], table.logits[head][:, k]) for head in HEADS]
        assert heads[finding].shortfall.value == pytest.approx(aurocs[0] - max(aurocs[1:]), abs=1e-12)
    assert heads["F0"].shortfall.low < heads["F0"].shortfall.value < heads["F0"].shortfall.high
    assert (heads["F1"].shortfall.low, heads["F1"].is_under_trained) == (None, False)
    old = HeadAurocs(joint=0.6, pa=0.9, lateral=0.7, vote=0.8)  # of an earlier dualview, which measured no interval
    assert not old.is_under_trained
