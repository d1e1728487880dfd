"""`dualview evaluate RUN RUN ...`: several finished runs that answer together, on every study of a split.

    RUN/ensemble-XXXXXXXX/operating_points.json   thresholds and calibration, which `dualview predict RUN RUN ...` uses
    RUN/ensemble-XXXXXXXX/members.json            which networks they are
    RUN/ensemble-XXXXXXXX/evaluation-test/        as of one run; predictions.parquet has the spread over networks

RUN is the first of them, or whichever has the folder already; XXXXXXXX is a digest of the weights of all. Nothing is
recorded in wandb.
"""

import json
import logging
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
from rich.progress import Progress

from dualview.commands.evaluate import RunEvaluation, Split
from dualview.commands.evaluation_parts import (
    check_columns,
    form_of_identifiers,
    provenance_of,
    refuse_other_findings,
    refuse_other_patients,
    refuse_other_table,
    resampling_bar,
    train_prevalence,
    trained_patients,
    write_evaluation,
)
from dualview.config import Config
from dualview.data.load import Data
from dualview.data.table import StudyTable
from dualview.distributed import Job, start
from dualview.errors import UserError
from dualview.evaluation.assess import assess
from dualview.evaluation.document import EnsembleMember, EvaluatedCheckpoint, Evaluation, Provenance
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule
from dualview.files import write_whole
from dualview.inference.ensemble import ensemble_id, refuse_unlike_members
from dualview.inference.ensemble_tables import MemberTable, together
from dualview.inference.network_points import log_pos_weight_of, points_from_val, with_several_images
from dualview.inference.network_predictions import predict_studies
from dualview.inference.predictor import find_ensemble, several_images_of
from dualview.inference.studies import can_judge
from dualview.run.datasets import Studies, load_studies, studies_for
from dualview.run.directory import EnsembleDir, EvaluationDir, RunDir
from dualview.run.resume import SEVERAL_IMAGES_KEY, with_overrides
from dualview.run.trained import TrainedNetwork, load_trained
from dualview.views import Availability, View

logger = logging.getLogger(__name__)


def evaluate_ensemble(
    run_dirs: Sequence[Path],
    *,
    split: Split = "test",
    checkpoint_name: str = "best",
    overrides: Sequence[str] = (),
    out: Path | None = None,
    by: list[str] | None = None,
    rule: ThresholdRule | None = None,
    calibrate: bool = False,
    set_thresholds: bool = False,
    settings: EvaluationSettings | None = None,
    progress: Progress,
) -> RunEvaluation:
    """Evaluate the mean logits of several runs; all arguments as of `evaluate_run`, but for the following.

    Args:
        out: folder to write the evaluation to; without it `RUN/ensemble-XXXXXXXX/evaluation-SPLIT`.
        rule, calibrate: as chosen on val by all together. Where there are no operating points of them yet, what is
            chosen here becomes what `dualview predict` uses.
        set_thresholds: it does so in any case.

    Raises:
        UserError: networks that cannot answer together, or whose studies or splits are not the same.
    """
    networks = [load_trained(RunDir(run_dir), name=checkpoint_name) for run_dir in run_dirs]
    refuse_unlike_members(networks)
    home = find_ensemble(networks) or networks[0].run.ensemble(ensemble_id(networks))
    of_all = read_operating_points(home.operating_points)
    changed = [with_overrides(network.config, list(overrides)) for network in networks]
    is_said = any(override.partition("=")[0] == SEVERAL_IMAGES_KEY for override in overrides)
    several = changed[0].data.several_images_at_test if is_said else several_images_of(networks, points=of_all)
    configs = [with_several_images(config, several) for config in changed]
    if rule is not None or calibrate or set_thresholds or (of_all and of_all.several_images_at_test != several):
        used = None
    else:
        used = of_all
    with start(configs[0].run, distributed=configs[0].distributed) as job:
        studies = _studies(networks, configs, overrides=overrides, job=job)
        whole = studies[0].whole
        check_columns(whole.test, by=by)
        weights = [
            log_pos_weight_of(network, train=own.data.train, is_main=job.is_main)
            for network, own in zip(networks, studies, strict=True)
        ]
        names = (split,) if used is not None else tuple(dict.fromkeys(("val", split)))
        _refuse_other_studies(networks, [each.whole for each in studies], configs=configs, splits=names)
        tables = _predictions(
            networks, configs, studies, names=names, weights=weights, home=home, job=job, progress=progress
        )
        sets = set_thresholds or of_all is None
        folder = EvaluationDir(out) if out else home.evaluation(split)
        evaluation = None
        if job.is_main:
            points = used or points_from_val(
                tables["val"], rule=rule or YOUDEN, log_pos_weight=dict.fromkeys(networks[0].findings, 0.0),
                calibrate=calibrate, several_images_at_test=several,
            )  # fmt: skip
            assessment = assess(
                tables[split],
                points=points,
                points_of="run" if used is not None or sets else "evaluation",
                train_prevalence=train_prevalence(_training_split(whole, networks)),
                by=by,
                settings=settings,
                track=resampling_bar(progress),
            )
            evaluation = Evaluation.of(
                _provenance(networks, home=home, split=split, checkpoint_name=checkpoint_name, data=whole,
                            several_images_at_test=several),
                assessment,
            )  # fmt: skip
            write_evaluation(folder, evaluation, table=tables[split], points=points)
            if sets:
                home.path.mkdir(parents=True, exist_ok=True)
                _write_members(home, networks, weights=weights)
                points.write(home.operating_points)
        job.barrier()
    return RunEvaluation(folder=folder.path, home=home.path, evaluation=evaluation, wandb=None)


