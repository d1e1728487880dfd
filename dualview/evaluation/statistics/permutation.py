"""Whether two scores differ at all: both are swapped, patient by patient, as if their names meant nothing.

Swapping needs no large numbers: it holds however few positives there are. It tests more than AUROC, though. Two scores
of the same AUROC and of another spread differ too, and then it calls a difference somewhat more often than it should.
So it stands beside an interval and never alone.

Shapes: S studies, K findings, P patients.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

NUM_PERMUTATIONS = 2000


class SwapTest(NamedTuple):
    """Two-sided p-values (K,) of no difference, NaN where a class is missing."""

    alone: np.ndarray  # of each finding
    together: np.ndarray  # corrected for all findings: by the largest of their statistics


def swap_test(
    first: np.ndarray,
    second: np.ndarray,
    *,
    positive: np.ndarray,
    known: np.ndarray,
    patients: np.ndarray,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> SwapTest:
    """Test K findings at once, each with all of its known studies, by permutations that all findings share.

    AUROC is linear in midranks, AUROC - 1/2 = (mean midrank of positives - that of negatives) / N, so swapping the
    midranks of a patient changes the sign of what that patient adds to the difference: all permutations are one matrix
    product. Together: the largest |difference| / standard deviation over findings (max-T, Westfall & Young 1993).
    Source: Bandos, Rockette & Gur, Statistics in Medicine 2005, for one finding and independent studies.

    Args:
        first, second: (S, K) scores.
        positive, known: (S, K) bool; `positive` is read where `known` is True.
        patients: (S,) identifiers; all studies of a patient are swapped or none.
    """
    _, patient_of = np.unique(patients.astype(str), return_inverse=True)
    num_patients = int(patient_of.max(initial=-1)) + 1
    added = np.stack(
        [
            _added_by_patients(first[:, k], second[:, k], positive=positive[:, k], known=known[:, k], rows=patient_of)
            for k in range(first.shape[1])
        ]
    ).reshape(first.shape[1], num_patients)  # (K, P)
    defined = np.isfinite(added).all(axis=1) & (known.any(axis=0))
    alone, together = np.full(len(added), np.nan), np.full(len(added), np.nan)
    if not defined.any():
        return SwapTest(alone, together)
    signs = np.random.default_rng([seed, 11]).integers(2, size=(num_patients, num_permutations), dtype=np.int8) * 2 - 1
    spread = np.sqrt((added[defined] ** 2).sum(axis=1))
    unit = added[defined] / np.where(spread > 0, spread, 1)[:, None]
    swapped = np.abs(unit @ signs.astype(np.float64))  # (K, permutations)
    observed = np.abs(unit.sum(axis=1)) - 1e-9  # rounding must not hide a permutation that gives the same
    alone[defined] = (1 + (swapped >= observed[:, None]).sum(axis=1)) / (1 + num_permutations)
    together[defined] = (1 + (swapped.max(axis=0) >= observed[:, None]).sum(axis=1)) / (1 + num_permutations)
    return SwapTest(alone, together)


def _added_by_patients(
    first: np.ndarray, second: np.ndarray, *, positive: np.ndarray, known: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """What each patient adds to the difference of AUROC, (P,); NaN where a class is missing."""
    added: np.ndarray = np.zeros(int(rows.max(initial=-1)) + 1)
    truth = positive[known]
    num_pos, num_neg = int(truth.sum()), int((~truth).sum())
    if not num_pos or not num_neg:
        return added * np.nan
    gained = rankdata(first[known]) - rankdata(second[known])
    weights = np.where(truth, 1 / num_pos, -1 / num_neg) / len(truth)
    np.add.at(added, rows[known], gained * weights)
    return added
