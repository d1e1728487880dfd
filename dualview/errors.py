"""The one exception that dualview shows to its user as a message, without a traceback."""


class UserError(Exception):
    """Something the user can mend. The text says where, what was found, what is allowed, what to do.

    Args:
        message: complete for the reader; several problems of one file stand in it together.
        on_this_rank_only: True where other ranks cannot know of it (a truncated image, say), so
            that the rank that found it must speak. Otherwise every rank meets the same error and
            only the main process prints it.
    """

    def __init__(self, message: str, *, on_this_rank_only: bool = False) -> None:
        super().__init__(message)
        self.on_this_rank_only = on_this_rank_only


def listed(problems: list[str], *, limit: int = 20) -> str:
    """Problems one a line, at most `limit` of them and then how many more there are."""
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)
