"""Whether probabilities mean what they say, and one number that makes them do so."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit

NUM_BINS = 10


def reliability(probabilities: np.ndarray, *, positive: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Points of a reliability diagram, (bins, 3): mean probability, share of positives, number of studies.

    Bins hold equal numbers of studies (to within one), from the lowest to the highest probability; there are fewer
    where there are fewer studies.
    """
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, num_bins) if len(part)]
    rows = [(probabilities[part].mean(), positive[part].mean(), len(part)) for part in parts]
    return np.array(rows, np.float64).reshape(-1, 3)


def calibration_error(probabilities: np.ndarray, *, positive: np.ndarray) -> float | None:
    """Mean over studies of |mean probability - share of positives| of their bin; None without studies.

    Source: the adaptive calibration error of Nixon et al. 2019 (arXiv:1904.01685) for one class.
    """
    if not len(probabilities):
        return None
    predicted, observed, size = reliability(probabilities, positive=positive).T
    return float((size * np.abs(predicted - observed)).sum() / size.sum())


def fit_temperature(logits: np.ndarray, *, positive: np.ndarray, known: np.ndarray) -> float | None:
    """The temperature T > 0 by which the likelihood of sigmoid(logits / T) is highest; None without both labels.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2, for independent findings.

    Args:
        logits: (S, K).
        positive, known: (S, K) bool; `positive` is read where `known` is True.
    """
    z, y = logits[known].astype(np.float64), positive[known]
    if not y.any() or y.all():
        return None
    signed = np.where(y, z, -z)
    found = minimize_scalar(
        lambda log_t: -log_expit(signed * np.exp(-log_t)).mean(), bounds=(np.log(0.02), np.log(50)), method="bounded"
    )
    return float(np.exp(found.x))
