"""DeLong's variance of AUROCs, a check on the bootstrap that needs no resampling."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata


class PairedDeLong(NamedTuple):
    """Difference of two AUROCs on the same studies, its standard error and the two-sided p-value of no difference."""

    difference: float
    standard_error: float
    p_value: float


def covariance(scores: np.ndarray, *, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs (M,) of M scores on the same N studies, and their covariance (M, M).

    Each study counts as independent of the others. Source: DeLong, DeLong & Clarke-Pearson, Biometrics 1988, by the
    midranks of Sun & Xu, IEEE Signal Processing Letters 2014.

    Args:
        scores: (M, N).
        positive: (N,) bool, at least two of either class.
    """
    num_pos, num_neg = int(positive.sum()), int((~positive).sum())
    among_all = rankdata(scores, axis=1)
    pos_ranks = (among_all[:, positive] - rankdata(scores[:, positive], axis=1)) / num_neg  # (M, num_pos)
    neg_ranks = 1 - (among_all[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / num_pos  # (M, num_neg)
    return pos_ranks.mean(axis=1), np.atleast_2d(np.cov(pos_ranks)) / num_pos + np.atleast_2d(
        np.cov(neg_ranks)
    ) / num_neg


def paired_delong(first: np.ndarray, second: np.ndarray, *, positive: np.ndarray) -> PairedDeLong | None:
    """AUROC of `first` minus that of `second`, (N,) scores each; None with fewer than two studies of a class."""
    if min(positive.sum(), (~positive).sum()) < 2:
        return None
    aurocs, covariances = covariance(np.stack([first, second]), positive=positive)
    difference = float(aurocs[0] - aurocs[1])
    error = float(np.sqrt(max(covariances[0, 0] + covariances[1, 1] - 2 * covariances[0, 1], 0.0)))
    if error == 0:
        return PairedDeLong(difference, 0.0, 1.0 if difference == 0 else 0.0)
    return PairedDeLong(difference, error, float(2 * norm.sf(abs(difference) / error)))
