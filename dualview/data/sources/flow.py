"""How many images, studies and patients each rule leaves, from the rows that are read to the studies that are used."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dualview.data.table import StudyTable

JOINED = "identifiers of the same study are joined"
NUM_REASONS = 20  # reasons of one rule that are told, the most frequent ones


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is there at one place of the flow."""

    images: int
    studies: int | None  # distinct (patient, study); None: not known yet
    patients: int | None  # None as the studies


@dataclass(frozen=True, kw_only=True)
class FlowStep:
    """One rule, and what it leaves. What it leaves out is the difference to the step before."""

    rule: str  # a sentence without a path; the first step is what was read
    left: Left
    reasons: dict[str, int]  # reason -> images left out by this rule, where it has several; the most frequent first


def count_rows(frame: pd.DataFrame) -> Left:
    """Images, studies and patients of a table with a row per image; who has no identifier is nobody."""
    if not {"patient", "study"} <= set(frame.columns):
        return Left(images=len(frame), studies=None, patients=None)
    patient, patients = pd.factorize(frame["patient"])
    study, studies = pd.factorize(frame["study"])
    is_named = (patients != "").astype(bool)[patient] if len(patients) else np.zeros(0, bool)
    pairs = (patient.astype(np.int64) * len(studies) + study)[is_named]
    return Left(images=len(frame), studies=len(np.unique(pairs)), patients=int((patients != "").sum()))


def count_studies(table: StudyTable, *, num_images: int) -> Left:
    """Images, studies and patients of a table of studies."""
    return Left(images=num_images, studies=len(table), patients=len(set(table.patient_ids)))


def reasons_of(reasons: "Sequence[str] | pd.Series[str]") -> dict[str, int]:
    """Reason -> number of images, of a rule with several reasons; {} of one with a single reason."""
    counts = pd.Series(reasons, dtype=object).value_counts()
    return {str(reason): int(number) for reason, number in counts.head(NUM_REASONS).items()} if len(counts) > 1 else {}
