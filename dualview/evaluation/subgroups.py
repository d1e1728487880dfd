"""Studies divided by the columns of the study table, such as sex or age."""

from itertools import pairwise

import numpy as np

from dualview.evaluation.prediction_table import PredictionTable

MAX_VALUES = 12  # columns with more values are no subgroups by default
AGE_BANDS = (0, 18, 40, 60, 80, 200)
NOT_KNOWN = "not known"


def subgroup_rows(table: PredictionTable, *, by: list[str] | None) -> dict[str, dict[str, np.ndarray]]:
    """Rows of each part of each column: column -> value -> (N,) int; ages in bands, many other numbers in quarters.

    Args:
        by: columns to divide by; None takes those with few values.
    """
    divisions = {}
    for column in by if by is not None else table.attributes:
        values = table.attributes[column].astype(str)
        parts = _parts(values, is_age=column == "age", is_asked_for=by is not None)
        if len(parts) > 1:
            divisions[column] = parts
    return divisions


def _parts(values: np.ndarray, *, is_age: bool, is_asked_for: bool) -> dict[str, np.ndarray]:
    """Rows by part of (S,) text; none where there are too many values."""
    numbers = np.array([_as_number(value) for value in values])
    is_there = values != ""
    num_distinct = len(np.unique(values[is_there]))
    is_numeric = bool(num_distinct) and np.isfinite(numbers[is_there]).mean() > 0.9
    if is_age and is_numeric:
        labels = _bands(numbers, edges=list(AGE_BANDS))
    elif num_distinct > MAX_VALUES and not is_asked_for:
        return {}
    elif num_distinct > MAX_VALUES and is_numeric:
        labels = _bands(numbers, edges=[*np.nanquantile(numbers, [0, 0.25, 0.5, 0.75]), np.inf])
    else:
        labels = np.where(is_there, values, NOT_KNOWN)
    return {str(label): np.flatnonzero(labels == label) for label in sorted(set(labels))}


def _bands(numbers: np.ndarray, *, edges: list[float]) -> np.ndarray:
    labels = np.full(len(numbers), NOT_KNOWN, object)
    for low, high in pairwise(edges):
        name = f"{low:g} and more" if high >= AGE_BANDS[-1] else f"{low:g} to below {high:g}"
        labels[(numbers >= low) & (numbers < high)] = name
    return labels


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
