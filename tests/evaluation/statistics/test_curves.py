"""Thinned curves keep their ends and their area."""

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score, roc_curve

from dualview.evaluation.statistics.curves import MAX_POINTS, precision_recall_points, roc_points


@pytest.fixture
def scored():
    generator = np.random.default_rng(0)
    positive = generator.random(5000) < 0.2
    return generator.normal(size=5000) + positive, positive


def test_many_scores_give_few_points_of_the_same_area(scored):
    scores, positive = scored
    x, y = np.array(roc_points(scores, positive=positive)).T
    assert len(x) <= MAX_POINTS < len(roc_curve(positive, scores)[0])
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
    assert auc(x, y) == pytest.approx(roc_auc_score(positive, scores), abs=2e-3)


def test_precision_ends_at_the_share_of_positives(scored):
    scores, positive = scored
    points = precision_recall_points(scores, positive=positive)
    assert len(points) <= MAX_POINTS
    assert points[0] == (0, 1)
    assert points[-1] == (1, pytest.approx(positive.mean(), abs=1e-4))


def test_few_scores_give_every_vertex():
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    assert roc_points(scores, positive=positive) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
