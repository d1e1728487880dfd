"""What is wrong with the rows of a table, to be reported together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dualview.errors import Problem, UserError, told_by_kind


class Problems:
    """What is wrong with the rows of one file, or of several read one after another, to be reported together.

    Args:
        file: the file, or the first of them.
        more: (what is added to its line numbers, file) of each further one.
        most: how many are kept, for a table that is longer than the memory; None for all.
    """

    def __init__(self, file: Path, *, more: Sequence[tuple[int, Path]] = (), most: int | None = None) -> None:
        self.file = file
        self.more = more
        self.most = most
        self.found: list[tuple[int, str, tuple[str, ...], str]] = []  # line, template, values, of

    def add(self, line: int, template: str, *values: object, of: str = "") -> None:
        """Problems with equal `template` and `of` are of one kind.

        Args:
            line: in the file.
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
            problems.append(Problem(file=str(file), place=str(within), template=template, values=values, of=of))
        files = " and ".join(dict.fromkeys(problem.file for problem in problems))
        error = UserError(f"{files} has {len(problems)} problem(s)\n{told_by_kind(problems)}")
        error.details = [str(problem) for problem in problems]
        error.account = account and (account,)
        raise error
