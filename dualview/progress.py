"""Progress bars, on the process that speaks."""

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]  # (items, their number, description) -> the same items


def progress_bars(*, shown: bool, console: Console | None = None, transient: bool = False) -> Progress:
    """Bars with what is being done, how much of it, time taken and time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not shown,
        console=console,
        transient=transient,
    )


def tracked_by(progress: Progress) -> Track:
    """Go through items while a bar of `progress` shows how many of them are done."""

    def track(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        return progress.track(items, total=total, description=description)

    return track
