"""Intervals of rates, such as a sensitivity: 33 of 33 is not certainty."""

import numpy as np
from scipy.stats import norm, t

from dualview.evaluation.statistics.bootstrap import Interval


def rate_interval(hits: np.ndarray, *, patients: np.ndarray, confidence: float = 0.95) -> Interval:
    """The share of True among (N,) hits with Wilson's interval of the effective number of studies.

    Source: Wilson, JASA 1927; the effective number as Korn & Graubard, Survey Methodology 1998.

    Args:
        patients: (N,) identifiers; studies of one patient are not independent.
    """
    if not len(hits):
        return Interval(None, None, None)
    rate = float(hits.mean())
    number = effective_number(hits, patients=patients, confidence=confidence)
    z_squared = float(norm.ppf((1 + confidence) / 2)) ** 2
    centre = (rate + z_squared / (2 * number)) / (1 + z_squared / number)
    half = np.sqrt(z_squared * (rate * (1 - rate) / number + z_squared / (4 * number**2))) / (1 + z_squared / number)
    return Interval(rate, min(max(float(centre - half), 0.0), rate), max(min(float(centre + half), 1.0), rate))


def effective_number(hits: np.ndarray, *, patients: np.ndarray, confidence: float = 0.95) -> float:
    """How many independent studies would say as much as these N studies of P patients do; N where P = N.

    N over the design effect, which compares the variance between patients with that of independent studies, and less
    where few patients make that variance uncertain. Where all studies agree it shows nothing, and studies of a patient
    count as copies of one another.
    """
    _, patient_of, sizes = np.unique(patients, return_inverse=True, return_counts=True)
    num_studies, num_patients = len(hits), len(sizes)
    copies = num_studies**2 / float((sizes**2).sum())
    if num_patients in (num_studies, 1):
        return copies
    rate = float(hits.mean())
    if rate in (0.0, 1.0):
        return copies
    deviations = np.bincount(patient_of, weights=hits.astype(float)) - rate * sizes
    variance = num_patients / (num_patients - 1) * float((deviations**2).sum()) / num_studies**2
    if variance == 0:
        return float(num_studies)
    tail = (1 + confidence) / 2
    shrunk = (t.ppf(tail, num_studies - 1) / t.ppf(tail, num_patients - 1)) ** 2
    return float(np.clip(rate * (1 - rate) / variance * shrunk, 1, num_studies))
