"""`dualview evaluate RUN`: a finished run on every study of a split, complete ones also with a view withheld.

    RUN/evaluation-test/predictions.parquet   what the network says (evaluation/prediction_table.py)
    RUN/evaluation-test/evaluation.json       what that is worth (evaluation/document.py)
    RUN/evaluation-test/operating_points.json calibration and thresholds: those of the run, or of this evaluation alone

and the same, but for the predictions, as a run of wandb (evaluation/wandb_run.py).

With any number of processes; every study is predicted once, and all come out alike.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from dualview import __version__
from dualview.commands.evaluation_parts import (
    check_columns,
    folder_of,
    form_of_identifiers,
    provenance_of,
    refuse_other_findings,
    refuse_other_patients,
    refuse_other_table,
    resampling_bar,
    train_prevalence,
    training_split,
    write_evaluation,
)
from dualview.distributed import start
from dualview.errors import UserError
from dualview.evaluation.account import study_account
from dualview.evaluation.assess import assess
from dualview.evaluation.document import Evaluation
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule
from dualview.evaluation.wandb_run import EvaluationJob, log_evaluation
from dualview.inference.network_points import (
    log_pos_weight_of,
    points_from_val,
    points_of_run,
    warn_of_scores,
    with_images_of_points,
)
from dualview.inference.network_predictions import predict_studies
from dualview.run.datasets import load_studies
from dualview.run.directory import RunDir
from dualview.run.resume import with_overrides
from dualview.run.trained import load_trained

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """Where an evaluation was written, and what it says."""

    folder: Path
    home: Path  # directory whose operating points `dualview predict` uses
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
    folder = folder_of(run, out, usual=run.evaluation(split, checkpoint=checkpoint_name))
    config = with_overrides(network.config, overrides or [])
    config = with_images_of_points(config, network, overrides=overrides or [])
    several_images = config.data.several_images_at_test
    with start(config.run, distributed=config.distributed) as job:
        network.model.to(job.device)
        studies = load_studies(config, job=job, findings=network.findings)
        check_columns(studies.whole.test, by=by)
        refuse_other_patients(run, studies.whole.splits, form=form_of_identifiers(config.data))
        refuse_other_findings(network, studies.data.train.findings)
        refuse_other_table(run, studies, config=config, overrides=overrides or [], is_main=job.is_main)
        if not len(studies.evaluated[split]):
            raise UserError(f"the {split} split has no study; choose another --split")
        log_pos_weight = log_pos_weight_of(network, train=studies.data.train, is_main=job.is_main)
        of_run = None
        if rule is None and not calibrate and not set_thresholds:
            of_run = job.share(points_of_run(network, several_images_at_test=several_images) if job.is_main else None)
        names = (split,) if of_run is not None else dict.fromkeys(("val", split))
        tables = predict_studies(
            network, {name: studies.evaluated[name] for name in names},
            config=config, job=job, progress=progress, log_pos_weight=log_pos_weight,
        )  # fmt: skip
        evaluation = None
        if job.is_main:
            points = of_run or points_from_val(
                tables["val"], rule=rule or YOUDEN, log_pos_weight=log_pos_weight, calibrate=calibrate,
                several_images_at_test=several_images,
            )  # fmt: skip
            warn_of_scores(network, points)
            assessment = assess(
                tables[split],
                points=points,
                points_of="run" if of_run is not None or set_thresholds else "evaluation",
                train_prevalence=train_prevalence(training_split(studies.data, config)),
                by=by,
                settings=settings,
                track=resampling_bar(progress),
            )
            account = study_account(
                config, whole=studies.whole, taken=studies.data, split=split, table=tables[split],
                came=studies.evaluated[split].table, network=network, checkpoint_name=checkpoint_name,
                software=f"dualview {__version__}",
            )  # fmt: skip
            provenance = provenance_of(
                network, split=split, checkpoint_name=checkpoint_name, data=studies.whole, account=account,
                several_images_at_test=several_images,
            )  # fmt: skip
            evaluation = Evaluation.of(provenance, assessment)
            write_evaluation(folder, evaluation, table=tables[split], points=points)
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
    return RunEvaluation(folder=folder.path, home=run_dir, evaluation=evaluation, wandb=tracked)
