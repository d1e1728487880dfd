"""Exceptions that end a run with a message instead of a traceback, and problems told by kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

EXAMPLES = 3  # number of examples of a kind that a message shows
KINDS_SHOWN = 20
LONGEST_LINE = 3_000  # characters of a line of a message; a damaged file can have a name of any length


class UserError(Exception):
    """Something the user can mend. The text says where, what was found, what is allowed, what to do.

    Several problems of one file stand in one text. With several processes, one of them prints it.
    """

    rank: int | None = None  # rank that prints the error; None before a process group exists
    details: Sequence[str] = ()  # every single problem, where the text has only examples
    account: Any = None  # what was read before the problem was found, as `dualview data` shows it

    def __str__(self) -> str:
        return "\n".join(map(_cut, super().__str__().split("\n")))


class Preempted(Exception):
    """The run was asked to stop (SIGTERM, SIGUSR1) and has; everything up to its last step is saved."""


class AnotherRankFailed(Exception):
    """This process ends because of another, which says why itself."""


class BadImage(Exception):
    """An image that cannot be used; `path` is as in the study table, `reason` fits into a sentence."""

    def __init__(self, path: str, *, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def _cut(line: str) -> str:
    """A line as it is, or without its middle where it is too long."""
    half = LONGEST_LINE // 2
    left_out = len(line) - 2 * half
    return line if left_out <= 0 else f"{line[:half]} ... ({left_out:,} characters left out) ... {line[-half:]}"


def one_line(error: Exception, *, longest: int = 200) -> str:
    """What an error says in one line of at most `longest` characters; the name of its kind where it says nothing."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def first_line(error: Exception) -> str:
    """The first line of what an error says; the name of its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def listed(problems: list[str], *, limit: int = 20) -> str:
    """Problems one a line, at most `limit` of them and then how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong, of a kind: problems whose `file`, `template` and `of` are equal are told together."""

    file: str
    place: str  # where in the file, such as its line; blank for the file as a whole
    template: str  # what is wrong, with `{}` for each of `values`
    values: tuple[str, ...] = ()
    of: str = ""  # what keeps kinds with one template apart, such as the column

    def __str__(self) -> str:
        return f"{self.file}{':' if self.place else ''}{self.place}: {self.template.format(*self.values)}"


def told_by_kind(problems: Iterable[Problem], *, what: str = "rows", places: str = "lines") -> str:
    """A line per kind. Up to three problems of a kind are told one by one; of more, their number and examples.

    Where there are too many kinds, those of one template, such as views that are not known, do not hide others.
    """
    kinds: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.file, problem.template, problem.of), []).append(problem)
    alike: dict[tuple[str, str], int] = {}  # number of kinds so far that share file and template
    lines: list[tuple[int, str]] = []
    for (file, template, _), same in kinds.items():
        rank = alike[file, template] = alike.get((file, template), -1) + 1
        if len(same) <= EXAMPLES:
            lines += [(rank, f"  - {problem}") for problem in same]
            continue
        values = (_examples([problem.values[n] for problem in same]) for n in range(len(same[0].values)))
        where = f" ({places} {_examples([problem.place for problem in same])})" if same[0].place else ""
        lines.append((rank, f"  - {file}: {len(same)} {what}{where}: {template.format(*values)}"))
    shown = sorted(sorted(range(len(lines)), key=lambda n: lines[n][0])[:KINDS_SHOWN])
    more = [f"  ... and {len(lines) - KINDS_SHOWN} more kinds"] if len(lines) > KINDS_SHOWN else []
    return "\n".join([*(lines[n][1] for n in shown), *more])


def told_by_reason(bad: Iterable[tuple[str, ...]]) -> str:
    """A line per reason of (path, reason) pairs: up to three images one by one, of more their number and examples."""
    paths: dict[str, list[str]] = {}
    for path, reason in bad:
        paths.setdefault(reason, []).append(path)
    lines = []
    for reason, same in paths.items():
        if len(same) <= EXAMPLES:
            lines += [f"{path}: {reason}" for path in same]
        else:
            lines.append(f"{len(same)} images ({_examples(same)}): {reason}")
    return listed(lines)


def _examples(values: Sequence[str]) -> str:
    """The first three different values."""
    different = list(dict.fromkeys(values))
    return ", ".join(different[:EXAMPLES]) + (", ..." if len(different) > EXAMPLES else "")
