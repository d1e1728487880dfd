"""What is wrong with the rows of a table, to be reported together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from dualview.errors import Problem, UserError, told_by_kind


class Problems:
    """What is wrong with the rows of one file, or of several read one after another, to be reported together.

    Args:
        file: the file, or the first of them.
        more: (what is added to its line numbers, file) of each further one.
        names: what is said instead of a line's number, by line.
        most: how many are kept, for a table that is longer than the memory; None for all.
    """

    def __init__(
        self,
        file: Path,
        *,
        more: Sequence[tuple[int, Path]] = (),
        names: Mapping[int, str] = MappingProxyType({}),
        most: int | None = None,
    ) -> None:
        self.file = file
        self.more = more
        self.names = names
        self.most = most
        self.found: list[tuple[int, str, tuple[str, ...], str]] = []  # line, template, values, of

    def add(self, line: int, template: str, *values: object, of: str = "") -> None:
        """Problems with equal `template` and `of` are of one kind.

        Args:
            line: in the file; 0 for the file as a whole.
            template: what is wrong and what to do, with `{}` for each of the values; it holds no text of users.
            values: what was found.
            of: what keeps kinds with one template apart, such as the column.
        """
        if self.most is None or len(self.found) < self.most:
            self.found.append((int(line), template, tuple(map(str, values)), of))

    def place(self, line: int) -> tuple[Path, int]:
        """The file and the line in it."""
        raised, file = max([(0, self.file), *(entry for entry in self.more if entry[0] < line)])
        return file, line - raised

    def line(self, line: int) -> str:
        """How a sentence names a line."""
        file, within = self.place(line)
        if line in self.names:
            return self.names[line]
        return f"line {within} of {file.name}" if self.more else f"line {within}"

    def raise_if_any(self, *, account: Any = None) -> None:
        """Raise what was added, by kind, with examples; the error has every single one in its `details`.

        Args:
            account: the `ReadImages` of what was read until then.

        Raises:
            UserError: naming file:line.
        """
        if not self.found:
            return
        problems = []
        for line, template, values, of in sorted(self.found):
            file, within = self.place(line)
            place = self.names.get(line, str(within) if line else "")
            problems.append(Problem(file=str(file), place=place, template=template, values=values, of=of))
        files = " and ".join(dict.fromkeys(problem.file for problem in problems))
        error = UserError(f"{files} has {len(problems)} problem(s)\n{told_by_kind(problems)}")
        error.details = [str(problem) for problem in problems]
        error.account = account and (account,)
        raise error


def repeated(keys: np.ndarray) -> list[tuple[int, int]]:
    """(position, position of the first that is equal) of each key that comes again."""
    codes, _ = pd.factorize(keys)
    first = np.full(codes.max(initial=-1) + 1, len(codes))
    np.minimum.at(first, codes, np.arange(len(codes)))
    again = np.flatnonzero(first[codes] != np.arange(len(codes)))
    return [(int(n), int(first[codes[n]])) for n in again]
