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
