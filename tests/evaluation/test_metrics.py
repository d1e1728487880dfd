"""Metrics against scikit-learn, and undefined said as undefined."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from dualview.evaluation.metrics import by_availability
from dualview.views import Availability


@pytest.fixture
def scores():
    generator = np.random.default_rng(0)
    return {
        "probabilities": generator.random((60, 2)).round(1),  # with ties
        "positive": generator.integers(0, 2, size=(60, 2)).astype(bool),
        "known": generator.random((60, 2)) > 0.2,
        "availability": np.repeat([0, 1, 2], 20),
    }


def test_every_group_equals_scikit_learn_on_its_known_labels(scores):
    groups = by_availability(**scores, findings=("A", "B"))
    for name, of_group in groups.items():
        chosen = np.ones(60, bool) if name == "all" else scores["availability"] == Availability[name.upper()]
        aurocs = []
        for k, finding in enumerate("AB"):
            use = chosen & scores["known"][:, k]
            truth, score = scores["positive"][use, k], scores["probabilities"][use, k]
            metrics = of_group.findings[finding]
            assert metrics.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
            assert metrics.average_precision == pytest.approx(average_precision_score(truth, score), abs=1e-12)
            assert metrics.brier == pytest.approx(brier_score_loss(truth, score), abs=1e-12)
            assert (metrics.num_positive, metrics.num_negative) == (truth.sum(), (~truth).sum())
            aurocs.append(metrics.auroc)
        assert of_group.macro_auroc == pytest.approx(np.mean(aurocs))
        assert of_group.num_studies == chosen.sum()


def test_one_class_is_undefined_and_left_out_of_macro(scores):
    scores["positive"][:, 1] = False
    groups = by_availability(**scores, findings=("A", "B"))
    assert groups["all"].findings["B"].auroc is None
    assert groups["all"].findings["B"].average_precision is None
    assert groups["all"].macro_auroc == groups["all"].findings["A"].auroc


def test_no_known_label_and_no_study_are_undefined(scores):
    scores["known"][:] = False
    scores["availability"][:] = Availability.PA_ONLY
    groups = by_availability(**scores, findings=("A", "B"))
    assert groups["all"].macro_auroc is None
    assert groups["both"].num_studies == 0
    assert groups["both"].macro_average_precision is None
