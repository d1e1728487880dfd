"""What `dualview evaluate` adds to Weights & Biases: a run of its own, beside the training run.

    job type   evaluation
    group      that of the training run
    id         RUN_ID-SPLIT-CHECKPOINT, so that evaluating again replaces it
    logged     tables, ROC and precision-recall curves, summary values; evaluation.json as an artifact
               (tracking.log_evaluation); pictures of studies (tracking.num_images)

It is made when the files of the evaluation are written, and no failure of wandb touches these. No identifier of
a patient or study, no path of the data and no name of a host goes into it. Offline, it lies with all its files
in the folder of the evaluation.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from dualview.config import Config
from dualview.data.contact_sheet import study_picture
from dualview.data.dataset import Key, StudyDataset
from dualview.evaluation.document import Evaluation
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores
from dualview.evaluation.prediction_table import PredictionTable, score_of_masking
from dualview.evaluation.wandb_tables import (
    CURVES,
    TableCell,
    curve_rows,
    group_rows,
    operating_point_rows,
    summary_values,
    value_of_lateral_rows,
)
from dualview.run.directory import RunDir
from dualview.run.tracking import staged_in, staging, start_wandb, wandb_settings
from dualview.views import ALL_STUDIES, MASKINGS, TITLES, Availability

logger = logging.getLogger(__name__)

VALUE_OF_LATERAL_TABLE, GROUPS_TABLE, OPERATING_POINTS_TABLE = (
    f"evaluation/{name}" for name in ("value_of_lateral", "groups", "operating_points")
)
WANDB_TABLES = (VALUE_OF_LATERAL_TABLE, GROUPS_TABLE, OPERATING_POINTS_TABLE)
STUDY_IMAGES = "evaluation/studies"
CURVES_CHART = "wandb/area-under-curve/v0"  # chart of wandb that draws x, y and class


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """How an evaluation came into wandb."""

    mode: str  # online, offline or disabled
    dir: Path | None


def evaluation_id(run_id: str, *, split: str, checkpoint_name: str) -> str:
    """The wandb id of an evaluation."""
    return f"{run_id}-{split}-{checkpoint_name}"


def log_evaluation(
    evaluation: Evaluation,
    *,
    table: PredictionTable,
    points: OperatingPoints,
    dataset: StudyDataset,
    evaluation_file: Path,
    config: Config,
    external_name: str | None = None,
) -> EvaluationJob:
    """Record an evaluation in wandb, as `config.tracking` says. Never raises for wandb's sake.

    Args:
        table: predictions of the split, row by row of the dataset.
        points: what makes probabilities of them.
        evaluation_file: where the evaluation is written; wandb's own files go beside it.
        external_name: what other data than the run's own are called. It may be of a file, so wandb gets only a digest.
    """
    folder = evaluation_file.parent
    mode, run = start_wandb(
        config,
        lambda mode: _start(evaluation, of=_whose(evaluation, external_name), folder=folder, config=config, mode=mode),
        otherwise=f"the evaluation is not in wandb; {folder} holds everything",
    )
    if run is None:
        return EvaluationJob(mode=mode, dir=None)
    run_dir = Path(run.dir).parent
    try:
        _forget_earlier(folder / "wandb", run_id=run.id, but=run_dir)
        with staged_in(folder / "wandb", run_id=run.id):
            run.log(_tables(evaluation) | _charts(evaluation, table))
            run.summary.update(summary_values(evaluation))
            if config.tracking.num_images:
                pictures = _pictures(
                    dataset, table, points=points, num=config.tracking.num_images, seed=config.run.seed
                )
                run.log({STUDY_IMAGES: pictures})
            if config.tracking.log_evaluation:
                artifact = wandb.Artifact(f"evaluation-{run.id}", type="evaluation")
                artifact.add_file(str(evaluation_file), name=evaluation_file.name)
                run.log_artifact(artifact)
        run.finish()
    except Exception as error:  # A broken wandb process raises ConnectionResetError and others.
        logger.warning(
            "wandb failed (%s: %s); it may lack parts of the evaluation, %s holds everything",
            type(error).__name__, error, folder,
        )  # fmt: skip
        with suppress(Exception):
            run.finish(exit_code=1)
        return EvaluationJob(mode="disabled", dir=None)
    return EvaluationJob(mode=mode, dir=run_dir)


def _whose(evaluation: Evaluation, external_name: str | None) -> str:
    """The split; of other data a word, what the user has named them, and what tells several apart."""
    if evaluation.external is None or external_name is None:
        return evaluation.split
    digest = hashlib.sha256(external_name.encode()).hexdigest()[:8]
    return f"external-{evaluation.external.name or digest}"


def _start(evaluation: Evaluation, *, of: str, folder: Path, config: Config, mode: str) -> Any:
    run_id = RunDir(config.run.dir).read_id()
    checkpoint = evaluation.checkpoint
    assert checkpoint is not None, "only runs are tracked"
    which = "" if checkpoint.name == "best" else f" {checkpoint.name}"
    return wandb.init(
        project=config.tracking.project,
        job_type="evaluation",
        group=config.tracking.group or run_id,
        name=f"{config.tracking.name or evaluation.run} {of}{which}",
        id=evaluation_id(run_id, split=of, checkpoint_name=checkpoint.name),
        tags=config.tracking.tags,
        config={
            "trained_run": run_id,
            "split": of,
            "checkpoint": asdict(checkpoint),
            "model": {"name": evaluation.model, "backbone": evaluation.backbone},
            "num_parameters": evaluation.num_parameters,
            "settings": asdict(evaluation.settings),
        },
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        reinit="create_new",
        settings=wandb_settings(
            # Left to wandb, these send what the machine does and its packages.
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )


def _forget_earlier(wandb_dir: Path, *, run_id: str, but: Path) -> None:
    """Remove what the same evaluation has left here offline."""
    for old in (*wandb_dir.glob(f"offline-run-*-{run_id}"), staging(wandb_dir, run_id=run_id)):
        if old.resolve() != but.resolve():
            shutil.rmtree(old, ignore_errors=True)


# -- tables and values -----------------------------------------------------------------------------


def _tables(evaluation: Evaluation) -> dict[str, Any]:
    made = {GROUPS_TABLE: group_rows(evaluation), OPERATING_POINTS_TABLE: operating_point_rows(evaluation)}
    if evaluation.masked is not None:
        made[VALUE_OF_LATERAL_TABLE] = value_of_lateral_rows(evaluation)
    return {name: _table(columns, rows) for name, (columns, rows) in made.items()}


def _table(columns: list[str], rows: list[list[TableCell]]) -> wandb.Table:
    return wandb.Table(columns=[*columns], data=[*rows])


# -- curves ----------------------------------------------------------------------------------------


def _charts(evaluation: Evaluation, table: PredictionTable) -> dict[str, Any]:
    """ROC and precision-recall, a line for each finding: of complete studies by masking, else of all studies."""
    charts = {}
    studies = table.select(table.evaluated)
    scores = {ALL_STUDIES: "route"}
    if evaluation.masked is not None:
        studies = studies.select(studies.availability == Availability.BOTH)
        scores = {masking: score_of_masking(masking) for masking in MASKINGS}
    for name, score in scores.items():
        rows = curve_rows(studies, score=score)
        for key, (what, axes) in CURVES.items():
            charts[f"evaluation/{key}_{name}"] = wandb.plot_table(
                CURVES_CHART,
                _table(["class", "x", "y"], rows[key]),
                {"x": "x", "y": "y", "class": "class"},
                {"title": f"{what}, {TITLES[name]}", "x-axis-title": axes[0], "y-axis-title": axes[1]},
            )
    return charts


# -- images ----------------------------------------------------------------------------------------


def _pictures(
    dataset: StudyDataset, table: PredictionTable, *, points: OperatingPoints, num: int, seed: int
) -> list[wandb.Image]:
    return [
        wandb.Image(
            study_picture(dataset[Key(epoch=0, row=row)].images, size=dataset.image_size_px),
            caption=caption(table, row=row, points=points),
        )
        for row in chosen_studies(table, num=num, seed=seed)
    ]


def chosen_studies(table: PredictionTable, *, num: int, seed: int) -> list[int]:
    """Rows of `num` random studies, in turn of both views, PA only and lateral only as far as there are any."""
    generator = np.random.default_rng(seed)
    rows_by_kind = [
        generator.permutation(np.flatnonzero(table.evaluated & (table.availability == kind))) for kind in Availability
    ]
    in_turn: Iterator[int] = (int(row) for rows in zip_longest(*rows_by_kind) for row in rows if row is not None)
    return list(islice(in_turn, num))


def caption(table: PredictionTable, *, row: int, points: OperatingPoints) -> str:
    """Views, probabilities as the evaluation takes them, and labels of a study.

    Such as `both: Nodule 0.93 (positive), Hernia 0.01 (unknown)`.
    """
    study = table.select(np.array([row]))
    said = []
    for k, probability in enumerate(calibrated_scores(study, score="route", points=points)[0]):
        label = "positive" if study.positive[0, k] else "negative"
        label = label if study.label_mask[0, k] else "unknown"
        said.append(f"{study.findings[k]} {probability:.2f} ({label})")
    return f"{Availability(study.availability[0]).key}: {', '.join(said)}"
