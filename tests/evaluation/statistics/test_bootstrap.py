"""The bootstrap against a loop over scikit-learn, and intervals against what is known of them."""

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dualview.evaluation.statistics.bootstrap import (
    percentile_interval,
    ranking,
    resample_patients,
    simultaneous_intervals,
    weighted_means,
)
from dualview.evaluation.statistics.delong import covariance


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def in_a_loop(metric, scores, positive, drawn):
    """The metric of every resample, one by one, on the studies of the drawn patients, written out."""
    return np.array([metric(positive[rows], scores[rows]) for rows in drawn])


@pytest.mark.parametrize("levels", [3, 30, 10**6])  # many ties, some, none
@pytest.mark.parametrize("prevalence", [0.1, 0.5, 0.9])
def test_every_resample_equals_scikit_learn_on_the_studies_written_out(generator, levels, prevalence):
    patients = generator.integers(0, 120, 200).astype(str)
    scores = generator.integers(0, levels, 200) / levels
    positive = generator.random(200) < prevalence
    counts = resample_patients(patients, num_resamples=40, seed=3)
    drawn = [np.repeat(np.arange(200), counts[:, b]) for b in range(40)]
    got = ranking(scores, positive=positive, counts=counts)
    np.testing.assert_allclose(got.auroc, in_a_loop(roc_auc_score, scores, positive, drawn), atol=1e-12, rtol=0)
    expected = in_a_loop(average_precision_score, scores, positive, drawn)
    np.testing.assert_allclose(got.average_precision, expected, atol=1e-12, rtol=0)
    brier = weighted_means((scores - positive) ** 2, counts=counts)
    loop = [((scores - positive) ** 2)[rows].mean() for rows in drawn]
    np.testing.assert_allclose(brier, loop, atol=1e-12, rtol=0)


def test_a_resample_takes_all_studies_of_a_patient_and_as_many_patients_as_there_are(generator):
    patients = np.array(["a", "b", "a", "c", "b", "a"])
    counts = resample_patients(patients, num_resamples=500, seed=1)
    for patient in "abc":
        of_patient = counts[patients == patient]
        assert (of_patient == of_patient[0]).all()
    firsts = counts[[0, 1, 3]]
    assert (firsts.sum(axis=0) == 3).all()
    assert firsts.mean(axis=1) == pytest.approx([1, 1, 1], abs=0.15)
    assert np.array_equal(counts, resample_patients(patients, num_resamples=500, seed=1))
    assert not np.array_equal(counts, resample_patients(patients, num_resamples=500, seed=2))


def test_a_resample_without_a_class_is_undefined_and_left_out_of_the_interval():
    patients = np.array(list("abcd"))
    positive = np.array([True, False, False, False])
    counts = resample_patients(patients, num_resamples=300)
    aurocs = ranking(np.array([0.9, 0.1, 0.2, 0.3]), positive=positive, counts=counts).auroc
    assert np.array_equal(np.isnan(aurocs), (counts[0] == 0) | (counts[0] == 4))
    assert percentile_interval(1.0, aurocs) == (1.0, 1.0, 1.0)
    assert percentile_interval(None, aurocs) == (None, None, None)


def test_the_standard_error_of_auroc_is_that_of_delong(generator):
    """Two ways to the same number, one by resampling and one in closed form."""
    positive = generator.random(600) < 0.3
    scores = generator.normal(size=600) + positive
    aurocs = ranking(scores, positive=positive, counts=resample_patients(np.arange(600), num_resamples=3000)).auroc
    _, variance = covariance(scores[None], positive=positive)
    assert aurocs.std() == pytest.approx(float(variance[0, 0]) ** 0.5, rel=0.06)


def test_simultaneous_intervals_hold_all_findings_together_and_single_ones_do_not(generator):
    """400 experiments of 20 findings without effect: how often is any declared different?"""
    wrong_alone = wrong_together = 0
    for _ in range(400):
        values = generator.normal(size=20)  # estimates around 0 with standard error 1
        resampled = values[:, None] + generator.normal(size=(20, 400))
        low, high, *_ = simultaneous_intervals(values, resampled)
        wrong_together += bool(((low > 0) | (high < 0)).any())
        alone = np.quantile(resampled, [0.025, 0.975], axis=1)
        wrong_alone += bool(((alone[0] > 0) | (alone[1] < 0)).any())
    assert wrong_together / 400 == pytest.approx(0.05, abs=0.035)
    assert wrong_alone / 400 > 0.5  # 1 - 0.95 ** 20 = 0.64


def test_simultaneous_intervals_of_one_finding_are_its_own_and_constants_have_no_width(generator):
    resampled = np.stack([generator.normal(0.3, 0.1, 4000), np.full(4000, 0.2)])
    low, high, *_ = simultaneous_intervals(np.array([0.3, 0.2]), resampled)
    assert (low[0], high[0]) == pytest.approx((0.3 - 0.196, 0.3 + 0.196), abs=0.01)
    assert (low[1], high[1]) == (0.2, 0.2)
    low, high, *_ = simultaneous_intervals(np.array([0.3, np.nan]), resampled)
    assert np.isnan([low[1], high[1]]).all()


def test_padchest_size_takes_less_than_a_minute_on_one_core(generator):
    """6,323 patients x 64 findings x 2,000 resamples x 3 maskings; findings as rare as there, 0.5 to 30 %."""
    num_patients, num_findings = 6323, 64
    counts = resample_patients(np.arange(num_patients))
    prevalences = np.geomspace(0.005, 0.3, num_findings)
    began = time.process_time()
    for prevalence in prevalences:
        positive = generator.random(num_patients) < prevalence
        for _ in range(3):
            result = ranking(generator.random(num_patients), positive=positive, counts=counts)
            assert np.isfinite(result.auroc).all()
    assert time.process_time() - began < 60
