"""Net benefit against numbers by hand."""

import numpy as np
import pytest

from dualview.evaluation.statistics.net_benefit import gain_of_net_benefit, net_benefit, thresholds_for

SCORES = np.array([0.9, 0.6, 0.2, 0.8, 0.3, 0.1, 0.05, 0.4, 0.2, 0.0])
POSITIVE = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)


@pytest.mark.parametrize(
    ("threshold", "model", "everybody"),
    [
        (0.5, 2 / 10 - 1 / 10, 3 / 10 - 7 / 10),  # 2 of 3 found, 1 of 7 in vain; as bad as each other
        (0.2, 3 / 10 - 4 / 10 * 0.25, 3 / 10 - 7 / 10 * 0.25),  # a score equal to the threshold is acted on
        (0.75, 1 / 10 - 1 / 10 * 3, 3 / 10 - 7 / 10 * 3),
        (0.95, 0.0, 3 / 10 - 7 / 10 * 19),
    ],
)
def test_net_benefit_is_that_of_hand(threshold, model, everybody):
    found = net_benefit(SCORES, positive=POSITIVE, thresholds=np.array([threshold]))
    assert found.model[0] == pytest.approx(model)
    assert found.everybody[0] == pytest.approx(everybody)


def test_treating_all_and_none_are_equal_where_the_threshold_is_the_prevalence():
    assert net_benefit(SCORES, positive=POSITIVE, thresholds=np.array([0.3])).everybody[0] == pytest.approx(0)


def test_a_gain_is_the_difference_of_both_and_its_error_is_that_of_patients():
    others = SCORES[::-1]
    gain, error = gain_of_net_benefit(SCORES, others, positive=POSITIVE, patients=np.arange(10), threshold=0.5)
    both = [net_benefit(each, positive=POSITIVE, thresholds=np.array([0.5])).model[0] for each in (SCORES, others)]
    assert gain == pytest.approx(both[0] - both[1])
    worth = np.where(POSITIVE, 1, -1) * ((SCORES >= 0.5).astype(int) - (others >= 0.5))
    assert error == pytest.approx(worth.std(ddof=1) / np.sqrt(10))
    twice = gain_of_net_benefit(
        np.tile(SCORES, 2), np.tile(others, 2), positive=np.tile(POSITIVE, 2), patients=np.tile(np.arange(10), 2),
        threshold=0.5,
    )  # fmt: skip
    assert twice == pytest.approx((gain, error))  # A study that is there twice tells nothing new.


@pytest.mark.parametrize(("prevalence", "upper"), [(0.001, 0.2), (0.1, 0.3), (0.5, 0.9)])
def test_thresholds_reach_as_far_as_anybody_would_set_one(prevalence, upper):
    thresholds = thresholds_for(prevalence)
    assert thresholds[0] == 0.01 and thresholds[-1] == pytest.approx(upper)
