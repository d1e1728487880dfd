"""DeLong's variance of AUROCs, with patients of several studies: a check on the bootstrap that needs no resampling."""

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

ROUNDING = 1e-12  # standard errors below are 0 but for rounding


class PairedDeLong(NamedTuple):
    """Difference of two AUROCs on the same studies, its standard error and the two-sided p-value of no difference."""

    difference: float
    standard_error: float
    p_value: float


def covariance(
    scores: np.ndarray, *, positive: np.ndarray, patients: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs (M,) of M scores on the same N studies, and their covariance (M, M).

    Source: Obuchowski, Biometrics 1997, which with one study per patient is DeLong, DeLong & Clarke-Pearson,
    Biometrics 1988; by the midranks of Sun & Xu, IEEE Signal Processing Letters 2014.

    Args:
        scores: (M, N).
        positive: (N,) bool; at least two patients with studies of either class.
        patients: (N,) identifiers, of which components are summed; None: each study is a patient of its own.
    """
    num_pos, num_neg = int(positive.sum()), int((~positive).sum())
    among_all = rankdata(scores, axis=1)
    pos_ranks = (among_all[:, positive] - rankdata(scores[:, positive], axis=1)) / num_neg  # (M, num_pos)
    neg_ranks = 1 - (among_all[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / num_pos  # (M, num_neg)
    aurocs = pos_ranks.mean(axis=1)
    _, patient_of = np.unique(np.arange(len(positive)) if patients is None else patients, return_inverse=True)
    of_pos = _summed(pos_ranks - aurocs[:, None], rows=patient_of[positive], num_rows=patient_of.max() + 1) / num_pos
    of_neg = _summed(neg_ranks - aurocs[:, None], rows=patient_of[~positive], num_rows=patient_of.max() + 1) / num_neg
    across = of_pos @ of_neg.T
    return aurocs, (
        _unbiased(len(np.unique(patient_of[positive]))) * (of_pos @ of_pos.T)
        + _unbiased(len(np.unique(patient_of[~positive]))) * (of_neg @ of_neg.T)
        + _unbiased(patient_of.max() + 1) * (across + across.T)
    )


def paired_delong(
    first: np.ndarray, second: np.ndarray, *, positive: np.ndarray, patients: np.ndarray | None = None
) -> PairedDeLong | None:
    """AUROC of `first` minus that of `second`, (N,) scores each.

    None with fewer than two patients of a class, and where the standard error is 0: then it knows of no chance at all.
    """
    identities = np.arange(len(positive)) if patients is None else patients
    if min(len(np.unique(identities[positive])), len(np.unique(identities[~positive]))) < 2:
        return None
    aurocs, covariances = covariance(np.stack([first, second]), positive=positive, patients=patients)
    difference = float(aurocs[0] - aurocs[1])
    error = error_of_difference(covariances)
    if error == 0:
        return None
    return PairedDeLong(difference, error, float(2 * norm.sf(abs(difference) / error)))


def error_of_difference(covariances: np.ndarray) -> float:
    """Standard error of the difference of two AUROCs of covariances (2, 2); 0 where rounding alone makes it more."""
    error = float(np.sqrt(max(covariances[0, 0] + covariances[1, 1] - 2 * covariances[0, 1], 0.0)))
    return error if error >= ROUNDING else 0.0


def _summed(values: np.ndarray, *, rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Columns (M, N) added up by the row that each belongs to: (M, num_rows)."""
    return np.stack([np.bincount(rows, weights=of_score, minlength=num_rows) for of_score in values])


def _unbiased(number: int) -> float:
    return number / (number - 1)
