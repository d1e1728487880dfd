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

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from dualview.config import Config
from dualview.data.contact_sheet import study_picture
from dualview.data.dataset import Key, StudyDataset
from dualview.evaluation.assess import METRICS, Document
from dualview.evaluation.prediction_table import HIDDEN, ROUTES, Predictions
from dualview.evaluation.statistics.curves import precision_recall_points, roc_points
from dualview.run_directory import RUN_ID
from dualview.tracking import staged_in, staging, start_wandb, wandb_settings
from dualview.views import Availability

logger = logging.getLogger(__name__)

VALUE_OF_LATERAL, GROUPS, OPERATING_POINTS = "value_of_lateral", "groups", "operating_points"
TABLES = tuple(f"evaluation/{name}" for name in (VALUE_OF_LATERAL, GROUPS, OPERATING_POINTS))
IMAGES = "evaluation/studies"
CURVES = "wandb/area-under-curve/v0"  # the chart of wandb that draws x, y and class
MASKED = {"both": "both views", "lateral_hidden": "lateral withheld", "pa_hidden": "PA withheld"}
NATURAL = {
    "all": "all studies",
    "both": "came with both views",
    "pa_only": "came with PA only",
    "lateral_only": "came with lateral only",
}
Cell = str | float | int | None
Rows = tuple[list[str], list[list[Cell]]]  # columns and data of a table


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """How an evaluation came into wandb."""

    mode: str  # online, offline or disabled
    dir: Path | None


def evaluation_id(run_id: str, *, split: str, checkpoint_name: str) -> str:
    """The wandb id of an evaluation."""
    return f"{run_id}-{split}-{checkpoint_name}"


def log_evaluation(
    document: Document, *, predictions: Predictions, dataset: StudyDataset, evaluation_file: Path, config: Config
) -> EvaluationJob:
    """Record an evaluation in wandb, as `config.tracking` says. Never raises for wandb's sake.

    Args:
        predictions: of the split, row by row of the dataset.
        evaluation_file: where the document is written; wandb's own files go beside it.
    """
    folder = evaluation_file.parent
    mode, run = start_wandb(
        config,
        lambda mode: _start(document, folder=folder, config=config, mode=mode),
        otherwise=f"the evaluation is not in wandb; {folder} holds everything",
    )
    if run is None:
        return EvaluationJob(mode=mode, dir=None)
    run_dir = Path(run.dir).parent
    try:
        _forget_earlier(folder / "wandb", run_id=run.id, but=run_dir)
        with staged_in(folder / "wandb", run_id=run.id):
            run.log(_tables(document) | _charts(document, predictions))
            run.summary.update(summary_values(document))
            if config.tracking.num_images:
                run.log({IMAGES: _pictures(dataset, predictions, num=config.tracking.num_images, seed=config.run.seed)})
            if config.tracking.log_evaluation:
                artifact = wandb.Artifact(f"evaluation-{run.id}", type="evaluation")
                artifact.add_file(str(evaluation_file), name=evaluation_file.name)
                run.log_artifact(artifact)
        run.finish()
    except Exception as error:  # a broken wandb process raises ConnectionResetError and others
        logger.warning(
            "wandb failed (%s: %s); it may lack parts of the evaluation, %s holds everything",
            type(error).__name__, error, folder,
        )  # fmt: skip
        with suppress(Exception):
            run.finish(exit_code=1)
        return EvaluationJob(mode="disabled", dir=None)
    return EvaluationJob(mode=mode, dir=run_dir)


