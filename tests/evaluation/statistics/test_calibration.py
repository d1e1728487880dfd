"""Calibration and thresholds: hand-computed, and what is known of perfect forecasts."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from dualview.errors import UserError
from dualview.evaluation.statistics.calibration import (
    calibration_error,
    calibration_error_by_chance,
    calibration_line,
    fit_temperature,
    reliability,
)
from dualview.evaluation.statistics.thresholds import ThresholdRule, choose


def test_reliability_is_scikit_learns_curve_on_quantile_bins():
    generator = np.random.default_rng(0)
    probabilities = generator.random(1000)
    positive = generator.random(1000) < probabilities**2
    observed, predicted = calibration_curve(positive, probabilities, n_bins=10, strategy="quantile")
    bins = reliability(probabilities, positive=positive)
    np.testing.assert_allclose(bins[:, 0], predicted, atol=1e-12)
    np.testing.assert_allclose(bins[:, 1], observed, atol=1e-12)
    assert bins[:, 2].sum() == 1000


def test_calibration_error_by_hand():
    """Ten studies in ten bins: each off by |p - y|; two bins of two: |0.2 - 0.5| and |0.8 - 1| at equal weight."""
    probabilities = np.linspace(0.05, 0.95, 10)
    positive = probabilities > 0.5
    assert calibration_error(probabilities, positive=positive) == pytest.approx(0.25)
    two = reliability(np.array([0.1, 0.3, 0.7, 0.9]), positive=np.array([True, False, True, True]), num_bins=2)
    assert two.tolist() == [[pytest.approx(0.2), 0.5, 2], [pytest.approx(0.8), 1.0, 2]]
    assert calibration_error(np.zeros(0), positive=np.zeros(0, bool)) is None


def test_forecasts_that_are_right_have_little_error_and_keep_their_temperature():
    generator = np.random.default_rng(1)
    logits = generator.normal(scale=2, size=(20_000, 2))
    labels = (generator.random(logits.shape) < expit(logits)).astype(float)
    assert calibration_error(expit(logits[:, 0]), positive=labels[:, 0] > 0.5) < 0.015
    everything = np.ones(labels.shape, bool)
    assert fit_temperature(logits, positive=labels > 0.5, known=everything) == pytest.approx(1, abs=0.03)
    assert fit_temperature(3 * logits, positive=labels > 0.5, known=everything) == pytest.approx(3, abs=0.1)


def test_perfect_forecasts_show_the_error_that_chance_alone_makes():
    generator = np.random.default_rng(2)
    for number, level, spread in ((79, -0.4, 1.5), (400, -0.4, 1.5), (150, -3, 1)):
        seen, told = [], []
        for _ in range(300):
            probabilities = expit(level + spread * generator.normal(size=number))
            positive = generator.random(number) < probabilities
            seen.append(calibration_error(probabilities, positive=positive))
            told.append(calibration_error_by_chance(probabilities, positive=positive))
        assert np.mean(told) == pytest.approx(np.mean(seen), rel=0.05)
    sure = np.array([0.0, 1.0])
    assert calibration_error_by_chance(sure, positive=sure > 0.5) == 0
    assert calibration_error_by_chance(sure[:0], positive=sure[:0] > 0.5) is None


def test_the_calibration_line_is_a_logistic_regression():
    generator = np.random.default_rng(3)
    z = generator.normal(size=500) * 2 - 1
    positive = generator.random(500) < expit(0.5 + 0.7 * z)
    line = calibration_line(z, positive=positive, patients=np.arange(500))
    expected = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(z[:, None], positive)
    assert line.slope.value == pytest.approx(expected.coef_[0, 0], abs=1e-4)
    assert line.slope.low < 0.7 < line.slope.high < 1
    moved = expit(z + line.intercept.value)
    assert moved.mean() == pytest.approx(positive.mean(), abs=1e-9)  # what an intercept alone is to reach
    twice = calibration_line(np.tile(z, 2), positive=np.tile(positive, 2), patients=np.tile(np.arange(500), 2))
    assert twice.slope == pytest.approx(line.slope, abs=1e-6)  # copies of a study say nothing new


def test_a_line_that_nothing_determines_is_undefined():
    z = np.linspace(-2, 2, 20)
    apart = calibration_line(z, positive=z > 0, patients=np.arange(20))
    assert apart.slope == (None, None, None)
    assert apart.intercept.value == pytest.approx(0, abs=1e-6)
    for positive in (z > 5, z < 5):
        assert calibration_line(z, positive=positive, patients=np.arange(20)).intercept.value is None
    assert calibration_line(0 * z, positive=z > 0, patients=np.arange(20)).slope.value is None


def test_intervals_of_the_calibration_line_hold_the_truth():
    generator = np.random.default_rng(4)
    covered = np.zeros(2)
    for _ in range(300):
        z = generator.normal(size=150) * 1.5 - 2
        line = calibration_line(z, positive=generator.random(150) < expit(z), patients=np.arange(150))
        covered += [line.intercept.low <= 0 <= line.intercept.high, line.slope.low <= 1 <= line.slope.high]
    assert (covered / 300 > 0.9).all()


def test_unknown_labels_do_not_count_and_one_class_has_no_temperature():
    logits, labels = np.array([[2.0], [-1.0], [50.0]]), np.array([[1.0], [1.0], [0.0]])
    label_mask = np.array([[True], [True], [False]])
    assert fit_temperature(logits, positive=labels > 0.5, known=label_mask) is None


SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
POSITIVE = np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)


@pytest.mark.parametrize(
    ("rule", "threshold", "sensitivity", "specificity"),
    [
        ("youden", 0.7, 0.5, 1.0),  # 1.5 at 0.7, at 0.5 and at 0.3: the highest threshold
        ("sensitivity=0.75", 0.5, 0.75, 0.75),
        ("sensitivity=1", 0.3, 1.0, 0.5),
        ("specificity=0.75", 0.5, 0.75, 0.75),
        ("specificity=1", 0.7, 0.5, 1.0),
    ],
)
def test_thresholds_by_hand(rule, threshold, sensitivity, specificity):
    point = choose(SCORES, positive=POSITIVE, rule=ThresholdRule.parse(rule))
    assert point == pytest.approx((threshold, sensitivity, specificity))
    called = point.threshold <= SCORES
    assert called[POSITIVE].mean() == pytest.approx(sensitivity)
    assert (~called)[~POSITIVE].mean() == pytest.approx(specificity)


def test_a_specificity_that_no_positive_reaches_calls_nothing():
    point = choose(np.array([0.9, 0.1]), positive=np.array([False, True]), rule=ThresholdRule.parse("specificity=1"))
    assert 0.9 < point.threshold <= 1
    assert point[1:] == (0.0, 1.0)


def test_one_class_has_no_threshold_and_a_wrong_rule_is_named():
    assert choose(SCORES, positive=np.zeros(8, bool), rule=ThresholdRule.parse("youden")) is None
    for text in ("best", "sensitivity", "sensitivity=2", "youden=1", "specificity=x"):
        with pytest.raises(UserError, match="write youden, sensitivity="):
            ThresholdRule.parse(text)
