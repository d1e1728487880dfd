"""Quotes of a table in text: those that are opened twice, never closed, or hold whole rows, and where they are."""

import csv
import re
from pathlib import Path
from typing import NamedTuple

from dualview.data.sources.problems import Problems
from dualview.errors import UserError

QUOTES = 'double the quotes within a cell (""), and close what is opened'


class Record(NamedTuple):
    """A row as it is read."""

    line: int  # in which it begins
    cells: list[str]
    text: list[str]  # the physical lines it takes


class Inside(NamedTuple):
    """A line within a quoted cell that has as many cells as the table has columns, or more."""

    opened: int  # line in which the quote opens
    line: int
    cells: list[str]  # of the columns that are read, in their order


def add_line_breaks(problems: Problems, record: Record, *, columns: dict[str, int]) -> None:
    """Add cells that go over several lines, among those that are read: no identifier, path or label does."""
    for name, n in columns.items():
        cell = record.cells[n].strip() if n < len(record.cells) else ""
        if "\n" in cell or "\r" in cell:
            quoted = next(quoted for quoted in _quoted(record.text) if quoted.cell == n)
            problems.add(
                record.line + quoted.opens,
                "{} opens a quote that closes in line {}, with line breaks between; " + QUOTES,
                name,
                record.line + quoted.closes,
                of=name,
            )


def rows_inside(record: Record, *, columns: dict[str, int], width: int) -> list[Inside]:
    """The lines within quoted cells that could be rows of the table.

    One of `width` cells could, and so could a longer one, whose text may have a comma: then its first cells may be
    those of the columns, or its last. A quote in it may be a ditto mark that ends no cell.
    """
    lines = [
        (number, cells)
        for number, line in enumerate(record.text[1:], 1)
        for cells in (next(csv.reader([line]), []), line.rstrip("\r\n").split(","))
        if len(cells) >= width
    ]
    inside = []
    for quoted in _quoted(record.text) if lines else []:
        for number, cells in lines:
            if quoted.opens < number <= quoted.closes:
                for shift in {0, len(cells) - width}:
                    read = [cells[n + shift].strip() for n in columns.values()]
                    inside.append(Inside(record.line + quoted.opens, record.line + number, read))
    return inside


def add_swallowed(problems: Problems, inside: list[Inside], *, columns: dict[str, list[str]]) -> None:
    """Add the lines within cells that look like rows: each cell has what all of its column have, and nothing new."""
    if not inside:
        return
    kinds = [set(map(_kinds, cells)) for cells in columns.values()]
    always = [frozenset.intersection(*of_column) if of_column else frozenset() for of_column in kinds]
    ever = [frozenset[str]().union(*of_column) for of_column in kinds]
    told = set()
    for opened, line, cells in inside:
        if (
            line not in told
            and any(cells)
            and all(least <= _kinds(cell) <= most for cell, least, most in zip(cells, always, ever, strict=True))
        ):
            told.add(line)
            problems.add(
                opened, "a quote that opens here swallows line {}, which looks like a row of the table; " + QUOTES, line
            )


def _kinds(cell: str) -> frozenset[str]:
    """What a cell is made of: words with digits are 9, others are a, and what stands between them is itself.

    >>> sorted(_kinds("img/7f3a_PA.png")), sorted(_kinds("2020-01-31")), sorted(_kinds(""))
    (['.', '/', '9', '_', 'a'], ['-', '9'], [])
    """
    return frozenset(re.sub(r"[^\W_]+", lambda word: "9" if any(map(str.isdigit, word[0])) else "a", cell))


class _Quoted(NamedTuple):
    """Where a quoted cell of a row is; lines are counted from the row's first, which is 0."""

    cell: int
    opens: int
    closes: int  # a quote that is never closed closes in the last line


def _quoted(text: list[str]) -> list[_Quoted]:
    """The quoted cells of a row, by the rules of RFC 4180."""
    found: list[_Quoted] = []
    cell, opens, is_start = 0, -1, True  # `opens` is -1 outside quotes
    for number, line in enumerate(text):
        characters = iter(range(len(line)))
        for n in characters:
            if opens >= 0:
                if line[n] == '"':
                    if line[n + 1 : n + 2] == '"':
                        next(characters)
                    else:
                        found.append(_Quoted(cell, opens, number))
                        opens = -1
                continue
            if line[n] == '"' and is_start:
                opens = number
            elif line[n] == ",":
                cell += 1
            is_start = line[n] == ","
    return found if opens < 0 else [*found, _Quoted(cell, opens, len(text) - 1)]


def misquoted(file: Path, line: int, text: list[str], error: csv.Error) -> UserError:
    """What is wrong with the quotes of a row that begins in `line` and was read up to the end of `text`."""
    last = line + len(text) - 1
    quoted = _quoted(text)
    if "limit" in str(error):
        opened = line + quoted[-1].opens if quoted else line
        return UserError(
            f"{file}:{opened}: a cell has more than {csv.field_size_limit():,} characters; is a quote opened and not "
            f"closed? {QUOTES.capitalize()}"
        )
    if "end of data" in str(error):
        return UserError(
            f"{file}:{line + quoted[-1].opens}: cell {quoted[-1].cell + 1} opens a quote that is never closed (the "
            f"file ends in line {last}); {QUOTES}"
        )
    opened, cell = next(((line + one.opens, one.cell + 1) for one in quoted if one.closes == len(text) - 1), (line, 1))
    if opened < last:
        return UserError(
            f"{file}:{opened}: cell {cell} opens a quote that is not closed before line {last}, where text follows the "
            f"next quote; {QUOTES}"
        )
    return UserError(f"{file}:{opened}: text follows the quote that closes cell {cell}; {QUOTES}")
