"""What the best checkpoint is chosen by: hand-computed means, and what telling availabilities apart does to it."""

import numpy as np
import pytest

from dualview.config.load import as_it_was_trained
from dualview.evaluation.best_metric import in_words, value_of
from dualview.evaluation.metrics import by_availability
from dualview.views import Availability


def metrics_of(probabilities, positive, availability, known=None):
    return by_availability(
        probabilities,
        positive=positive,
        known=np.ones_like(positive) if known is None else known,
        availability=availability,
        findings=("A", "B"),
    )


AVAILABILITY = np.repeat([Availability.BOTH, Availability.PA_ONLY, Availability.LATERAL_ONLY], 4)
POSITIVE = np.array([[0, 0, 1, 1] * 3, [1, 0, 1, 0] * 3], bool).T
# Finding A is ranked rightly with both views, half rightly of PA alone, and wrongly of the lateral alone; B rightly.
SCORES = np.array([[0.1, 0.2, 0.8, 0.9, 0.1, 0.8, 0.2, 0.9, 0.8, 0.9, 0.1, 0.2], [0.9, 0.1, 0.9, 0.1] * 3]).T


def test_the_mean_over_availabilities_by_hand():
    metrics = metrics_of(SCORES, POSITIVE, AVAILABILITY)
    assert value_of(metrics, best_metric="auroc_both") == 1
    # A has 1, 3 / 4 and 0; B has 1 three times.
    assert value_of(metrics, best_metric="auroc_mean") == pytest.approx(
        ((1 + 1) / 2 + (0.75 + 1) / 2 + (0 + 1) / 2) / 3
    )
    assert value_of(metrics, best_metric="auroc_mean", findings=["A"]) == pytest.approx((1 + 0.75 + 0) / 3)
    assert value_of(metrics, best_metric="auroc_all", findings=["B"]) == 1


def test_an_availability_without_studies_and_a_finding_without_positives_do_not_count():
    chosen = AVAILABILITY != Availability.LATERAL_ONLY
    metrics = metrics_of(SCORES[chosen], POSITIVE[chosen], AVAILABILITY[chosen])
    assert value_of(metrics, best_metric="auroc_mean", findings=["A"]) == pytest.approx((1 + 0.75) / 2)
    nobody = metrics_of(SCORES, np.zeros_like(POSITIVE), AVAILABILITY)
    assert value_of(nobody, best_metric="average_precision_mean") is None


def test_telling_availabilities_apart_raises_all_and_not_the_mean():
    """Scores that know nothing but the availability, where complete studies are ill more often."""
    rng = np.random.default_rng(0)
    availability = rng.integers(0, 3, 3000)
    positive = rng.random((3000, 2)) < np.array([0.5, 0.1, 0.1])[availability][:, None]
    scores = np.array([0.9, 0.1, 0.1])[availability][:, None] + 1e-6 * rng.random((3000, 2))
    metrics = metrics_of(scores, positive, availability)
    assert value_of(metrics, best_metric="auroc_all") > 0.7
    assert abs(value_of(metrics, best_metric="auroc_mean") - 0.5) < 0.05


def test_runs_of_before_go_on_by_what_they_chose_by():
    assert as_it_was_trained({"train": {}})["train"]["best_metric"] == "auroc_all"
    assert as_it_was_trained({"train": {"best_metric": "auroc_both"}})["train"]["best_metric"] == "auroc_both"


def test_in_words():
    assert in_words("auroc_mean") == "macro AUROC, mean over availabilities"
    assert in_words("average_precision_both", findings=["A"]) == (
        "macro average precision, studies with both views, of A"
    )
