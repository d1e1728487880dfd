"""Cells of a CSV or parquet file that another software wrote, as texts and numbers, each with its place.

What a file is, its first bytes say. Of a CSV every cell is text; in parquet a column has a type.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import header_of, text_rows
from dualview.errors import UserError

PARQUET = b"PAR1"
NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


class Numbers(NamedTuple):
    """A column of S cells as numbers."""

    values: np.ndarray  # (S,) float64, NaN where there is no finite number
    is_blank: np.ndarray  # (S,) bool; a cell that is neither blank nor a finite number is wrong
    found: np.ndarray  # (S,) as it stands in the file, for messages


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Columns of a file; what is wrong with its rows goes to `problems`."""

    lines: np.ndarray  # (S,) int64: of a CSV the line that each row begins in, of parquet the row, from 1
    columns: dict[str, pyarrow.ChunkedArray]
    problems: Problems

    @property
    def file(self) -> Path:
        return self.problems.file

    def texts(self, name: str) -> np.ndarray:
        """(S,) str, stripped, blank where there is nothing.

        Raises:
            UserError: the column has a type that does not keep texts as they were, such as a number with a fraction.
        """
        column = _decoded(self.columns[name])
        if not (_is_text(column.type) or pyarrow.types.is_integer(column.type)):
            raise UserError(
                f"{self.file}: column {name!r} is stored as {column.type}, which does not keep what was written (007, "
                "331a); store it as text"
            )
        return _stripped(column)

    def values(self, name: str) -> np.ndarray:
        """(S,) str of a column of any plain type; whole numbers have no fraction, as in 63.

        Raises:
            UserError: the column holds lists or the like.
        """
        column = _decoded(self.columns[name])
        if pyarrow.types.is_floating(column.type):
            numbers = column.to_numpy().astype(np.float64)
            return np.array(["" if np.isnan(number) else f"{number:.12g}" for number in numbers], object)
        try:
            return _stripped(column)
        except pyarrow.ArrowException:
            raise UserError(f"{self.file}: column {name!r} is stored as {column.type}; store it as text") from None

    def numbers(self, name: str) -> Numbers:
        """The column as numbers; of a type that holds none, no cell is one."""
        column = _decoded(self.columns[name])
        kind = column.type
        if pyarrow.types.is_decimal(kind) or pyarrow.types.is_boolean(kind):
            column, kind = column.cast(pyarrow.float64()), pyarrow.float64()
        if pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind):
            values = column.to_numpy().astype(np.float64)
            return Numbers(np.where(np.isfinite(values), values, np.nan), np.isnan(values), values)
        texts = _stripped(column) if _is_text(kind) else np.array([f"({kind})"] * len(column), object)
        is_blank = texts == ""
        values = np.full(len(texts), np.nan)
        values[~is_blank] = _parsed(texts[~is_blank])
        return Numbers(values, is_blank, texts)


def names_of_columns(file: Path) -> list[str]:
    """Names of the columns, in the order of the file.

    Raises:
        UserError: no such file, or neither CSV nor parquet.
    """
    return _parquet_names(file) if _is_parquet(file) else header_of(file)


def read_cells(file: Path, *, columns: Sequence[str]) -> Cells:
    """These columns of a file that has them.

    Raises:
        UserError: the file cannot be read, has no rows, or has two columns of one name.
    """
    if not _is_parquet(file):
        problems = Problems(file)
        rows = text_rows(file, columns=columns, hint="", problems=problems)
        texts = {name: pyarrow.chunked_array([pyarrow.array(rows.cells[name], pyarrow.string())]) for name in columns}
        return Cells(lines=rows.lines, columns=texts, problems=problems)
    names = _parquet_names(file)
    if twice := [name for name in columns if names.count(name) > 1]:
        raise UserError(
            f"{file}: {names.count(twice[0])} columns are called {twice[0]!r}; nobody can tell which is meant: rename "
            "or remove all but one"
        )
    try:
        table = pyarrow.parquet.ParquetFile(file).read(columns=list(columns))
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(file, error) from None
    if not len(table):
        raise UserError(f"{file} has no rows")
    lines = np.arange(1, len(table) + 1)
    problems = Problems(file, names={int(line): f"row {line}" for line in lines})
    return Cells(lines=lines, columns={name: table.column(name) for name in columns}, problems=problems)


def _is_parquet(file: Path) -> bool:
    if not file.is_file():
        raise UserError(f"no such table: {file}")
    with file.open("rb") as raw:
        return raw.read(len(PARQUET)) == PARQUET


def _parquet_names(file: Path) -> list[str]:
    try:
        return list(pyarrow.parquet.read_schema(file).names)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file} is a parquet file that cannot be read: {error}. Write or copy it again")


def _decoded(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """A column of categories as what the categories are."""
    return column.cast(column.type.value_type) if pyarrow.types.is_dictionary(column.type) else column


def _is_text(kind: pyarrow.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pyarrow.types.is_string,
            pyarrow.types.is_large_string,
            pyarrow.types.is_string_view,
            pyarrow.types.is_null,
        )
    )


def _stripped(column: pyarrow.ChunkedArray) -> np.ndarray:
    texts = column.cast(pyarrow.large_string()).fill_null("")
    stripped: np.ndarray = pyarrow.compute.utf8_trim_whitespace(texts).to_numpy().astype(object)
    return stripped


def _parsed(texts: np.ndarray) -> np.ndarray:
    """(S,) float64 of texts that are not blank, to the last digit; NaN where one is no finite number."""
    try:
        values: np.ndarray = pyarrow.array(texts, pyarrow.string()).cast(pyarrow.float64()).to_numpy()
    except pyarrow.ArrowInvalid:
        are_numbers = pd.Series(texts, dtype=object).str.fullmatch(NUMBER).to_numpy(bool)
        values = np.full(len(texts), np.nan)
        values[are_numbers] = texts[are_numbers].astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)
