"""Intervals of rates: by hand, and where studies of a patient are copies of one another."""

import numpy as np
import pytest
from scipy.stats import binomtest

from dualview.evaluation.statistics.rates import effective_number, rate_interval


@pytest.mark.parametrize(("hits", "number"), [(33, 33), (3, 3), (0, 12), (7, 20), (1, 40)])
def test_independent_studies_have_wilsons_interval(hits, number):
    interval = rate_interval(np.arange(number) < hits, patients=np.arange(number))
    expected = binomtest(hits, number).proportion_ci(method="wilson")
    assert interval == pytest.approx((hits / number, expected.low, expected.high), abs=1e-12)
    assert interval.low < interval.high


def test_thirty_three_of_thirty_three_is_not_certainty():
    interval = rate_interval(np.ones(33, bool), patients=np.arange(33))
    assert (interval.value, interval.high) == (1, 1)
    assert interval.low == pytest.approx(33 / (33 + 1.959964**2))  # 0.896
    assert rate_interval(np.zeros(0, bool), patients=np.zeros(0)) == (None, None, None)


def test_copies_of_a_study_are_one_study():
    hits = np.repeat(np.random.default_rng(0).random(40) < 0.7, 5)
    patients = np.repeat(np.arange(40), 5)
    assert effective_number(hits, patients=patients) == pytest.approx(39, rel=0.06)
    assert effective_number(np.ones(200, bool), patients=patients) == 40
    assert effective_number(hits, patients=np.arange(200)) == 200
    assert effective_number(np.array([True, False]), patients=np.zeros(2)) == 1


def test_independent_studies_of_the_same_patient_count_almost_as_many():
    hits = np.random.default_rng(1).random(2000) < 0.7
    assert effective_number(hits, patients=np.arange(2000) // 2) == pytest.approx(2000, rel=0.1)


def test_intervals_hold_the_truth_with_one_and_with_three_studies_of_a_patient():
    generator = np.random.default_rng(2)
    for per_patient, num_patients in ((1, 15), (1, 60), (3, 30)):
        covered = 0
        for _ in range(500):
            own = generator.beta(9, 1, size=num_patients)  # each patient's own chance, 0.9 in the mean
            hits = generator.random(num_patients * per_patient) < np.repeat(own, per_patient)
            interval = rate_interval(hits, patients=np.repeat(np.arange(num_patients), per_patient))
            covered += interval.low <= 0.9 <= interval.high
        assert 0.91 <= covered / 500 <= 0.99
