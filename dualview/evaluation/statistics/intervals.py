"""Intervals of metrics that hold with few patients too, where percentiles of resamples are too narrow.

How often each covers the truth is measured by docs/generate/inference.py.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm, t

from dualview.evaluation.statistics.bootstrap import Interval
from dualview.evaluation.statistics.class_patients import ClassPatients

BISECTIONS = 50
# How many times a yes or no of each patient of the rarer class average precision says at most: with few, all of them
# may stand high by chance, and then resamples hardly differ.
ANSWERS_PER_PATIENT = 5
# Least share of the variance of exponential scores that either AUROC of a difference is taken to have; 1 for an AUROC
# alone. Both floors were chosen by docs/generate/inference.py, so that intervals hold the truth in 95 of 100 cases.
FLOOR_OF_GAINS = 0.85
POWER = 0.8  # chance of finding the smallest detectable gain


def auroc_interval(
    value: float, *, variance: float, patients: ClassPatients, confidence: float = 0.95, floor: float = 1.0
) -> Interval:
    """All AUROCs from which the estimate is not too far, each by the variance that it would have itself.

    That is the variance of exponential scores (method 5 of Newcombe, Statistics in Medicine 2006), times how much
    larger the variance of these scores is, if it is. An AUROC of 1 has a lower bound too.

    Args:
        variance: DeLong's, of the estimate.
        patients: of either class; as many independent studies as there are patients.
        floor: least ratio of the two variances that is believed.
    """
    num_pos, num_neg = patients
    expected = exponential_variance(value, num_pos=num_pos, num_neg=num_neg)
    observed = variance * patients.fewer / max(patients.fewer - 1, 1)
    times = max(observed / expected, floor) if expected > 0 else 1.0
    z = float(norm.ppf((1 + confidence) / 2))

    def is_near(auroc: float) -> bool:
        return (value - auroc) ** 2 <= z**2 * times * exponential_variance(auroc, num_pos=num_pos, num_neg=num_neg)

    return Interval(value, _bound(is_near, near=value, far=0.0), _bound(is_near, near=value, far=1.0))


def gain_interval(first: Interval, second: Interval, *, correlation: float) -> Interval:
    """Of the difference of two AUROCs, or average precisions, of the same studies, from the interval of each.

    It is as lopsided as they are: near 1 less can be gained than lost. Source: Zou, Psychological Methods 2007, which
    recovers variances from the distance of each bound (square-and-add).

    Args:
        first, second: defined.
        correlation: of the two estimates.
    """
    (one, one_low, one_high), (other, other_low, other_high) = first, second
    assert one is not None and one_low is not None and one_high is not None
    assert other is not None and other_low is not None and other_high is not None

    def distance(here: float, there: float) -> float:
        return float(np.sqrt(max(here**2 - 2 * correlation * here * there + there**2, 0.0)))

    difference = one - other
    return Interval(
        difference,
        max(difference - distance(one - one_low, other_high - other), -1.0),
        min(difference + distance(one_high - one, other - other_low), 1.0),
    )


def independent_difference(first: Interval, second: Interval) -> Interval:
    """First minus second, of two estimates that share no patient, from the interval of each; none where one has none.

    Source: Newcombe, Statistics in Medicine 1998 (square-and-add); Zou, Psychological Methods 2007, correlation 0.
    """
    (one, one_low, one_high), (other, other_low, other_high) = first, second
    if one is None or other is None:
        return Interval(None, None, None)
    difference = one - other
    if one_low is None or one_high is None or other_low is None or other_high is None:
        return Interval(difference, None, None)
    return Interval(
        difference,
        difference - float(np.hypot(one - one_low, other_high - other)),
        difference + float(np.hypot(one_high - one, other - other_low)),
    )


def precision_interval(
    value: float, *, standard_error: float, fewest: int, confidence: float = 0.95, is_for_gain: bool = False
) -> Interval:
    """Of average precision, symmetric in its log-odds; none where it is below 1 and the standard error is 0.

    The log-odds are those of half a success and half a failure more (Haldane, Annals of Human Genetics 1956; Anscombe,
    Biometrika 1956), so a value of 1 has an interval too. Source: Boyd, Eng & Page, ECML 2013, whose logit interval
    takes the binomial standard error of the positives; here it is the bootstrap's, and theirs is the floor below it.

    Args:
        standard_error: of the bootstrap over patients.
        fewest: patients of the rarer class.
        is_for_gain: the interval is made to be added to another: by the normal quantile, as Student's of both would be
            too wide.
    """
    if standard_error == 0 and value < 1:
        return Interval(value, None, None)
    share = (value * fewest + 0.5) / (fewest + 1)
    spread = share * (1 - share)
    error = max(standard_error, (spread / (ANSWERS_PER_PATIENT * fewest)) ** 0.5) / spread
    tail = (1 + confidence) / 2
    quantile = norm.ppf(tail) * few_patients_factor(fewest) if is_for_gain else t.ppf(tail, fewest - 1)
    low, high = expit(logit(share) + np.array([-1, 1]) * quantile * error)
    return Interval(value, float(min(low, value)), float(max(high, value)))


def symmetric_interval(
    value: float,
    *,
    standard_error: float,
    fewest: int,
    confidence: float = 0.95,
    is_heavy: bool = False,
    at_least: float = 0.0,
) -> Interval:
    """Estimate +- standard error x quantile, for Brier scores and gaps; none where the standard error is 0.

    Args:
        fewest: patients of the rarer class, by which the standard error of the bootstrap is too small.
        is_heavy: few studies decide the value, as with average precision: Student's quantile instead.
        at_least: what a standard error above 0 is raised to where it is smaller; NaN: nothing.
    """
    if standard_error == 0:
        return Interval(value, None, None)
    tail = (1 + confidence) / 2
    quantile = t.ppf(tail, fewest - 1) if is_heavy else norm.ppf(tail) * few_patients_factor(fewest)
    half = float(np.fmax(quantile * standard_error, norm.ppf(tail) * at_least))
    return Interval(value, value - half, value + half)


def exponential_variance(auroc: float, *, num_pos: int, num_neg: int) -> float:
    """Variance of AUROC of exponential scores (Hanley & McNeil, Radiology 1982), of classes as large as their mean."""
    others = (num_pos + num_neg) / 2 - 1
    spread = 1 + others * ((1 - auroc) / (2 - auroc) + auroc / (1 + auroc))
    return auroc * (1 - auroc) * spread / (num_pos * num_neg)


def few_patients_factor(fewest: int | np.ndarray) -> float | np.ndarray:
    """By how much the bootstrap's standard error is too small: its variance divides by m instead of m - 1."""
    factor: float | np.ndarray = np.sqrt(fewest / np.maximum(np.asarray(fewest) - 1, 1))
    return factor


def _bound(is_near: Callable[[float], bool], *, near: float, far: float) -> float:
    """The last value that is near, on the way from `near` to `far`."""
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        near, far = (middle, far) if is_near(middle) else (near, middle)
    return near