def _studies(
    networks: Sequence[TrainedNetwork], configs: Sequence[Config], *, overrides: Sequence[str], job: Job
) -> list[Studies]:
    """The studies of each network; a table that several share is read once.

    Raises:
        UserError: problems of the tables, or patients that a network was trained on among those to be evaluated.
    """
    loaded: list[Studies] = []
    for number, (network, config) in enumerate(zip(networks, configs, strict=True)):
        same = [
            earlier for earlier, other in zip(loaded, configs[:number], strict=True)
            if other.data == config.data and other.data_seed == config.data_seed
        ]  # fmt: skip
        studies = studies_for(same[0].whole, config, job=job) if same else None
        studies = studies or load_studies(config, job=job, findings=network.findings)
        refuse_other_patients(network.run, studies.whole.splits, form=form_of_identifiers(config.data))
        refuse_other_findings(network, studies.data.train.findings)
        refuse_other_table(network.run, studies, config=config, overrides=overrides, is_main=job.is_main)
        loaded.append(studies)
    return loaded


def _refuse_other_studies(
    networks: Sequence[TrainedNetwork], data: Sequence[Data], *, configs: Sequence[Config], splits: Sequence[str]
) -> None:
    """Look for what makes the networks' answers to the same study no answers of the same kind.

    Raises:
        UserError: patients of val or test of one that another was trained on, other studies in a split, other labels.
    """
    form = _common_form(configs)
    trained_on = [trained_patients(network.run, form=form) for network in networks]
    for one, other in permutations(range(len(networks)), 2):
        for name in ("val", "test"):
            patients = {form(str(patient)) for patient in data[one].splits[name].patient_ids}
            if leaked := patients & trained_on[other]:
                raise UserError(
                    f"{len(leaked)} patient(s) of the {name} split of {networks[one].run} were trained on by "
                    f"{networks[other].run}: networks that answer together need the same split. Train them with one "
                    "data.seed, or with data.split.file"
                )
    for number, network in enumerate(networks[1:], start=1):
        for name in splits:
            _refuse_unlike_splits(
                data[0].splits[name], data[number].splits[name], name=name, runs=(networks[0].run, network.run)
            )


def _common_form(configs: Sequence[Config]) -> Callable[[str], str]:
    """What identifiers of one patient share; texts as they stand where the data of any run say so."""
    forms = [form_of_identifiers(config.data) for config in configs]
    return str if str in forms else forms[0]


