"""The one exception that dualview shows to its user as a message, without a traceback."""


class UserError(Exception):
    """Something the user can mend. The text says where, what was found, what is allowed, what to do.

    Several problems of one file stand in one text. Every rank raises it together with the others, and
    only the main process prints it.
    """


def listed(problems: list[str], *, limit: int = 20) -> str:
    """Problems one a line, at most `limit` of them and then how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
