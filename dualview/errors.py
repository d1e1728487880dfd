"""Exceptions that end a run with a message instead of a traceback."""


class UserError(Exception):
    """Something the user can mend. The text says where, what was found, what is allowed, what to do.

    Several problems of one file stand in one text. With several processes, one of them prints it.
    """

    rank: int | None = None  # rank that prints the error; None before a process group exists


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


def listed(problems: list[str], *, limit: int = 20) -> str:
    """Problems one a line, at most `limit` of them and then how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
