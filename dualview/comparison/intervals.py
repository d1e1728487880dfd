"""Intervals over seeds and patients: of one difference, and of all differences of a table together."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from dualview.evaluation.statistics.bootstrap import Interval, simultaneous_intervals

NO_VARIANCE = 1e-24  # Rounding alone makes equal numbers differ by so much.


class SeedNoise(NamedTuple):
    """How much the mean over seeds scatters in a table as a whole."""

    variance: float  # of the mean over seeds
    freedom: float  # degrees of freedom


def interval_over_seeds_and_patients(
    values: np.ndarray,
    resampled: np.ndarray,
    *,
    confidence: float,
    widened: float = 1.0,
    at_least: SeedNoise | None = None,
) -> Interval:
    """Interval of a mean that would come out otherwise with other seeds and with other patients.

    The variance is s^2 / n of the n seeds' values, plus that of their mean over resamples of patients; Student's
    quantile takes the degrees of freedom of Satterthwaite (Biometrics Bulletin 1946), n - 1 for the seeds and no end of
    them for the resamples. With one seed it is over patients only. What never varies has no interval. Bounds stay in
    [-1, 1], as metrics and their differences do.

    Args:
        values: (n,) one for each seed; differences are paired by seed.
        resampled: (n, B), the same resamples in all.
        widened: what the standard error of the resamples is multiplied by.
        at_least: what the seeds scatter by where these few happen to agree better than those of the table.
    """
    value = float(values.mean())
    if not np.isfinite(value):
        return Interval(None, None, None)
    mean_resampled = resampled.mean(axis=0)
    mean_resampled = mean_resampled[np.isfinite(mean_resampled)]
    if len(mean_resampled) < 2:
        return Interval(value, None, None)
    patient_variance = float(mean_resampled.var(ddof=1)) * widened**2
    seed_variance = float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0
    seed_freedom = float(len(values) - 1)
    if at_least is not None and seed_variance < at_least.variance:
        seed_variance, seed_freedom = at_least
    variance = patient_variance + seed_variance
    if variance < NO_VARIANCE:
        return Interval(value, None, None)
    freedom = variance**2 * seed_freedom / seed_variance**2 if seed_variance > NO_VARIANCE else np.inf
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return Interval(value, max(value - reach, -1.0), min(value + reach, 1.0))


def confidence_of_each(values: np.ndarray, resampled: np.ndarray, *, confidence: float) -> float:
    """The confidence that each of J intervals needs for all of them to hold together.

    Over resamples of patients the largest of the J standardised deviations has a quantile (`simultaneous_intervals`);
    the confidence is that of a normal quantile of this size, so that differences which move together cost less than
    under Bonferroni, and Student's quantiles for few seeds can be taken at it.

    Args:
        values: (J,) means over seeds.
        resampled: (J, B) of these means.
    """
    if len(values) < 2:
        return confidence
    multiplier = simultaneous_intervals(values, resampled, confidence=confidence).multiplier
    return max(confidence, float(2 * norm.cdf(multiplier) - 1))


def seed_noise(differences: np.ndarray, *, num_networks: int) -> SeedNoise | None:
    """The mean variance over the J differences of a table; None with one seed.

    Two or three seeds agree by chance in some of many differences, and those would look surest.

    Args:
        differences: (J, n).
        num_networks: other than the baseline; each has seeds of its own.
    """
    num_seeds = differences.shape[1]
    if num_seeds < 2:
        return None
    variance = float(differences.var(axis=1, ddof=1).mean()) / num_seeds
    return SeedNoise(variance, float((num_seeds - 1) * num_networks))
