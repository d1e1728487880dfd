"""Bootstrap over patients: metrics of all resamples at once, and intervals from them.

A resample draws as many patients as there are, with replacement (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 6), and takes all studies of each. It is held as how often it contains each study, so a metric
of a resample is the metric weighted by these counts. One set of resamples serves every score, group and masking:
differences are paired.

Shapes: N studies, B resamples, K findings.
"""

from typing import NamedTuple

import numpy as np

CHUNK_BYTES = 4 << 20  # size of counts worked on at once, which fits into the processor's cache


class Interval(NamedTuple):
    """An estimate with its confidence interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


def resample_patients(patient_ids: np.ndarray, *, num_resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """How often each study is in each resample: (N,) identifiers to (N, B) uint8.

    A function of the order of the patients, the number and the seed.
    """
    _, patient_of = np.unique(patient_ids.astype(str), return_inverse=True)
    num_patients = int(patient_of.max()) + 1 if len(patient_of) else 0
    counts = np.empty((num_patients, num_resamples), np.uint8)  # P(a patient comes 256 times) < 1e-300
    generator = np.random.default_rng([seed, 7])
    for resample in range(num_resamples):
        drawn = generator.integers(num_patients, size=num_patients)
        counts[:, resample] = np.bincount(drawn, minlength=num_patients)
    return counts[patient_of]


class Ranking(NamedTuple):
    """Metrics of the order of scores in every resample: (B,) float64, NaN where a class is not in the resample."""

    auroc: np.ndarray
    average_precision: np.ndarray


def ranking(scores: np.ndarray, *, positive: np.ndarray, counts: np.ndarray) -> Ranking:
    """AUROC and average precision of (N,) scores in each of B resamples, as scikit-learn defines them.

    AUROC = P(s+ > s-) + P(s+ = s-) / 2 (Mann-Whitney); average precision = sum over positives of the precision at their
    score, over the number of positives (`sklearn.metrics.average_precision_score`). Ties are exact: only counts are
    summed.

    Args:
        positive: (N,) bool.
        counts: (N, B) of `resample_patients`, at the rows of the scores.
    """
    num_resamples = counts.shape[1]
    pos, neg = _ascending(scores, positive), _ascending(scores, ~positive)
    if not len(pos) or not len(neg):
        undefined = np.full(num_resamples, np.nan)
        return Ranking(undefined, undefined.copy())
    pos_scores, neg_scores = scores[pos], scores[neg]
    below, upto = np.searchsorted(neg_scores, pos_scores, "left"), np.searchsorted(neg_scores, pos_scores, "right")
    pos_below = np.searchsorted(pos_scores, pos_scores, "left")
    bounds, where = np.unique(np.concatenate([below, upto]), return_inverse=True)
    where_below, where_upto = where[: len(pos)], where[len(pos) :]
    auroc, precision = np.empty(num_resamples), np.empty(num_resamples)
    width = max(CHUNK_BYTES // len(scores), 16)
    for start in range(0, num_resamples, width):
        here = slice(start, start + width)
        pos_counts = counts[pos, here].astype(np.float64)
        neg_at = _cumulative(counts[neg, here], bounds=bounds)  # negatives below each bound
        num_pos, num_neg = pos_counts.sum(axis=0), counts[neg, here].sum(axis=0, dtype=np.float64)
        neg_below = neg_at[where_below]
        wins_twice = np.einsum("nb,nb->b", pos_counts, neg_below + neg_at[where_upto])
        true_below = np.concatenate([np.zeros((1, pos_counts.shape[1])), pos_counts.cumsum(axis=0)])[pos_below]
        true, false = num_pos - true_below, num_neg - neg_below
        with np.errstate(invalid="ignore", divide="ignore"):
            auroc[here] = np.where(num_pos * num_neg > 0, wins_twice / (2 * num_pos * num_neg), np.nan)
            precisions = true / np.maximum(true + false, 1)
            average = np.einsum("nb,nb->b", pos_counts, precisions) / num_pos
            precision[here] = np.where(num_pos * num_neg > 0, average, np.nan)
    return Ranking(auroc, precision)


def weighted_means(values: np.ndarray, *, counts: np.ndarray) -> np.ndarray:
    """Mean of (N,) or (N, M) values in each resample: (B,) or (M, B), NaN where a resample has none of the studies."""
    totals = counts.sum(axis=0, dtype=np.float64)
    sums = values.T.astype(np.float64) @ counts.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: np.ndarray = np.where(totals > 0, sums / totals, np.nan)
    return means


def percentile_interval(value: float | None, resampled: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """The percentile interval (Efron & Tibshirani 1993, chapter 13) over the resamples where the metric is defined."""
    defined = resampled[np.isfinite(resampled)]
    if value is None or not len(defined):
        return Interval(value, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


class Simultaneous(NamedTuple):
    """Intervals (K,) that hold together, NaN where a finding is not among them, and what they are made of."""

    low: np.ndarray
    high: np.ndarray
    standard_errors: np.ndarray  # (K,)
    multiplier: float  # half an interval is so many standard errors


def simultaneous_intervals(
    values: np.ndarray,
    resampled: np.ndarray,
    *,
    confidence: float = 0.95,
    widened: np.ndarray | float = 1.0,
    at_least: np.ndarray | float = 0.0,
) -> Simultaneous:
    """Intervals that hold all K true values together with this confidence.

    estimate +- c x standard error, c being the quantile of max over findings of |resampled - estimate| / standard error
    (the bootstrap maximum of Westfall & Young, Resampling-Based Multiple Testing, 1993; Romano & Wolf, Econometrica
    2005, single step). Findings that move together cost less than under Bonferroni.

    Args:
        values: (K,) estimates; NaN where undefined or not of the family, and then so are its bounds.
        resampled: (K, B).
        widened: (K,) what the bootstrap's standard errors are multiplied by.
        at_least: (K,) what a standard error above 0 is raised to where it is smaller; NaN: nothing.
    """
    errors = np.full(len(values), np.nan)
    used = np.isfinite(values) & (np.isfinite(resampled).sum(axis=1) > 1)
    errors[used] = np.nanstd(resampled[used], axis=1, ddof=1)
    errors[errors < 1e-12] = 0  # Rounding alone makes these differ between resamples.
    moving = used & (errors > 0)
    multiplier = 0.0
    if moving.any():
        deviations = np.abs(resampled[moving] - values[moving, None]) / errors[moving, None]
        largest = np.nanmax(np.where(np.isfinite(deviations), deviations, -np.inf), axis=0)
        multiplier = float(np.quantile(largest, confidence))
    errors = np.where(moving, np.fmax(errors * widened, at_least), errors)
    return Simultaneous(values - multiplier * errors, values + multiplier * errors, errors, multiplier)


def _ascending(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rows of the chosen scores, from the lowest to the highest."""
    rows = np.flatnonzero(chosen)
    ordered: np.ndarray = rows[np.argsort(scores[rows], kind="stable")]
    return ordered


def _cumulative(counts: np.ndarray, *, bounds: np.ndarray) -> np.ndarray:
    """Sums of the rows before each of the ascending bounds: (N, B) to (len(bounds), B) float64."""
    segments = np.zeros((len(bounds), counts.shape[1]), np.float64)
    starts = np.concatenate([[0], bounds[:-1]])
    filled = np.flatnonzero(bounds > starts)
    if len(filled):
        used = counts[: bounds[-1]]
        segments[filled] = np.add.reduceat(used, starts[filled], axis=0, dtype=np.int32)
    return segments.cumsum(axis=0)
