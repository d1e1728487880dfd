"""DeLong's variance against its own definition, as a loop over pairs."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dualview.evaluation.statistics.delong import covariance, paired_delong


def by_definition(scores, positive):
    """Structural components V10, V01 of DeLong et al. 1988, every pair compared."""
    v10, v01 = [], []
    for of_score in scores:
        above, below = of_score[positive], of_score[~positive]
        kernel = (above[:, None] > below[None]) + 0.5 * (above[:, None] == below[None])
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
    return np.cov(v10) / positive.sum() + np.cov(v01) / (~positive).sum()


def test_aurocs_and_covariance_are_those_of_the_definition():
    generator = np.random.default_rng(0)
    positive = generator.random(150) < 0.4
    scores = np.round(generator.normal(size=(3, 150)) + positive, 1)  # with ties
    aurocs, covariances = covariance(scores, positive=positive)
    np.testing.assert_allclose(aurocs, [roc_auc_score(positive, s) for s in scores], atol=1e-12)
    np.testing.assert_allclose(covariances, by_definition(scores, positive), atol=1e-12)


def test_a_score_does_not_differ_from_itself_and_few_studies_say_nothing():
    positive = np.array([True, True, False, False, False])
    scores = np.array([0.9, 0.4, 0.5, 0.1, 0.2])
    assert paired_delong(scores, scores, positive=positive) is None  # a standard error of 0 knows of no chance
    assert paired_delong(scores, scores, positive=np.arange(5) == 0) is None


def test_p_values_are_uniform_where_there_is_no_difference():
    generator = np.random.default_rng(1)
    positive = np.arange(200) < 80
    p_values = [
        paired_delong(*(generator.normal(size=(2, 200)) + positive), positive=positive).p_value for _ in range(400)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.035)


def clustered_by_definition(scores, positive, patients):
    """Obuchowski 1997, formulas (1) to (5): components summed by patient, loop by loop."""
    m, n, theta, sums = positive.sum(), (~positive).sum(), [], []
    for of_score in scores:
        kernel = (of_score[positive][:, None] > of_score[~positive]) + 0.5 * (
            of_score[positive][:, None] == of_score[~positive]
        )
        area = kernel.mean()
        theta.append(area)
        of_pos, of_neg = dict.fromkeys(patients, 0.0), dict.fromkeys(patients, 0.0)
        for patient, value in zip(patients[positive], kernel.mean(axis=1), strict=True):
            of_pos[patient] += value - area
        for patient, value in zip(patients[~positive], kernel.mean(axis=0), strict=True):
            of_neg[patient] += value - area
        sums.append((np.array(list(of_pos.values())), np.array(list(of_neg.values()))))
    i10, i01, i = len(set(patients[positive])), len(set(patients[~positive])), len(set(patients))
    made = np.empty((len(scores), len(scores)))
    for a, (pos_a, neg_a) in enumerate(sums):
        for b, (pos_b, neg_b) in enumerate(sums):
            s10 = i10 / ((i10 - 1) * m) * (pos_a * pos_b).sum()
            s01 = i01 / ((i01 - 1) * n) * (neg_a * neg_b).sum()
            s11 = i / (i - 1) * ((pos_a * neg_b).sum() + (neg_a * pos_b).sum())
            made[a, b] = s10 / m + s01 / n + s11 / (m * n)
    return theta, made


def test_patients_with_several_studies_are_those_of_obuchowskis_definition():
    generator = np.random.default_rng(2)
    patients = generator.integers(50, size=150)
    positive = generator.random(150) < 0.4  # patients have studies of either class
    scores = np.round(generator.normal(size=(2, 150)) + positive + generator.normal(size=50)[patients], 1)
    aurocs, covariances = covariance(scores, positive=positive, patients=patients)
    expected_aurocs, expected = clustered_by_definition(scores, positive, patients)
    np.testing.assert_allclose(aurocs, expected_aurocs, atol=1e-12)
    np.testing.assert_allclose(covariances, expected, atol=1e-12)


def test_with_three_studies_of_a_patient_p_values_hold_only_by_patient():
    generator = np.random.default_rng(3)
    patients = np.repeat(np.arange(80), 3)
    positive = np.repeat(np.arange(80) < 30, 3)
    by_patient, by_study = [], []
    for _ in range(300):
        own = generator.normal(size=(2, 80)).repeat(3, axis=1) + 0.4 * generator.normal(size=(2, 240))
        first, second = own + positive
        by_patient.append(paired_delong(first, second, positive=positive, patients=patients).p_value < 0.05)
        by_study.append(paired_delong(first, second, positive=positive).p_value < 0.05)
    assert np.mean(by_patient) < 0.09
    assert np.mean(by_study) > 0.15


def test_two_of_either_class_told_apart_without_an_error_give_no_p_value():
    """A standard error of 0: exact tests give 0.125 or 0.33 here, and never 0."""
    positive = np.array([True, True, False, False])
    assert paired_delong(np.array([3.0, 4, 1, 2]), np.array([1.0, 2, 3, 4]), positive=positive) is None
