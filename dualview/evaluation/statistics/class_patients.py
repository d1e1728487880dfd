"""How many patients there are to judge a finding by: with few of either class no interval can be trusted."""

from typing import NamedTuple

import numpy as np

JUDGED_FROM = 10  # positive patients, and negative ones, from which a finding gets a verdict
INTERVAL_FROM = 5  # positive patients, and negative ones, from which an interval is printed


class ClassPatients(NamedTuple):
    """Patients with a positive study, and with a negative one; who has both is in both numbers."""

    num_positive: int
    num_negative: int

    @property
    def fewer(self) -> int:
        """The smaller of the two."""
        return min(self)

    @property
    def can_be_judged(self) -> bool:
        """Whether a verdict may rest on them."""
        return self.fewer >= JUDGED_FROM

    @property
    def have_interval(self) -> bool:
        """Whether an interval may rest on them."""
        return self.fewer >= INTERVAL_FROM


def class_patients(patients: np.ndarray, *, positive: np.ndarray) -> ClassPatients:
    """Count the patients of (N,) studies with a known label.

    Args:
        patients: (N,) identifiers.
        positive: (N,) bool.
    """
    return ClassPatients(len(np.unique(patients[positive])), len(np.unique(patients[~positive])))


def class_patients_of_each(patients: np.ndarray, *, positive: np.ndarray, known: np.ndarray) -> list[ClassPatients]:
    """`class_patients` of each of K findings, over its known studies.

    Args:
        patients: (S,) identifiers.
        positive, known: (S, K) bool; `positive` is read where `known` is True.
    """
    return [class_patients(patients[use], positive=truth[use]) for use, truth in zip(known.T, positive.T, strict=True)]
