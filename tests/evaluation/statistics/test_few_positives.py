"""What is told of few positives: counted by hand, against brute force, and by a short form of the simulation."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from dualview.evaluation.statistics.bootstrap import Interval, ranking, resample_patients
from dualview.evaluation.statistics.class_patients import class_patients
from dualview.evaluation.statistics.intervals import (
    auroc_interval,
    gain_interval,
    precision_interval,
    symmetric_interval,
)
from dualview.evaluation.statistics.permutation import swap_test

SIMULATION = Path(__file__).parents[3] / "docs/generate/inference.py"


def test_patients_are_counted_and_not_studies():
    counted = class_patients(np.array(list("aaabbcd")), positive=np.array([1, 1, 0, 1, 1, 0, 0], bool))
    assert counted == (2, 3)  # a, b; a, c, d
    assert not counted.have_interval and not counted.can_be_judged
    ten = class_patients(np.arange(20), positive=np.arange(20) < 10)
    assert ten.can_be_judged and not class_patients(np.arange(20), positive=np.arange(20) < 9).can_be_judged


def test_swapping_is_what_swapping_every_patient_gives():
    """All 2^8 swaps of 8 patients with 2 studies each, one after the other, on midranks."""
    generator = np.random.default_rng(0)
    positive = np.arange(16) % 4 < 2
    patients = np.arange(16) // 2
    positive[1], positive[2] = False, True  # patients with a study of either class
    first, second = np.round(generator.normal(size=(2, 16)) + np.array([[1.6], [0.2]]) * positive, 1)
    ranks = rankdata(first), rankdata(second)

    def difference(one, other):
        return (one[positive].mean() - one[~positive].mean() - other[positive].mean() + other[~positive].mean()) / 16

    observed = difference(*ranks)
    assert observed == pytest.approx(roc_auc_score(positive, first) - roc_auc_score(positive, second), abs=1e-12)
    every = []
    for number in range(2**8):
        swapped = (number >> patients & 1).astype(bool)
        every.append(difference(*(np.where(swapped, *pair) for pair in (ranks[::-1], ranks))))
    exact = np.mean(np.abs(every) >= abs(observed) - 1e-9)
    found = swap_test(
        first[:, None], second[:, None], positive=positive[:, None], known=np.ones((16, 1), bool), patients=patients,
        num_permutations=20_000,
    )  # fmt: skip
    assert found.alone[0] == pytest.approx(exact, abs=0.01)
    assert found.together[0] == found.alone[0]  # a family of one


def test_one_positive_cannot_be_significant_and_one_class_is_undefined():
    generator = np.random.default_rng(1)
    positive = np.zeros((60, 3), bool)
    positive[0, 0] = positive[:20, 1] = True
    first, second = generator.normal(size=(2, 60, 3))
    first[0, 0], second[0, 0] = 9, -9  # AUROC 1 against 0, of one positive study
    first[:, 1] += 3 * positive[:, 1]
    found = swap_test(first, second, positive=positive, known=np.ones_like(positive), patients=np.arange(60))
    assert found.alone[0] > 0.3
    assert found.together[1] < 0.01
    assert np.isnan([found.alone[2], found.together[2]]).all()
    assert (found.together[:2] >= found.alone[:2]).all()


def test_a_perfect_auroc_has_a_lower_bound_that_more_patients_lift():
    few, many = (
        auroc_interval(1.0, variance=0.0, patients=class_patients(np.arange(n), positive=np.arange(n) < n // 2))
        for n in (20, 400)
    )
    assert (few.value, few.high) == (1.0, 1.0)
    assert 0.7 < few.low < many.low < 1
    assert (
        auroc_interval(0.0, variance=0.0, patients=class_patients(np.arange(20), positive=np.arange(20) < 9)).low == 0
    )


def test_intervals_by_hand():
    assert symmetric_interval(0.1, standard_error=0.03, fewest=10)[1:] == pytest.approx(
        (0.1 - 1.959964 * 0.03 * (10 / 9) ** 0.5, 0.1 + 1.959964 * 0.03 * (10 / 9) ** 0.5)
    )
    assert symmetric_interval(0.0, standard_error=0.0, fewest=50) == (0.0, None, None)


def test_average_precision_by_hand():
    """In log-odds of half a success and half a failure more; never surer than five answers of each positive patient."""
    interval = precision_interval(0.6, standard_error=0.1, fewest=10)
    share = 6.5 / 11
    half = 2.262157 * 0.1 / (share * (1 - share))
    odds = share / (1 - share)
    assert interval.low == pytest.approx(1 / (1 + np.exp(half) / odds))
    assert interval.high == pytest.approx(1 / (1 + np.exp(-half) / odds))
    surest = precision_interval(0.6, standard_error=0.001, fewest=10)
    half = 2.262157 / (share * (1 - share) * 50) ** 0.5
    assert surest.low == pytest.approx(1 / (1 + np.exp(half) / odds))
    few, many = (precision_interval(1.0, standard_error=0.0, fewest=fewest) for fewest in (5, 50))
    assert (few.value, few.high, many.high) == (1.0, 1.0, 1.0)
    assert 0.2 < few.low < 0.8 < many.low < 1
    assert precision_interval(0.4, standard_error=0.0, fewest=10) == (0.4, None, None)  # nothing was seen to vary
    normal = precision_interval(0.6, standard_error=0.1, fewest=10, is_for_gain=True)
    assert normal.low == pytest.approx(
        1 / (1 + np.exp(1.959964 * (10 / 9) ** 0.5 * 0.1 / (share * (1 - share))) / odds)
    )


def test_the_interval_of_a_gain_adds_squares_and_is_lopsided_near_one():
    even = gain_interval(Interval(0.8, 0.7, 0.9), Interval(0.7, 0.6, 0.8), correlation=0.0)
    assert even == pytest.approx((0.1, 0.1 - 0.02**0.5, 0.1 + 0.02**0.5))
    alike = gain_interval(Interval(0.8, 0.7, 0.9), Interval(0.7, 0.6, 0.8), correlation=1.0)
    assert alike == pytest.approx((0.1, 0.1, 0.1))
    near_one = gain_interval(Interval(0.99, 0.9, 0.995), Interval(0.9, 0.8, 0.95), correlation=0.0)
    assert near_one.low == pytest.approx(0.09 - (0.09**2 + 0.05**2) ** 0.5)
    assert near_one.high == pytest.approx(0.09 + (0.005**2 + 0.1**2) ** 0.5)


@pytest.fixture(scope="module")
def simulation():
    pytest.importorskip("matplotlib")
    return runpy.run_path(str(SIMULATION))


def test_the_simulation_resamples_as_the_evaluation_does(simulation):
    generator = np.random.default_rng(2)
    positive, scores = generator.random(80) < 0.2, generator.normal(size=80)
    counts = resample_patients(np.arange(80), num_resamples=50)
    quick = simulation["quick_ranking"](scores, positive=positive, counts=counts.astype(np.float32))
    np.testing.assert_allclose(quick, ranking(scores, positive=positive, counts=counts), atol=1e-6)


def test_where_nothing_differs_few_reports_name_a_finding(simulation):
    """40 test sets of 150 patients and 40 findings: set apart, few positives make no false verdict; else most do."""
    world = simulation["World"](num_patients=150, num_findings=40, auroc=0.85)
    result = simulation["simulate"](world, repetitions=40, resamples=200)
    assert result["wrong"]["judged"] <= 0.05 + 2 * (0.05 * 0.95 / 40) ** 0.5
    assert result["wrong"]["swap"] <= 0.05 + 2 * (0.05 * 0.95 / 40) ** 0.5
    assert result["wrong"]["all"] > 0.6
    for name in ("AUROC", "gain of AUROC"):
        for fewest in (5, 10, 20):
            assert 0.9 <= result["coverage"][name][fewest][0] <= 0.995


def test_the_smallest_detectable_gain_is_found_four_times_in_five(simulation):
    world = simulation["World"](num_patients=300, num_findings=20, auroc=0.75, gain=0.1)
    result = simulation["simulate"](world, repetitions=30, resamples=200)
    below, above = (result["power"][fewest] for fewest in (10, 50))
    assert result["detectable"][10] > 0.1 > result["detectable"][50] * 0.8
    assert below < 0.5 < above
