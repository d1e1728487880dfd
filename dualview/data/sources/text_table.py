"""Tables of text: each cell as it stands in the CSV, each row with its line, and nothing swallowed.

Python's own CSV reader does the reading, strictly: it is as fast as that of pandas, and says which lines of the file a
row takes. What it cannot know is looked for here, rows of another length than the header and names that come twice, and
in table_quotes.py, quotes that are opened twice, never closed, and hold whole rows in between.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

from dualview.data.sources.problems import Problems
from dualview.data.sources.table_lines import table_lines
from dualview.data.sources.table_quotes import (
    QUOTES,
    Inside,
    Record,
    add_line_breaks,
    add_swallowed,
    misquoted,
    rows_inside,
)
from dualview.errors import UserError

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True, kw_only=True)
class TextRows:
    """Rows of a table: what they say, and where. Users' columns may have any name, as the frame has no others."""

    lines: np.ndarray  # (N,) int64, the line of the file that each row begins in
    cells: pd.DataFrame  # N rows of texts, stripped


def text_table(file: Path, *, columns: Sequence[str], hint: str, optional: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV, compressed or not, as text cells, stripped, blank where empty; column `line` = line in the file.

    For the tables of data sets, whose columns are known not to be called `line`; others take `text_rows`.

    Args:
        file: the table.
        columns: names it must have; only they are read, where there are any.
        hint: what to do about a missing column.
        optional: columns to read as well, blank where the table lacks them.

    Raises:
        UserError: as `text_rows`.
    """
    rows = text_rows(file, columns=columns, hint=hint, optional=optional)
    rows.cells.insert(0, "line", rows.lines)
    return rows.cells


def text_rows(
    file: Path, *, columns: Sequence[str], hint: str, optional: Sequence[str] = (), problems: Problems | None = None
) -> TextRows:
    """The whole table; arguments as of `text_table`.

    Identifiers stay text: "331a", "007" and PadChest's 39 digits are not numbers.

    Args:
        problems: takes rows that are not as they should be, to be told with what else is wrong; None: they are raised.

    Raises:
        UserError: no file, no CSV, no rows, columns that are not there or come twice, rows that are not as long as the
            header, or quotes that swallow rows.
    """
    found = Problems(file) if problems is None else problems
    rows = list(text_chunks(file, columns=columns, hint=hint, optional=optional, problems=found, rows_at_once=None))
    if problems is None or not rows:
        found.raise_if_any()
    if not rows:
        raise UserError(f"{file} has no rows")
    return rows[0]


def text_chunks(
    file: Path,
    *,
    columns: Sequence[str],
    hint: str,
    problems: Problems,
    rows_at_once: int | None,
    optional: Sequence[str] = (),
) -> Iterator[TextRows]:
    """The table a few rows at a time, without blank lines; arguments as of `text_table`.

    Args:
        problems: takes rows that are not as they should be; they are in no chunk.
        rows_at_once: None takes the whole table at once.

    Raises:
        UserError: as `text_rows`, where reading cannot go on.
    """
    records = _records(file)
    header = _header(file, records)
    names = _checked_names(file, header, columns=columns, optional=optional, hint=hint)
    at = {name: header.cells.index(name) for name in names if name in header.cells}
    lines: list[int] = []
    cells: dict[str, list[str]] = {name: [] for name in at}
    inside: list[Inside] = []
    for record in records:
        if not any(map(str.strip, record.cells)):
            continue  # a blank line
        if len(record.text) > 1:
            add_line_breaks(problems, record, columns=at)
            inside += rows_inside(record, columns=at, width=len(header.cells))
        if _is_as_long(record, header, problems):
            # Cells go to their columns at once: rows that are kept cost as much again in garbage collection.
            lines.append(record.line)
            for name, n in at.items():
                cells[name].append(record.cells[n].strip())
        if len(lines) == rows_at_once:
            add_swallowed(problems, inside, columns=cells)
            yield _rows(lines, cells, names=names)
            lines, cells, inside = [], {name: [] for name in at}, []
    add_swallowed(problems, inside, columns=cells)
    if lines:
        yield _rows(lines, cells, names=names)


def _rows(lines: list[int], cells: dict[str, list[str]], *, names: Sequence[str]) -> TextRows:
    """The rows with columns of these names; one that has no cells is blank."""
    blank = [""] * len(lines)
    # Arrow makes columns of text in a fifth of pandas' time.
    columns = {name: pyarrow.array(cells.get(name, blank), pyarrow.large_string()) for name in names}
    return TextRows(lines=np.array(lines, np.int64), cells=pyarrow.table(columns).to_pandas())


def header_of(file: Path) -> list[str]:
    """Names of the columns, stripped.

    Raises:
        UserError: no file, no CSV, or columns that are not separated by commas.
    """
    return _header(file, _records(file)).cells


def _records(file: Path) -> Iterator[Record]:
    """The rows of a file, the header and blank lines among them.

    Raises:
        UserError: no text, or quotes that are not as they should be.
    """
    text: list[str] = []

    def noted() -> Iterator[str]:
        for line in table_lines(file):
            text.append(line)
            yield line

    reader = csv.reader(noted(), strict=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if line == 1 and (separator := _other_separator(text[0])):
                raise _separated(file, separator) from None
            raise misquoted(file, line, text, error) from None
        yield Record(line=line, cells=cells, text=text)
        line += len(text)
        text = []


def _header(file: Path, records: Iterator[Record]) -> Record:
    """The first row that is not blank, with stripped cells.

    Raises:
        UserError: there is none, or it is not separated by commas.
    """
    for record in records:
        names = [name.strip() for name in record.cells]
        if any(names):
            if separator := _other_separator(record.text[0]):
                raise _separated(file, separator)
            return record._replace(cells=names)
    raise UserError(f"{file} has nothing but blank lines; the first row must name the columns")


def _checked_names(
    file: Path, header: Record, *, columns: Sequence[str], optional: Sequence[str], hint: str
) -> list[str]:
    """The columns to read: `columns` and `optional`, or all that have a name.

    Raises:
        UserError: one is not there, or comes twice.
    """
    names = list(dict.fromkeys([*columns, *optional] if columns else filter(None, header.cells)))
    missing = [name for name in columns if name not in header.cells]
    if missing:
        there = ", ".join(name for name in header.cells if name)
        spans = "" if len(header.text) == 1 else f" A quote makes the header {len(header.text)} lines long; {QUOTES}."
        alike = {name: same for name in missing for same in header.cells if same.casefold() == name.casefold()}
        alike_told = "".join(f" Upper and lower case matter: there is {name!r}." for name in alike.values())
        raise UserError(
            f"{file} has no column {', '.join(map(repr, missing))}; it has {there}.{alike_told}{spans} {hint}"
        )
    for name in names:
        places = [str(number) for number, other in enumerate(header.cells, 1) if other == name]
        if len(places) > 1:
            raise UserError(
                f"{file}:{header.line}: {len(places)} columns are called {name!r} (columns {', '.join(places)}); "
                "nobody can tell which is meant: rename or remove all but one"
            )
    return names


def _is_as_long(record: Record, header: Record, problems: Problems) -> bool:
    """Whether a row has a cell for each column, and is not the header once more; what is not goes to `problems`."""
    width, wanted = len(record.cells), len(header.cells)
    if width > wanted:
        problems.add(
            record.line, "row has more cells than the header ({} instead of {}); quote cells that hold commas",
            width, wanted,
        )  # fmt: skip
    elif width < wanted:
        problems.add(
            record.line, "row has fewer cells than the header ({} instead of {}); each needs one per column, blank "
            "or not", width, wanted,
        )  # fmt: skip
    elif record.cells[0].strip() == header.cells[0] and [cell.strip() for cell in record.cells] == header.cells:
        problems.add(record.line, "row repeats the header; remove it")
    else:
        return True
    return False


def _other_separator(line: str) -> str | None:
    """What stands between the names of the columns, where it is no comma."""
    return next((separator for separator in SEPARATORS if line.count(separator) > line.count(",")), None)


def _separated(file: Path, separator: str) -> UserError:
    return UserError(
        f"{file} has its columns separated by {SEPARATORS[separator]} ({separator!r}), not by commas; save it as CSV "
        "with commas, in UTF-8"
    )
