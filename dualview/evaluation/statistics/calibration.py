"""Whether probabilities mean what they say, and one or two numbers that make them do so."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit
from sklearn.linear_model import LogisticRegression

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


class Line(NamedTuple):
    """From one logit to another: slope * logit + intercept."""

    slope: float
    intercept: float


def fit_platt(logits: np.ndarray, *, positive: np.ndarray) -> Line | None:
    """The line by which the likelihood of sigmoid(slope * logit + intercept) is highest; None where there is no use.

    That is without both labels, where the logits part the labels without an error, so that no slope is steep enough,
    and where the slope would turn the order of studies around.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999, without his prior on the labels.

    Args:
        logits: (N,).
        positive: (N,) bool.
    """
    z = logits.astype(np.float64)
    if not positive.any() or positive.all() or z[positive].min() >= z[~positive].max():
        return None
    fitted = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(z[:, None], positive)
    line = Line(float(fitted.coef_[0, 0]), float(fitted.intercept_[0]))
    return line if line.slope > 0 and np.isfinite(line).all() else None


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
