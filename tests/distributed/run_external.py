"""What several processes do together: an evaluation on other data."""

from pathlib import Path

from dualview.commands.external import Request, evaluate_on
from dualview.evaluation.looks import EvaluationSettings
from dualview.progress import progress_bars


def run_external(run: Path, *, config: Path, name: str) -> None:
    """Evaluate the run on the data of the file, and set 40 patients aside."""
    with progress_bars(shown=False) as progress:
        evaluate_on(
            run,
            Request(config=config, name=name, recalibrate_on=40),
            settings=EvaluationSettings(num_resamples=50),
            progress=progress,
        )
