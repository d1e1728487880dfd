"""AUROC of pairs within strata: what one network says of two studies, never what two networks say of one each.

Scores of networks that were trained on different folds have no common scale, so a pair of studies of different folds
compares two networks as much as two patients. Leaving such pairs out costs hardly any precision and has no bias, where
the AUROC of all pairs is too low (Airola et al., Computational Statistics and Data Analysis 2011; Forman & Scholz, ACM
SIGKDD Explorations 2010; measured by docs/generate/folds.py).
"""

import numpy as np

from dualview.evaluation.statistics.bootstrap import ranking


def auroc_within(scores: np.ndarray, *, positive: np.ndarray, counts: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Share of the pairs of a positive and a negative study of one stratum in which the positive is higher, ties half.

    It is the mean AUROC of the strata, each weighted by its number of such pairs.

    Args:
        scores: (N,).
        positive: (N,) bool.
        counts: (N, B), how often each study is in each resample.
        strata: (N,) any values.

    Returns:
        (B,) float64, NaN where a resample has no such pair.
    """
    wins, pairs = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for stratum in np.unique(strata):
        rows = strata == stratum
        truth, here = positive[rows], counts[rows]
        num_pairs = here[truth].sum(axis=0, dtype=np.float64) * here[~truth].sum(axis=0, dtype=np.float64)
        wins += num_pairs * np.nan_to_num(ranking(scores[rows], positive=truth, counts=here).auroc)
        pairs += num_pairs
    return np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)


def aurocs_within(
    scores: np.ndarray, *, positive: np.ndarray, known: np.ndarray, counts: np.ndarray, strata: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`auroc_within` of K findings: (K,) of the studies as they are, and (K, B) of the resamples.

    Args:
        scores: (N, K).
        positive, known: (N, K) bool; `positive` is read where `known` is True.
        counts: (N, B).
        strata: (N,).
    """
    with_all = np.concatenate([np.ones((len(counts), 1), counts.dtype), counts], axis=1)
    aurocs = np.stack(
        [
            auroc_within(
                scores[use, k], positive=positive[use, k], counts=with_all[use], strata=strata[use]
            )
            for k, use in enumerate(known.T)
        ]
    )  # fmt: skip
    return aurocs[:, 0], aurocs[:, 1:]
