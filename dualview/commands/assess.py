"""`dualview assess PREDICTIONS`: what the predictions of any software are worth, by the statistics of `evaluate`.

DIR/evaluation.json         what they are worth (evaluation/document.py)
DIR/predictions.parquet     the predictions as they were read (evaluation/prediction_table.py)
DIR/operating_points.json   thresholds that were chosen on val
DIR/report.html             the page, which `dualview report DIR RUN ...` also puts beside others
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from dualview import __version__
from dualview.commands.report import write_report
from dualview.comparison.folds import FOLD, about_folds
from dualview.data.sources.identifiers import form_of
from dualview.errors import UserError
from dualview.evaluation.account import account_of_predictions
from dualview.evaluation.assess import assess
from dualview.evaluation.cells import names_of_columns
from dualview.evaluation.document import Evaluation, Provenance
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import OWN_RULE, choose_operating_points, no_operating_points
from dualview.evaluation.prediction_columns import read_prediction_columns, read_train_prevalence
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule
from dualview.run.directory import EvaluationDir, RunDir

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FileAssessment:
    """Where an assessment was written, and what it says."""

    folder: Path
    report: Path
    evaluation: Evaluation


def assess_file(
    predictions: Path,
    *,
    val: Path | None = None,
    train_prevalence: Path | None = None,
    out: Path | None = None,
    rule: ThresholdRule | None = None,
    by: list[str] | None = None,
    settings: EvaluationSettings | None = None,
    progress: Progress,
) -> FileAssessment:
    """Assess a file of predictions and write the result and its report.

    Args:
        val: predictions of other patients, on which thresholds are chosen; None: there are no thresholds.
        train_prevalence: shares of positives in training, which the availability alone predicts.
        out: folder to write to; without it `NAME-assessment` beside `NAME.csv` or `NAME.parquet`.
        rule: by which thresholds are chosen on val; None: by Youden's index.
        by: further columns of the file to divide by.

    Raises:
        UserError: a file that is not as docs/evaluation.md says, or a folder that holds something else.
    """
    if rule is not None and val is None:
        raise UserError(
            f"--threshold {rule}: thresholds are chosen on val; give its predictions, --val FILE, in the same columns"
        )
    folder = EvaluationDir(out or predictions.parent / f"{_name(predictions)}-assessment")
    _refuse_to_overwrite(folder, inputs=[file for file in (predictions, val, train_prevalence) if file is not None])
    has_folds = FOLD in names_of_columns(predictions)
    read = read_prediction_columns(predictions, by=list(dict.fromkeys([*(by or ()), *([FOLD] if has_folds else [])])))
    table, remarks = read.table, read.remarks
    if val is not None and table.thresholds:
        raise UserError(f"{predictions} has thresholds of its own (threshold:F); leave --val out, or those columns")
    points = (
        no_operating_points(table.findings, rule=OWN_RULE, reason="no study has a threshold")
        if table.thresholds
        else no_operating_points(table.findings)
    )
    if val is not None:
        of_val = read_prediction_columns(val, findings=table.findings)
        _refuse_shared_patients(predictions, table, val=val, val_table=of_val.table)
        points = choose_operating_points(of_val.table, rule=rule or YOUDEN)
        remarks += of_val.remarks
    shares = None if train_prevalence is None else read_train_prevalence(train_prevalence, table=table)
    about = about_folds(table)
    for remark in [*remarks, *([about] if about else [])]:
        logger.warning("%s", remark)
    assessment = assess(
        table,
        points=points,
        train_prevalence=shares,
        by=by or [],
        settings=settings,
        track=lambda looks: progress.track(looks, description="resampling patients"),
    )
    provenance = Provenance(
        run=folder.path.resolve().name, split="test", checkpoint=None, model=None, backbone=None, num_parameters=None,
        versions=[f"assessed by dualview {__version__}", *([about] if about else [])], data={},
        account=account_of_predictions(table, software=f"dualview {__version__}"),
    )  # fmt: skip
    evaluation = Evaluation.of(provenance, assessment)
    folder.path.mkdir(parents=True, exist_ok=True)
    table.write(folder.predictions)
    evaluation.write(folder.evaluation)
    points.write(folder.operating_points)
    return FileAssessment(folder=folder.path, report=write_report([folder.path]), evaluation=evaluation)


def _name(file: Path) -> str:
    """The name of a file without what says its format: `model.v2` of `model.v2.csv.gz`.

    >>> _name(Path("of/model.v2.csv.gz")), _name(Path("model.parquet"))
    ('model.v2', 'model')
    """
    return re.sub(r"(?i)\.(csv|parquet|pq)(\.\w+)?$", "", file.name)


def _refuse_to_overwrite(folder: EvaluationDir, *, inputs: list[Path]) -> None:
    """Look for what this command would write over.

    Raises:
        UserError: the folder is a run, holds an evaluation of one, or one of the files to read.
    """
    written = {file.resolve() for file in (folder.predictions, folder.evaluation, folder.operating_points)}
    if same := [file for file in inputs if file.resolve() in written]:
        raise UserError(f"{same[0]} would be written over; choose another folder with --out")
    is_of_run = RunDir(folder.path).config.exists()
    if folder.evaluation.exists():
        is_of_run |= Evaluation.from_json(folder.evaluation.read_bytes(), file=folder.evaluation).checkpoint is not None
    if is_of_run:
        raise UserError(f"{folder} holds a run or its evaluation, which stays; choose another folder with --out")


def _refuse_shared_patients(
    predictions: Path, table: PredictionTable, *, val: Path, val_table: PredictionTable
) -> None:
    """Raises: UserError where a patient is among those that thresholds are chosen on and among those of the test."""
    shared = set(map(form_of, table.patient_ids)) & set(map(form_of, val_table.patient_ids))
    if shared:
        raise UserError(
            f"{len(shared)} patient(s) are in {val} and in {predictions}; thresholds that were chosen on patients of "
            "the test look better than they are: keep the patients of val and test apart"
        )
