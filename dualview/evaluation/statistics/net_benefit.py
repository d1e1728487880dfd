"""What it is worth to act on a prediction: net benefit and the decision curve (Vickers & Elkin 2006).

Who acts where the probability is at least t holds a missed finding for (1 - t) / t times as bad as a needless action.
Net benefit counts true positives, less false positives in that rate of exchange, per study.
"""

from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST, WIDEST_FROM = 0.01, 0.9, 0.2  # ends of the thresholds, and the least upper end


@dataclass(frozen=True, kw_only=True)
class NetBenefit:
    """Net benefit at T thresholds; of doing nothing it is 0."""

    thresholds: np.ndarray  # (T,) probabilities in (0, 1)
    model: np.ndarray  # (T,) of acting on the probability
    everybody: np.ndarray  # (T,) of acting on every study


def thresholds_for(prevalence: float, *, number: int = 60) -> np.ndarray:
    """(number,) thresholds from 1 % to three times the prevalence, at least to 20 % and at most to 90 %."""
    upper = float(np.clip(3 * prevalence, WIDEST_FROM, HIGHEST))
    return np.linspace(LOWEST, upper, number)


def net_benefit(probabilities: np.ndarray, *, positive: np.ndarray, thresholds: np.ndarray) -> NetBenefit:
    """Net benefit of N probabilities: TP / N - FP / N * t / (1 - t).

    Args:
        probabilities: (N,).
        positive: (N,) bool.
        thresholds: (T,) in (0, 1).
    """
    ordered = [np.sort(probabilities[rows]) for rows in (positive, ~positive)]
    true, false = (len(of_class) - np.searchsorted(of_class, thresholds, side="left") for of_class in ordered)
    odds = thresholds / (1 - thresholds)
    num_positive, number = int(positive.sum()), len(positive)
    return NetBenefit(
        thresholds=thresholds,
        model=(true - false * odds) / number,
        everybody=(num_positive - (number - num_positive) * odds) / number,
    )


def gain_of_net_benefit(
    probabilities: np.ndarray, others: np.ndarray, *, positive: np.ndarray, patients: np.ndarray, threshold: float
) -> tuple[float, float]:
    """What acting on one probability gains over acting on another of the same N studies, and its standard error.

    The error is over patients, whose studies are summed; NaN with one patient.

    Args:
        probabilities, others: (N,).
        positive: (N,) bool.
        patients: (N,) identifiers.
    """
    worth = np.where(positive, 1.0, -threshold / (1 - threshold))
    of_study = worth * ((probabilities >= threshold).astype(float) - (others >= threshold))
    of_patient = np.unique(patients.astype(str), return_inverse=True)[1]
    number = int(of_patient.max()) + 1
    gain = float(of_study.mean())
    sums = np.bincount(of_patient, weights=of_study - gain, minlength=number)
    if number < 2:
        return gain, float("nan")
    return gain, float(np.sqrt(number / (number - 1) * np.square(sums).sum()) / len(of_study))
