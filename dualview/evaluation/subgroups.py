"""Studies divided by the columns of the study table, such as sex or age."""

from itertools import pairwise

import numpy as np

from dualview.evaluation.prediction_table import PredictionTable

MAX_VALUES = 12  # columns with more values are no subgroups by default
AGE_BANDS = (0, 18, 40, 60, 80, 200)  # years; from 200 on no age is believed
NOT_KNOWN = "not known"


def subgroup_rows(table: PredictionTable, *, by: list[str] | None) -> dict[str, dict[str, np.ndarray]]:
    """Rows of each part of each column: column -> value -> (N,) int; ages in bands, many other numbers in quarters.

    Bands stand from the lowest up; numbers in none of them, and what is no finite number, are `NOT_KNOWN`.

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
        labels, names = _bands(numbers, edges=np.array(AGE_BANDS))
    elif num_distinct > MAX_VALUES and not is_asked_for:
        return {}
    elif num_distinct > MAX_VALUES and is_numeric:
        # Quarters whose edges coincide, as where half of all values are 0, are one band.
        edges = np.unique(np.quantile(numbers[np.isfinite(numbers)], [0, 0.25, 0.5, 0.75]))
        labels, names = _bands(numbers, edges=np.append(edges, np.inf))
    else:
        labels = np.where(is_there, values, NOT_KNOWN)
        names = sorted(set(labels))
    return {str(name): np.flatnonzero(labels == name) for name in names if (labels == name).any()}


def _bands(numbers: np.ndarray, *, edges: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The band of each of (S,) numbers, and the names of the bands from the lowest up, `NOT_KNOWN` last.

    Args:
        edges: ascending; the last band has no upper edge in its name.
    """
    bands = list(pairwise(edges))
    names = [f"{low:.10g} to below {high:.10g}" for low, high in bands[:-1]] + [f"{bands[-1][0]:.10g} and more"]
    labels = np.full(len(numbers), NOT_KNOWN, object)
    for name, (low, high) in zip(names, bands, strict=True):
        labels[(numbers >= low) & (numbers < high)] = name
    return labels, [*names, NOT_KNOWN]


def _as_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
