"""Progress bars, on the process that speaks."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


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