def _refuse_unlike_splits(first: StudyTable, other: StudyTable, *, name: str, runs: tuple[RunDir, RunDir]) -> None:
    """Raises: UserError where two tables have other studies, or other labels of the same."""
    keys = [list(zip(table.patient_ids, table.study_ids, strict=True)) for table in (first, other)]
    if set(keys[0]) != set(keys[1]):
        raise UserError(
            f"the {name} splits of {runs[0]} and {runs[1]} are not the same studies: {len(first)} and {len(other)}, "
            f"{len(set(keys[0]) & set(keys[1]))} of them in common. Networks that answer together need the same data"
        )
    place = {key: row for row, key in enumerate(keys[1])}
    same = other.select(np.array([place[key] for key in keys[0]], np.int64)).with_findings(first.findings)
    differs = (first.label_mask != same.label_mask) | (first.label_mask & (first.positive != same.positive))
    if differs.any():
        finding = first.findings[int(np.flatnonzero(differs.any(axis=0))[0])]
        raise UserError(
            f"{int(differs.sum())} label(s) of the {name} split differ between {runs[0]} and {runs[1]}, the first of "
            f"{finding}: networks that answer together need the same labels"
        )


def _predictions(
    networks: Sequence[TrainedNetwork],
    configs: Sequence[Config],
    studies: Sequence[Studies],
    *,
    names: Sequence[str],
    weights: Sequence[dict[str, float]],
    home: EnsembleDir,
    job: Job,
    progress: Progress,
) -> dict[str, PredictionTable]:
    """What the networks say together of each split; one after the other is on the device.

    Raises:
        UserError: a split without a study that any of them can judge.
    """
    of_members: dict[str, list[MemberTable]] = {name: [] for name in names}
    for network, config, own, of_loss in zip(networks, configs, studies, weights, strict=True):
        network.model.to(job.device)
        tables = predict_studies(
            network, {name: own.evaluated[name] for name in names if len(own.evaluated[name])}, config=config,
            job=job, progress=progress, log_pos_weight=of_loss, bad_images_in=RunDir(home.path),
        )  # fmt: skip
        network.model.cpu()
        for name, table in tables.items():
            of_members[name].append(MemberTable(table, network.config.model, of_loss))
    for name, members in of_members.items():
        if not members:
            raise UserError(f"the {name} split has no study that one of the networks can judge; choose another --split")
    return {name: together(tables, studies=studies[0].whole.splits[name]) for name, tables in of_members.items()}


def _training_split(data: Data, networks: Sequence[TrainedNetwork]) -> StudyTable:
    """The whole training split as the networks see it, also the studies and patients that training left out."""
    views = [view for view in View if any(view in network.config.model.views for network in networks)]
    train = data.whole_splits["train"].seen_by(views, needs_all=False)
    judged = [kind for kind in Availability
              if any(can_judge(network.config.model, (View.PA in kind.views, View.LATERAL in kind.views))
                     for network in networks)]  # fmt: skip
    return train.select(np.flatnonzero(np.isin(train.availability, judged)))


def _provenance(
    networks: Sequence[TrainedNetwork], *, home: EnsembleDir, split: str, checkpoint_name: str, data: Data,
    several_images_at_test: str,
) -> Provenance:  # fmt: skip
    each = [provenance_of(network, split=split, checkpoint_name=checkpoint_name, data=data) for network in networks]
    members = [
        EnsembleMember(
            run=network.run.name,
            checkpoint=EvaluatedCheckpoint(name=checkpoint_name, step=network.step),
            model=network.config.model.name,
            backbone=network.config.model.backbone,
            num_parameters=network.model.num_parameters,
            routes=[route.key for route in network.config.model.routes],
        )
        for network in networks
    ]
    return Provenance(
        run=home.path.name,
        split=split,
        checkpoint=None,
        model=" + ".join(dict.fromkeys(member.model for member in members)),
        backbone=" + ".join(dict.fromkeys(member.backbone for member in members)),
        num_parameters=sum(member.num_parameters for member in members),
        versions=list(dict.fromkeys(version for one in each for version in one.versions)),
        data=each[0].data,
        several_images_at_test=several_images_at_test,  # type: ignore[arg-type]
        members=members,
    )


def _write_members(
    home: EnsembleDir, networks: Sequence[TrainedNetwork], *, weights: Sequence[dict[str, float]]
) -> None:
    members = [
        {"run": network.run.name, "step": network.step, "weights_sha256": network.weights_sha256,
         "log_pos_weight": log_pos_weight}
        for network, log_pos_weight in zip(networks, weights, strict=True)
    ]  # fmt: skip
    write_whole(home.members, json.dumps({"members": members}, indent=2) + "\n")
