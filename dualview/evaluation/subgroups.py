"""Studies divided by the columns of the study table, such as sex or age, and by two columns at once."""

from collections.abc import Collection, Iterable
from itertools import pairwise, product

import numpy as np

from dualview.data.people import OLDEST, is_age, is_sex, plausible_years, sex_of
from dualview.errors import UserError
from dualview.evaluation.prediction_table import PredictionTable

MAX_VALUES = 12  # columns with more values are no subgroups by default
# Years; who is older than `OLDEST`, or not born yet, is in no band.
AGE_BANDS = (0.0, 18.0, 40.0, 60.0, 80.0, float(np.nextafter(OLDEST, np.inf)))
NOT_KNOWN = "not known"
AND = "+"  # between two columns whose values are combined; no shell takes it for anything else


def columns_of(by: Iterable[str], *, there: Collection[str], otherwise: str) -> dict[str, tuple[str, ...]]:
    """What `--by` names -> the one or two columns that it stands for: `sex`, or `sex+age` for their intersections.

    A column whose own name has a + is found by its whole name first.

    Args:
        there: names of the columns.
        otherwise: what to say of where to find columns, such as `the file has sex, age`.

    Raises:
        UserError: no such column, one column twice, or a name that can be divided in several ways.
    """
    named: dict[str, tuple[str, ...]] = {}
    unknown = []
    for text in by:
        places = [place for place, character in enumerate(text) if character == AND]
        pairs = [(text[:place].strip(), text[place + 1 :].strip()) for place in places]
        found = [pair for pair in pairs if pair[0] in there and pair[1] in there]
        if text in there:
            named[text] = (text,)
        elif len(found) > 1:
            raise UserError(f"--by {text}: {' or '.join(map(str, found))}? Rename a column so that one of them is left")
        elif found and found[0][0] == found[0][1]:
            raise UserError(f"--by {text}: one column twice; give two different ones")
        elif found:
            named[text] = found[0]
        elif len(places) > 1 and all(part.strip() in there for part in text.split(AND)):
            raise UserError(f"--by {text}: at most two columns can be combined; groups of more are too small to judge")
        else:
            unknown.append(text)
    if unknown:
        raise UserError(
            f"--by {', '.join(unknown)}: no such column; {otherwise}. Two columns at once are written sex{AND}age"
        )
    return named


def subgroup_rows(table: PredictionTable, *, by: list[str] | None) -> dict[str, dict[str, np.ndarray]]:
    """Rows of each part of each column: column -> value -> (N,) int; ages in bands, many other numbers in quarters.

    M and Male are one group. Bands stand from the lowest up; numbers in none of them, and what is no finite number, are
    `NOT_KNOWN`. Of two columns at once each pair of values that a study has is a part; one that lacks either is
    `NOT_KNOWN`.

    Args:
        by: columns to divide by, or pairs of them as `columns_of` reads them; None takes columns with few values.
    """
    there = table.attributes
    named = columns_of(there if by is None else by, there=there, otherwise=f"there are {', '.join(there)}")
    divisions = {}
    for name, columns in named.items():
        parts = [_parts(there[column].astype(str), column=column, is_asked_for=by is not None) for column in columns]
        divided = parts[0] if len(parts) == 1 else _intersections(parts, columns=columns)
        if len(divided) > 1:
            divisions[name] = divided
    return divisions


def _intersections(parts: list[dict[str, np.ndarray]], *, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rows of each pair of values of two columns that a study has, in the order of both."""
    known: dict[str, np.ndarray] = {}
    for values in product(*parts):
        rows = np.intersect1d(parts[0][values[0]], parts[1][values[1]])
        if NOT_KNOWN not in values and len(rows):
            known[", ".join(f"{column} {value}" for column, value in zip(columns, values, strict=True))] = rows
    nobody = np.zeros(0, int)
    everybody = np.concatenate([*parts[0].values(), nobody])
    if len(unknown := np.setdiff1d(everybody, np.concatenate([*known.values(), nobody]))):
        known[NOT_KNOWN] = unknown
    return known


def _parts(values: np.ndarray, *, column: str, is_asked_for: bool) -> dict[str, np.ndarray]:
    """Rows by part of (S,) text; none where there are too many values."""
    if is_sex(column):  # M and Male, of two hospitals, are one group.
        values = np.array([sex_of(text) or text for text in values], object)
    is_there = values != ""
    num_distinct = len(np.unique(values[is_there]))
    numbers = plausible_years(values) if is_age(column) else np.array([_as_number(value) for value in values])
    is_numeric = bool(num_distinct) and np.isfinite(numbers[is_there]).mean() > (0.5 if is_age(column) else 0.9)
    if is_age(column) and is_numeric:
        labels, names = _bands(numbers, edges=np.array(AGE_BANDS))
    elif num_distinct > MAX_VALUES and not is_asked_for:
        return {}
    elif num_distinct > MAX_VALUES and is_numeric:
        # Quarters whose edges coincide, as where half of all values are 0, are one band.
        edges = np.unique(np.quantile(numbers[np.isfinite(numbers)], [0, 0.25, 0.5, 0.75]))
        labels, names = _bands(numbers, edges=np.append(edges, np.inf))
    else:
        labels = np.where(is_there, values, NOT_KNOWN)
        names = [*sorted(set(labels) - {NOT_KNOWN}), NOT_KNOWN]
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
