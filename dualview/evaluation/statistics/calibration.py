"""Whether probabilities mean what they say, and one or two numbers that make them do so."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit
from scipy.stats import binom, norm
from sklearn.linear_model import LogisticRegression

from dualview.evaluation.statistics.bootstrap import Interval

NUM_BINS = 10
NEWTON_STEPS = 50
STEEPEST = 50.0  # slope, or intercept, beyond which labels are told apart without an error and none is best


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


def calibration_error_by_chance(probabilities: np.ndarray, *, positive: np.ndarray) -> float | None:
    """The `calibration_error` to be expected of so many studies if these probabilities were perfectly right.

    The mean deviation of a binomial share from its probability, in closed form (De Moivre 1730; Diaconis & Zabell,
    Statistical Science 1991), in each bin at its mean probability. None without studies.
    """
    if not len(probabilities):
        return None
    predicted, _, size = reliability(probabilities, positive=positive).T
    mode = np.floor(size * predicted) + 1
    deviation = 2 * mode * (1 - predicted) * binom.pmf(mode, size, predicted) / size
    return float((size * deviation).sum() / size.sum())


class CalibrationLine(NamedTuple):
    """How probabilities p would have to be changed: logit of the truth = intercept + slope x logit(p)."""

    intercept: Interval  # with the slope held at 1; below 0: probabilities are too high
    slope: Interval  # below 1: probabilities are too extreme


def calibration_line(
    logits: np.ndarray, *, positive: np.ndarray, patients: np.ndarray, confidence: float = 0.95
) -> CalibrationLine:
    """Calibration intercept and slope of (N,) logits, undefined where no finite number is best.

    Source: Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019. Intervals are by the sandwich variance,
    summed by patient (Liang & Zeger, Biometrika 1986).

    Args:
        patients: (N,) identifiers.
    """
    truth, ones = positive.astype(float), np.ones(len(logits))
    z = np.clip(logits, -STEEPEST, STEEPEST)
    level = _logistic(ones[:, None], truth=truth, offset=z, patients=patients, confidence=confidence)
    line = _logistic(np.stack([ones, z], axis=1), truth=truth, offset=0 * z, patients=patients, confidence=confidence)
    return CalibrationLine(intercept=level, slope=line)


def _logistic(
    terms: np.ndarray, *, truth: np.ndarray, offset: np.ndarray, patients: np.ndarray, confidence: float
) -> Interval:
    """The last coefficient of a logistic regression on terms (N, M), by Newton's method, with its interval."""
    undefined = Interval(None, None, None)
    _, patient_of = np.unique(patients, return_inverse=True)
    num_patients = int(patient_of.max(initial=-1)) + 1
    if truth.all() or not truth.any() or num_patients < 2:
        return undefined
    beta = np.zeros(terms.shape[1])
    beta[-1] = 1.0 if terms.shape[1] > 1 else 0.0
    for _ in range(NEWTON_STEPS):
        p = expit(offset + terms @ beta)
        information = (terms * (p * (1 - p))[:, None]).T @ terms
        if np.linalg.cond(information) > 1 / np.finfo(float).eps:
            return undefined
        step = np.linalg.solve(information, terms.T @ (truth - p))
        beta = beta + np.clip(step, -2, 2)
        if np.abs(beta).max() > STEEPEST:
            return undefined
        if np.abs(step).max() < 1e-10:
            break
    else:
        return undefined
    scores = np.zeros((num_patients, len(beta)))
    np.add.at(scores, patient_of, terms * (truth - p)[:, None])
    bread = np.linalg.inv(information)
    variance = num_patients / (num_patients - 1) * bread @ (scores.T @ scores) @ bread
    half = float(norm.ppf((1 + confidence) / 2) * np.sqrt(variance[-1, -1]))
    return Interval(float(beta[-1]), float(beta[-1]) - half, float(beta[-1]) + half)


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
