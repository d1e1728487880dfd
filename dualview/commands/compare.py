"""A comparison from its file to its table: train what is not there, then put the predictions side by side."""

import logging
import statistics
from pathlib import Path

from rich.progress import Progress

from dualview.comparison.choice import choose_on_val
from dualview.comparison.folds import out_of_fold_file, read_folds
from dualview.comparison.plan import Plan, PlannedRun
from dualview.comparison.result import compare_predictions
from dualview.comparison.runs import is_finished, train_all
from dualview.comparison.tables import Comparison, Cost, write_tables
from dualview.data.load import load_data
from dualview.errors import UserError, listed
from dualview.evaluation.column_writer import write_prediction_columns
from dualview.evaluation.prediction_table import PredictionTable, read_predictions
from dualview.run import metric_keys
from dualview.run.directory import RunDir

logger = logging.getLogger(__name__)


def compare(
    plan: Plan, *, jobs: int = 1, launch: Path | None = None, only: int | None = None, progress: Progress
) -> Comparison | None:
    """Train the runs of a plan that are not finished, and compare all; None where `only` one run was asked for.

    Args:
        jobs: runs at a time.
        launch: Accelerate configuration file that starts each run on several processes.
        only: number of the one run to train, for a task of a Slurm array.

    Raises:
        UserError: runs that failed, or finished runs with other settings.
        Preempted: a signal came.
    """
    if only is not None and not 0 <= only < len(plan.runs):
        raise UserError(f"--only {only}: the comparison has runs 0 to {len(plan.runs) - 1}")
    wanted = plan.runs if only is None else [plan.runs[only]]
    missing = [run for run in wanted if not is_finished(run)]
    if len(wanted) > len(missing):
        logger.info("%d of %d runs are there already", len(wanted) - len(missing), len(wanted))
    bar = progress.add_task("training runs", total=len(wanted), completed=len(wanted) - len(missing))
    if only is None:
        _refuse_impossible_folds(missing)
    problems = train_all(missing, jobs=jobs, launch=launch, done=lambda _run: progress.advance(bar))
    progress.remove_task(bar)
    if problems:
        raise UserError(
            f"{len(problems)} of {len(missing)} run(s) failed\n{listed(problems)}\n"
            "The others are kept: mend these and start the same command again"
        )
    if only is not None:
        return None
    predictions = _predictions(plan, split="test")
    without_val = [run.name for run in plan.runs if not RunDir(run.config.run.dir).predictions("val").is_file()]
    rows = compare_predictions(
        predictions,
        baseline=plan.compare.baseline,
        num_resamples=plan.compare.resamples,
        confidence=plan.compare.confidence,
        track=lambda keys: progress.track(keys, description="resampling patients"),
    )
    costs = {
        key: _cost([run.config.run.dir for run in plan.runs if (run.setting, run.variant) == key])
        for key in predictions
    }
    comparison = Comparison(
        plan=plan,
        rows=rows,
        costs=costs,
        choices={} if without_val else choose_on_val(_predictions(plan, split="val"), baseline=plan.compare.baseline),
        without_val=without_val,
    )
    write_tables(comparison)
    return comparison


def _refuse_impossible_folds(runs: list[PlannedRun]) -> None:
    """Divide the patients of each setting once, before every run finds out by itself.

    Raises:
        UserError: the table cannot be read, or its patients cannot be divided into these folds.
    """
    first = {run.setting: run for run in reversed(runs) if run.fold is not None}
    for run in first.values():
        load_data(run.config.data.model_copy(update={"check_files": False}), seed=run.config.data_seed)


def _predictions(plan: Plan, *, split: str) -> dict[tuple[str, str], list[PredictionTable]]:
    """(setting, variant) -> predictions of each seed, of all folds together; those of test are written for `assess`."""
    predictions: dict[tuple[str, str], list[PredictionTable]] = {}
    folds: dict[tuple[str, str, int], dict[int, PlannedRun]] = {}
    for run in plan.runs:
        if run.fold is None:
            predictions.setdefault((run.setting, run.variant), []).append(
                read_predictions(RunDir(run.config.run.dir).predictions(split))
            )
        else:
            folds.setdefault((run.setting, run.variant, run.seed), {})[run.fold] = run
    for (setting, variant, _), runs in folds.items():
        table = read_folds(runs, split=split)
        predictions.setdefault((setting, variant), []).append(table)
        if split == "test":
            write_prediction_columns(out_of_fold_file(runs[1]), table)
    return predictions


def _cost(run_dirs: list[Path]) -> Cost:
    speeds: list[float] = []
    num_parameters = 0
    for run_dir in run_dirs:
        for record in RunDir(run_dir).read_log():
            if (speed := record.get(metric_keys.IMAGES_PER_SECOND)) is not None:
                speeds.append(speed)
            num_parameters = record.get("summary", {}).get(metric_keys.NUM_PARAMETERS, num_parameters)
    return Cost(num_parameters=num_parameters, images_per_second=statistics.median(speeds) if speeds else None)