def _start(document: Document, *, folder: Path, config: Config, mode: str) -> Any:
    run_id = (config.run.dir / RUN_ID).read_text(encoding="utf-8").strip()
    split, checkpoint = document["split"], document["checkpoint"]
    which = "" if checkpoint["name"] == "best" else f" {checkpoint['name']}"
    return wandb.init(
        project=config.tracking.project,
        job_type="evaluation",
        group=config.tracking.group or run_id,
        name=f"{config.tracking.name or document['run']} {split}{which}",
        id=evaluation_id(run_id, split=split, checkpoint_name=checkpoint["name"]),
        tags=config.tracking.tags,
        config={
            "trained_run": run_id,
            "split": split,
            "checkpoint": checkpoint,
            "model": {"name": document["model"], "backbone": document["backbone"]},
            "num_parameters": document["num_parameters"],
            "settings": document["settings"],
        },
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        reinit="create_new",
        settings=wandb_settings(
            host="",  # of this and the next three, each would send the name of the machine, the command or its packages
            x_disable_meta=True,
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


def _tables(document: Document) -> dict[str, Any]:
    made = {GROUPS: group_rows(document), OPERATING_POINTS: operating_point_rows(document)}
    if document["masked"] is not None:
        made[VALUE_OF_LATERAL] = value_of_lateral_rows(document)
    return {f"evaluation/{name}": _table(columns, rows) for name, (columns, rows) in made.items()}


def _table(columns: list[str], rows: list[list[Cell]]) -> wandb.Table:
    return wandb.Table(columns=[*columns], data=[*rows])


def value_of_lateral_rows(document: Document) -> Rows:
    """Per finding, and macro: complete studies scored three ways, and what they gain by the lateral view."""
    masked = document["masked"]
    value = masked["value_of_lateral"]
    columns = ["finding", "positive", *(f"AUROC {title}" for title in MASKED.values())]
    columns += ["difference", "low", "high", "simultaneous low", "simultaneous high", "lateral"]
    rows: list[list[Cell]] = []
    for finding, gained in value["findings"].items():
        scored = [masked[name]["findings"][finding] for name in MASKED]
        aurocs = [of_score["auroc"]["value"] for of_score in scored]
        bounds = [gained["auroc"][bound] for bound in ("value", "low", "high", "simultaneous_low", "simultaneous_high")]
        rows.append([finding, scored[0]["num_positive"], *aurocs, *bounds, gained["verdict"]])
    macros = [masked[name]["macro"]["auroc"]["value"] for name in MASKED]
    rows.append(["macro", None, *macros, *_bounds(value["macro"]["auroc"]), None, None, None])
    return columns, rows


def group_rows(document: Document) -> Rows:
    """Macro metrics of every way in which a view is missing, and of what knows nothing but that."""
    columns = ["studies are", "number"]
    for title in ("AUROC", "average precision", "Brier"):
        columns += [title, f"{title} low", f"{title} high"]
    rows: list[list[Cell]] = [
        [title, look["num_studies"], *(bound for metric in METRICS for bound in _bounds(look["macro"][metric]))]
        for title, look in _looks(document).items()
    ]
    baseline = document["availability_baseline"]
    if baseline is not None:
        bounds = _bounds(baseline["macro"]["auroc"])
        rows.append(["all studies, judged by which views exist", document["num_studies"], *bounds, *[None] * 6])
    return columns, rows


def operating_point_rows(document: Document) -> Rows:
    """What the thresholds chosen on val do here; studies of several routes have several, and no one threshold."""
    rates = ("sensitivity", "specificity", "positive_predictive_value", "negative_predictive_value")
    cells = ("true_positive", "false_positive", "true_negative", "false_negative")
    columns = ["studies are", "finding", "threshold"]
    for rate in rates:
        title = rate.replace("_", " ")
        columns += [title, f"{title} low", f"{title} high"]
    columns += [cell.replace("_", " ") for cell in cells]
    rows: list[list[Cell]] = []
    for title, look in _looks(document).items():
        for finding, of_finding in look["findings"].items():
            point = of_finding["operating_point"]
            if point is not None:
                bounds = [bound for rate in rates for bound in _bounds(point[rate])]
                rows.append([title, finding, point["threshold"], *bounds, *(point[cell] for cell in cells)])
    return columns, rows


def summary_values(document: Document) -> dict[str, float | int]:
    """`evaluation/auroc_macro_both`, ..., `evaluation/num_helped`, ...; what is undefined is left out."""
    masked = document["masked"] or {}
    looks = document["groups"] | {name: masked[name] for name in MASKED if name in masked}
    values = {
        f"evaluation/{metric}_macro_{name}": look["macro"][metric]["value"]
        for name, look in looks.items()
        for metric in METRICS
    }
    if masked:
        value = masked["value_of_lateral"]
        values["evaluation/auroc_macro_value_of_lateral"] = value["macro"]["auroc"]["value"]
        values |= {f"evaluation/num_{verdict}": len(value[verdict]) for verdict in ("helped", "hurt", "undecided")}
    return {key: number for key, number in values.items() if number is not None}


def _looks(document: Document) -> dict[str, Document]:
    """By title: the masked scores of complete studies, then the studies as they came; only those with studies."""
    masked = document["masked"] or {}
    looks = {title: masked[name] for name, title in MASKED.items() if name in masked}
    looks |= {title: document["groups"][name] for name, title in NATURAL.items()}
    return {title: look for title, look in looks.items() if look["num_studies"]}


def _bounds(interval: Document) -> list[Cell]:
    return [interval[bound] for bound in ("value", "low", "high")]


# -- curves ----------------------------------------------------------------------------------------


def _charts(document: Document, predictions: Predictions) -> dict[str, Any]:
    """ROC and precision-recall, a line for each finding: of complete studies by masking, else of all studies."""
    charts = {}
    studies = predictions.select(predictions.evaluated)
    looks = {"all": ("all studies", "route")}
    if document["masked"] is not None:
        studies = studies.select(studies.availability == Availability.BOTH)
        looks = {"both": (MASKED["both"], "route")} | {name: (MASKED[name], name) for name in HIDDEN.values()}
    for name, (title, score) in looks.items():
        roc, precision_recall = curve_rows(studies, score=score)
        for key, what, axes, rows in (
            ("roc", "ROC", ("false positive rate", "sensitivity"), roc),
            ("precision_recall", "precision and recall", ("recall", "precision"), precision_recall),
        ):
            charts[f"evaluation/{key}_{name}"] = wandb.plot_table(
                CURVES,
                _table(["class", "x", "y"], rows),
                {"x": "x", "y": "y", "class": "class"},
                {"title": f"{what}, {title}", "x-axis-title": axes[0], "y-axis-title": axes[1]},
            )
    return charts


def curve_rows(studies: Predictions, *, score: str) -> tuple[list[list[Cell]], list[list[Cell]]]:
    """ROC and precision-recall points as rows of finding, x and y; findings of one class only have none."""
    roc: list[list[Cell]] = []
    precision_recall: list[list[Cell]] = []
    for k, finding in enumerate(studies.findings):
        scores = studies.scores[score][:, k]
        known = studies.label_mask[:, k] & np.isfinite(scores)
        positive = studies.labels[known, k] > 0.5
        if positive.any() and not positive.all():
            roc += [[finding, x, y] for x, y in roc_points(scores[known], positive=positive)]
            points = precision_recall_points(scores[known], positive=positive)
            precision_recall += [[finding, x, y] for x, y in points]
    return roc, precision_recall


# -- images ----------------------------------------------------------------------------------------


def _pictures(dataset: StudyDataset, predictions: Predictions, *, num: int, seed: int) -> list[wandb.Image]:
    return [
        wandb.Image(
            study_picture(dataset[Key(epoch=0, row=row)].images, size=dataset.image_size_px),
            caption=caption(predictions, row=row),
        )
        for row in chosen_studies(predictions, num=num, seed=seed)
    ]


def chosen_studies(predictions: Predictions, *, num: int, seed: int) -> list[int]:
    """Rows of `num` random studies, in turn of both views, PA only and lateral only as far as there are any."""
    generator = np.random.default_rng(seed)
    of_kind = [
        generator.permutation(np.flatnonzero(predictions.evaluated & (predictions.availability == kind)))
        for kind in Availability
    ]
    in_turn: Iterator[int] = (int(row) for rows in zip_longest(*of_kind) for row in rows if row is not None)
    return list(islice(in_turn, num))


def caption(predictions: Predictions, *, row: int) -> str:
    """Views, probabilities and labels of a study, such as `both: Nodule 0.93 (positive), Hernia 0.01 (unknown)`."""
    said = []
    for k, finding in enumerate(predictions.findings):
        label = "positive" if predictions.labels[row, k] > 0.5 else "negative"
        label = label if predictions.label_mask[row, k] else "unknown"
        said.append(f"{finding} {predictions.scores['route'][row, k]:.2f} ({label})")
    return f"{ROUTES[predictions.availability[row]]}: {', '.join(said)}"
