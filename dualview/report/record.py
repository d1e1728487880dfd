"""What a run has left behind, as the report reads it: nothing is trained or predicted here."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualview.commands.evaluate import EVALUATION, PREDICTIONS
from dualview.config import Config, load
from dualview.errors import UserError, listed
from dualview.evaluation.document import Evaluation
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores, read_operating_points
from dualview.evaluation.prediction_table import PredictionTable, read_predictions
from dualview.files import read_json_lines

TEST_EVALUATION = "evaluation-test"
NOT_SHOWN = "(a path, not shown)"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run and its evaluation on test."""

    run_dir: Path
    name: str  # of the directory, told apart from those of other runs of the page
    evaluation: Evaluation
    predictions: PredictionTable  # of the studies that could be evaluated
    metrics: list[dict[str, Any]]  # the lines of metrics.jsonl
    config: Config
    points: OperatingPoints | None

    @property
    def findings(self) -> tuple[str, ...]:
        return self.predictions.findings

    def probabilities(self, score: str) -> np.ndarray:
        """(S, K) probabilities as the evaluation took them, NaN where there are none."""
        return calibrated_scores(self.predictions, score=score, temperature=self.evaluation.temperature)

    def studies_digest(self) -> str:
        """Equal for runs that were tested on the same studies. Not for the page: identifiers can be guessed from it."""
        pairs = zip(self.predictions.study_ids, self.predictions.patient_ids, strict=True)
        return hashlib.sha256("\n".join(sorted(f"{study}\0{patient}" for study, patient in pairs)).encode()).hexdigest()

    def series(self, key: str) -> tuple[list[int], list[float | None]]:
        """Steps and values of a key of metrics.jsonl, null where it was not finite."""
        rows = [(line["step"], line[key]) for line in self.metrics if "step" in line and key in line]
        return [step for step, _ in rows], [value for _, value in rows]


def read_records(run_dirs: Sequence[Path]) -> list[Record]:
    """Read runs.

    Raises:
        UserError: a directory is no run or has no evaluation; all of them at once.
    """
    problems = [problem for run_dir in run_dirs if (problem := _problem(run_dir))]
    if problems:
        raise UserError(problems[0] if len(problems) == 1 else f"{len(problems)} runs\n{listed(problems)}")
    names: list[str] = []
    for run_dir in run_dirs:
        name = run_dir.resolve().name
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    return [_read(run_dir, name=name) for run_dir, name in zip(run_dirs, names, strict=True)]


def _problem(run_dir: Path) -> str | None:
    if not (run_dir / "config.yaml").is_file():
        return f"{run_dir} is no run directory: it has no config.yaml. Give the directory that `dualview train` printed"
    if not all((run_dir / TEST_EVALUATION / file).is_file() for file in (EVALUATION, PREDICTIONS)):
        return f"{run_dir} has no evaluation on test yet. Make it with: dualview evaluate {run_dir}"
    return None


def _read(run_dir: Path, *, name: str) -> Record:
    file = run_dir / TEST_EVALUATION / EVALUATION
    remedy = f"Make it anew with: dualview evaluate {run_dir}"
    evaluation = Evaluation.from_json(file.read_bytes(), file=file, remedy=remedy)
    predictions = read_predictions(run_dir / TEST_EVALUATION / PREDICTIONS)
    if list(predictions.findings) != evaluation.findings:
        raise UserError(
            f"{run_dir / TEST_EVALUATION}: {EVALUATION} and {PREDICTIONS} have different findings. "
            f"Make them anew with: dualview evaluate {run_dir}"
        )
    return Record(
        run_dir=run_dir,
        name=name,
        evaluation=evaluation,
        predictions=predictions.select(predictions.evaluated),
        metrics=read_json_lines(run_dir / "metrics.jsonl"),
        config=load(run_dir / "config.yaml", refuse_unused=False),
        points=read_operating_points(run_dir),
    )


def public_settings(config: Config) -> dict[str, Any]:
    """The settings without paths, which name machines, people and folders."""
    plain = config.model_dump(mode="json")
    public: dict[str, Any] = _without_paths(config.model_dump(), plain)
    return public


def _without_paths(value: Any, plain: Any) -> Any:
    """`plain` with a notice in the place of every path of `value`, its twin with Python's types."""
    if isinstance(value, Path) or (isinstance(value, str) and _is_absolute(value)):
        return NOT_SHOWN
    if isinstance(value, dict):
        return {
            key: _without_paths(typed, twin) for typed, (key, twin) in zip(value.values(), plain.items(), strict=True)
        }
    if isinstance(value, list | tuple):
        return [_without_paths(typed, twin) for typed, twin in zip(value, plain, strict=True)]
    return plain


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~", "\\\\")) or text[1:3] in (":\\", ":/")
