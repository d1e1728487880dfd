"""`dualview evaluate RUN`: a finished run on every study of a split, complete ones also with a view withheld.

    RUN/evaluation-test/predictions.parquet   what the network says (evaluation/prediction_table.py)
    RUN/evaluation-test/evaluation.json       what that is worth (evaluation/document.py)
    RUN/evaluation-test/operating_points.json calibration and thresholds: those of the run, or of this evaluation alone

and the same, but for the predictions, as a run of wandb (evaluation/wandb_run.py).

With any number of processes; every study is predicted once, and all come out alike.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.progress import Progress

from dualview.config import Config
from dualview.data.counts import count_data
from dualview.data.load import Data
from dualview.data.sources.identifiers import form_of
from dualview.data.sources.text_table import text_rows
from dualview.data.table import StudyTable
from dualview.distributed import start
from dualview.errors import UserError
from dualview.evaluation.assess import assess
from dualview.evaluation.calibrate import fit_calibration
from dualview.evaluation.document import EvaluatedCheckpoint, Evaluation, Provenance
from dualview.evaluation.evaluator import Evaluator
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import OperatingPoints, choose_operating_points
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.split import as_predictions
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule
from dualview.evaluation.subgroups import columns_of
from dualview.evaluation.wandb_run import EvaluationJob, log_evaluation
from dualview.run.bad_images import BadImages
from dualview.run.datasets import load_studies
from dualview.run.directory import EvaluationDir, RunDir
from dualview.run.resume import with_overrides
from dualview.run.trained import TrainedNetwork, load_trained, log_of
from dualview.training.learner import counted_pos_weight
from dualview.views import Availability

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """Where an evaluation was written, and what it says."""

    folder: Path
    evaluation: Evaluation | None  # None on ranks other than 0
    wandb: EvaluationJob | None  # None on ranks other than 0


def evaluate_run(
    run_dir: Path,
    *,
    split: Split = "test",
    checkpoint_name: str = "best",
    overrides: list[str] | None = None,
    out: Path | None = None,
    by: list[str] | None = None,
    rule: ThresholdRule | None = None,
    calibrate: bool = False,
    set_thresholds: bool = False,
    settings: EvaluationSettings | None = None,
    progress: Progress,
) -> RunEvaluation:
    """Evaluate a checkpoint of a run and write the result.

    Args:
        split: whose studies are evaluated; thresholds and calibration are those of val in any case.
        checkpoint_name: `best`, `last`, or a step.
        overrides: `section.field=value` for where the data are and what reads them, such as data.root.
        out: folder to write to; without it `RUN/evaluation-SPLIT`, for another checkpoint than best with its name.
        by: columns of the study table, or two of them joined by +, to divide by (evaluation/subgroups.py).
        rule: by which thresholds are chosen on val, for this evaluation; None: those of the run, or, where it has none
            that can be used, by Youden's index.
        calibrate: fit probabilities on val, by Platt or by a temperature (evaluation/calibrate.py).
        set_thresholds: make what is chosen and fitted here that of the run, which `dualview predict` uses.

    Raises:
        UserError: no such run or checkpoint, an override that changes what was learned, or data that are not
            those of the run.
    """
    run = RunDir(run_dir)
    network = load_trained(run, name=checkpoint_name)
    if set_thresholds and not network.is_best:
        raise UserError(
            f"--set-thresholds is for the best checkpoint, and {checkpoint_name} is not: {run.operating_points} is of "
            "the best. Those of another checkpoint lie beside its evaluation, without this option"
        )
    config = with_overrides(network.config, overrides or [])
    with start(config.run, distributed=config.distributed) as job:
        network.model.to(job.device)
        studies = load_studies(config, job=job, findings=network.findings)
        whole, data = studies.whole, studies.data
        there = whole.test.attributes
        has = f"the study table has {', '.join(there) or 'none (for csv, name them in data.attributes)'}"
        columns_of(by or (), there=there, otherwise=has)
        are_exact = any(source.identifiers == "exact" for source in config.data.all_sources)
        _refuse_other_patients(run, whole.splits, form=str if are_exact else form_of)
        if data.train.findings != network.findings:
            raise UserError(
                f"the data have the findings {', '.join(data.train.findings)}; the run was trained on "
                f"{', '.join(network.findings)}"
            )
        if not len(studies.evaluated[split]):
            raise UserError(f"the {split} split has no study; choose another --split")
        log_pos_weight = _log_pos_weight(network, train=data.train, is_main=job.is_main)
        evaluator = Evaluator(
            model=network.model, config=config, job=job, progress=progress,
            bad_images=BadImages(run, policy=config.data.on_bad_image, job=job), log_pos_weight=log_pos_weight,
        )  # fmt: skip
        of_run = None
        if rule is None and not calibrate and not set_thresholds:
            of_run = job.share(_points_of_run(network) if job.is_main else None)
        tables = {
            name: as_predictions(evaluator.evaluate(studies.evaluated[name], name=name, hide_views=True))
            for name in ((split,) if of_run is not None else dict.fromkeys(("val", split)))
        }
        folder = EvaluationDir(out) if out else run.evaluation(split, checkpoint=checkpoint_name)
        evaluation = None
        if job.is_main:
            points = of_run or _points(
                tables["val"], rule=rule or YOUDEN, log_pos_weight=log_pos_weight, calibrate=calibrate
            )
            assessment = assess(
                tables[split],
                points=points,
                points_of="run" if of_run is not None or set_thresholds else "evaluation",
                train_prevalence=train_prevalence(_training_split(data, config)),
                by=by,
                settings=settings,
                track=_bar(progress),
            )
            provenance = _provenance(network, split=split, checkpoint_name=checkpoint_name, data=_data_card(whole))
            evaluation = Evaluation.of(provenance, assessment)
            folder.path.mkdir(parents=True, exist_ok=True)
            tables[split].write(folder.predictions)
            evaluation.write(folder.evaluation)
            points.write(folder.operating_points)
            if set_thresholds:
                points.write(run.operating_points)
        job.barrier()
    tracked = None
    if evaluation is not None:
        # The process group is closed by now, because an upload may be slow.
        tracked = log_evaluation(
            evaluation,
            table=tables[split],
            points=points,
            dataset=studies.evaluated[split],
            evaluation_file=folder.evaluation,
            config=config,
        )
    return RunEvaluation(folder=folder.path, evaluation=evaluation, wandb=tracked)


def _log_pos_weight(network: TrainedNetwork, *, train: StudyTable, is_main: bool) -> dict[str, float]:
    """What the loss has added to the logits: as the checkpoint says, or counted anew for one that is too old to say."""
    if network.log_pos_weight is not None:
        return network.log_pos_weight
    if is_main:
        logger.warning(
            "checkpoint %s is of a dualview that did not keep the weights of loss.pos_weight, which make probabilities "
            "too high. They are counted anew on the training studies of the table, and undone", network.folder.name,
        )  # fmt: skip
    return log_of(counted_pos_weight(train, network.config.loss), findings=network.findings)


def _points_of_run(network: TrainedNetwork) -> OperatingPoints | None:
    """The operating points of the run; None where they are of another checkpoint, absent or of an older dualview."""
    file = network.run.operating_points
    if not network.is_best:
        return None
    points = read_operating_points(file)
    if points is None:
        logger.warning("%s is not there, thresholds are chosen on val; --set-thresholds writes it", file)
    elif points.log_pos_weight is None and not network.is_unweighted:
        logger.warning(
            "%s is of a dualview that did not undo loss.pos_weight; thresholds are chosen on val for this evaluation, "
            "and `dualview predict` goes on with those of then. --set-thresholds writes it anew", file,
        )  # fmt: skip
        return None
    return points


def _points(
    val: PredictionTable, *, rule: ThresholdRule, log_pos_weight: dict[str, float], calibrate: bool
) -> OperatingPoints:
    """Calibration and thresholds from val; says what is calibrated how."""
    if not calibrate:
        return choose_operating_points(val, rule=rule, log_pos_weight=log_pos_weight)
    fitted = fit_calibration(val, log_pos_weight=log_pos_weight)
    for sentence in fitted.said:
        logger.info("calibrated on val, %s", sentence)
    return choose_operating_points(
        val, rule=rule, log_pos_weight=log_pos_weight, temperatures=fitted.temperature, platt=fitted.platt
    )


def _training_split(data: Data, config: Config) -> StudyTable:
    """The whole training split as the network sees it, also the studies and patients that training left out."""
    train, model = data.whole_splits["train"], config.model
    return train.seen_by(model.views, needs_all=True) if model.needs_all_views else train


def train_prevalence(train: StudyTable) -> np.ndarray:
    """(3, K) share of positives among the known labels of the training studies of each `Availability`; NaN: none."""
    shares = np.full((len(Availability), len(train.findings)), np.nan)
    for kind in Availability:
        rows = train.availability == kind
        known = train.label_mask[rows].sum(axis=0)
        shares[kind] = np.where(known > 0, train.positive[rows].sum(axis=0) / np.maximum(known, 1), np.nan)
    return shares


def _refuse_other_patients(run: RunDir, splits: dict[str, StudyTable], *, form: Callable[[str], str]) -> None:
    """Look for patients that were trained on, as the run's split.csv says, among those to be evaluated.

    Args:
        form: what identifiers of one patient share.

    Raises:
        UserError: there are some.
    """
    file = run.split
    if not file.exists():
        raise UserError(f"{file} is not there; without it nobody knows which patients the run was trained on")
    rows = text_rows(file, columns=["patient", "split"], hint="It is written by training").cells
    trained_on = set(rows["patient"][rows["split"] == "train"].map(form))
    for name in ("val", "test"):
        leaked = trained_on & {form(str(patient)) for patient in splits[name].patient_ids}
        if leaked:
            raise UserError(
                f"{len(leaked)} patient(s) of the {name} split were trained on, as {file} says: the table has changed "
                f"since. Restore it, or give the old split: data.split.file={file}"
            )


def _provenance(network: TrainedNetwork, *, split: str, checkpoint_name: str, data: dict[str, Any]) -> Provenance:
    header = (network.folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    return Provenance(
        run=network.run.name,
        split=split,
        checkpoint=EvaluatedCheckpoint(name=checkpoint_name, step=network.step),
        model=network.config.model.name,
        backbone=network.config.model.backbone,
        num_parameters=network.model.num_parameters,
        versions=[line.removeprefix("# ") for line in header if line.startswith("#")],
        data=data,
    )


def _data_card(data: Data) -> dict[str, Any]:
    """Counts of the data without anything that names an image."""
    return {key: value for key, value in count_data(data).items() if key not in ("known_bad_images", "sources")}


def _bar(progress: Progress) -> Callable[[list[Any]], Iterable[Any]]:
    return lambda looks: progress.track(looks, description="resampling patients")
