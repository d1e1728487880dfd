"""What a run has left behind, as the report reads it: nothing is trained or predicted here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualview.config import Config
from dualview.config.load import load_of_run
from dualview.errors import UserError, listed
from dualview.evaluation.document import Evaluation
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import PredictionTable, read_predictions
from dualview.run.directory import EnsembleDir, EvaluationDir, RunDir
from dualview.views import ROUTES

OWN_TEST = "evaluation-test"
"""Folder of the evaluation that a report is about where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run and an evaluation of it, on test or on other data, or predictions that `dualview assess` was given."""

    run: RunDir
    folder: EvaluationDir  # where the evaluation lies
    name: str  # name of the directory, unique on the page
    evaluation: Evaluation
    predictions: PredictionTable  # predictions of the studies that could be evaluated
    metrics: list[dict[str, Any]]  # lines of metrics.jsonl
    config: Config | None  # None: predictions of another software
    points: OperatingPoints  # those that the evaluation used

    @property
    def findings(self) -> tuple[str, ...]:
        return self.predictions.findings

    def probabilities(self, score: str) -> np.ndarray:
        """(S, K) probabilities as the evaluation took them, NaN where there are none."""
        return calibrated_scores(self.predictions, score=score, points=self.points)

    def studies_digest(self) -> str:
        """Equal for runs that were tested on the same studies. Not for the page: identifiers can be guessed from it."""
        pairs = zip(self.predictions.study_ids, self.predictions.patient_ids, strict=True)
        return hashlib.sha256("\n".join(sorted(f"{study}\0{patient}" for study, patient in pairs)).encode()).hexdigest()

    def series(self, key: str) -> tuple[list[int], list[float | None]]:
        """Steps and values of a key of metrics.jsonl, null where it was not finite."""
        rows = [(line["step"], line[key]) for line in self.metrics if "step" in line and key in line]
        return [step for step, _ in rows], [value for _, value in rows]


def read_records(run_dirs: Sequence[Path], *, evaluation: str = OWN_TEST) -> list[Record]:
    """What the report reads of each run directory.

    Args:
        evaluation: folder in each run whose evaluation is read.

    Raises:
        UserError: a directory is no run or has no evaluation; all of them at once.
    """
    runs = [RunDir(run_dir) for run_dir in run_dirs]
    problems = [problem for run in runs if (problem := _problem(run, evaluation))]
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else f"{len(problems)} runs\n{listed(problems)}")
    names: list[str] = []
    for run in runs:
        # The folder of an evaluation of several runs together is called by their digest.
        is_of_ensemble = EnsembleDir(run.path.resolve().parent).members.is_file()
        name = run.path.resolve().parent.name if is_of_ensemble else run.name
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    return [_read(run, name=name, of=evaluation) for run, name in zip(runs, names, strict=True)]


def _problem(run: RunDir, evaluation: str) -> str | None:
    if not run.config.is_file():
        if _is_complete(EvaluationDir(run.path)) or _is_complete(EvaluationDir(run.path / evaluation)):
            return None
        return f"{run} is no run directory: it has no config.yaml. Give the directory that `dualview train` printed"
    if evaluation == OWN_TEST and not _is_complete(run.evaluation("test")):
        return f"{run} has no evaluation on test yet. Make it with: dualview evaluate {run}"
    if not _is_complete(EvaluationDir(run.path / evaluation)):
        there = sorted(folder.parent.name for folder in run.path.glob("*/evaluation.json"))
        return f"{run} has no evaluation '{evaluation}'. There are: {', '.join(there) or 'none'}"
    return None


def _is_complete(folder: EvaluationDir) -> bool:
    return folder.evaluation.is_file() and folder.predictions.is_file()


def _read(run: RunDir, *, name: str, of: str) -> Record:
    is_run = run.config.is_file()
    # The folder of several runs together holds evaluations as a run does.
    has_inside = is_run or _is_complete(EvaluationDir(run.path / of))
    folder = EvaluationDir(run.path / of if has_inside else run.path)
    remedy = f"anew with: dualview evaluate {run}" if is_run else "anew with dualview assess"
    evaluation = Evaluation.from_json(
        folder.evaluation.read_bytes(), file=folder.evaluation, remedy=f"Make it {remedy}"
    )
    if not is_run and evaluation.checkpoint is not None:
        raise UserError(f"{run} is the evaluation of a run, and no run: give the directory of the run")
    predictions = read_predictions(folder.predictions)
    if list(predictions.findings) != evaluation.findings:
        raise UserError(
            f"{folder}: {folder.evaluation.name} and {folder.predictions.name} have different findings. Make them "
            f"{remedy}"
        )
    return Record(
        run=run,
        folder=folder,
        name=name,
        evaluation=evaluation,
        predictions=predictions.select(predictions.evaluated),
        metrics=run.read_log(),
        config=load_of_run(run.config) if is_run else None,
        points=_points(run, folder=folder, evaluation=evaluation),
    )


def _points(run: RunDir, *, folder: EvaluationDir, evaluation: Evaluation) -> OperatingPoints:
    """The operating points of an evaluation, which lie beside it; of an older one its temperatures, and the run's."""
    own = read_operating_points(folder.operating_points)
    if own is not None:
        return own
    of_run = read_operating_points(run.operating_points)
    routes = of_run.routes if of_run is not None and of_run.log_pos_weight is None else {route: {} for route in ROUTES}
    return OperatingPoints(rule="", chosen_on="", temperature=evaluation.temperature, routes=routes)
