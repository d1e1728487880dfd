"""`dualview evaluate RUN --on CONFIG`: a finished run on the studies of another hospital or data set.

    RUN/external-NAME/predictions.parquet   what the network says of those evaluated (evaluation/prediction_table.py)
    RUN/external-NAME/evaluation.json       what that is worth, and against the run's own test (evaluation/document.py)
    RUN/external-NAME/operating_points.json those of the run, which were used
    RUN/external-NAME/recalibrated_operating_points.json   with --recalibrate-on
    RUN/external-NAME/bad_images.txt        images that could not be read, if any

Nothing else of the run is written. With any number of processes; every study is predicted once.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.progress import Progress

from dualview import __version__
from dualview.commands.evaluation_parts import check_columns, folder_of, provenance_of, resampling_bar, write_evaluation
from dualview.config import Config
from dualview.config.load import load_data_section
from dualview.data.counts import count_tables
from dualview.data.finding_match import FindingMatch, match_findings, parse_maps, with_matched
from dualview.data.load import Data, look_at_sources, too_dark
from dualview.data.load_other import load_other_data
from dualview.data.table import StudyTable
from dualview.distributed import Job, start
from dualview.errors import UserError
from dualview.evaluation.account import account_of_other_data
from dualview.evaluation.assess import assess
from dualview.evaluation.calibrate import FEWEST
from dualview.evaluation.document import Evaluation, External, KnownPatients, MatchedFinding, Recalibration
from dualview.evaluation.external import drift_from, points_of_set_aside, recalibrated, set_aside
from dualview.evaluation.looks import EvaluationSettings
from dualview.evaluation.operating_points import OperatingPoints
from dualview.evaluation.points_file import read_operating_points
from dualview.evaluation.prediction_table import PredictionTable, read_predictions
from dualview.evaluation.statistics.thresholds import ThresholdRule
from dualview.evaluation.wandb_run import EvaluationJob, log_evaluation
from dualview.inference.network_points import with_several_images
from dualview.inference.network_predictions import predict_studies
from dualview.run.datasets import evaluation_datasets, node_store
from dualview.run.directory import RunDir
from dualview.run.other_data import Overlap, config_on, overlap_with, refuse_trained_on
from dualview.run.resume import with_overrides
from dualview.run.trained import TrainedNetwork, load_trained
from dualview.views import Availability

logger = logging.getLogger(__name__)

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a run on other data."""

    config: Path  # file whose section `data` says what the other data are
    name: str | None = None  # what they are called; None: as the file
    maps: Sequence[str] = ()  # `Run finding=their finding`
    split: str | None = None  # which of their splits; None: all studies
    recalibrate_on: int | None = None  # number of patients to set aside; None: none

    @property
    def folder_name(self) -> str:
        """The end of the folder's name.

        Raises:
            UserError: it would be no folder of the run.
        """
        name = self.config.stem if self.name is None else self.name
        if not SAFE_NAME.fullmatch(name):
            said = f"--name '{name}'" if self.name is not None else f"'{name}', the name of the file,"
            raise UserError(
                f"{said} is to be the name of a folder in RUN, external-NAME: give --name with letters, digits, '.', "
                "'-' and '_', at most 100, the first a letter or digit"
            )
        return name


@dataclass(frozen=True, kw_only=True)
class ExternalEvaluation:
    """Where an evaluation on other data was written, and what it says."""

    folder: Path
    evaluation: Evaluation | None  # None on ranks other than 0
    wandb: EvaluationJob | None  # None on ranks other than 0


@dataclass(frozen=True, kw_only=True)
class OtherStudies:
    """The other data as the network takes them."""

    data: Data  # `test` is what is evaluated
    findings: dict[str, MatchedFinding]  # finding of the run -> its labels
    unmatched: list[str]  # findings of these data that the run does not have


def evaluate_on(
    run_dir: Path,
    request: Request,
    *,
    checkpoint_name: str = "best",
    overrides: list[str] | None = None,
    out: Path | None = None,
    by: list[str] | None = None,
    settings: EvaluationSettings | None = None,
    progress: Progress,
) -> ExternalEvaluation:
    """Evaluate a checkpoint of a run on other data than its own, at the thresholds and calibration of the run.

    Args:
        checkpoint_name: `best`, `last`, or a step.
        overrides: `section.field=value`; those of `data` are of the other data, others of the run.
        out: folder to write to; without it `RUN/external-NAME`.
        by: columns of the study table to divide by (evaluation/subgroups.py).

    Raises:
        UserError: no such run, problems of the other data, no finding in common, or patients who were trained on.
    """
    run, settings = RunDir(run_dir), settings or EvaluationSettings()
    folder = folder_of(run, out, usual=run.external(request.folder_name))
    network = load_trained(run, name=checkpoint_name)
    maps = parse_maps(request.maps, findings=network.findings)
    of_data = [text for text in overrides or [] if text.startswith("data.")]
    section = load_data_section(request.config, overrides=of_data)
    of_run = with_overrides(network.config, [text for text in overrides or [] if not text.startswith("data.")])
    config, ignored = config_on(of_run, section)
    with start(config.run, distributed=config.distributed) as job:
        network.model.to(job.device)
        points = points_at_hand(network, checkpoint_name=checkpoint_name)
        config = with_several_images(config, points.several_images_at_test)
        other = load_studies_of(config, request, network=network, maps=maps, job=job)
        studies = other.data.test
        check_columns(studies, by=by)
        overlap = overlap_with(run, studies, of_run=of_run, other=config, said=section.shared_patients)
        refuse_trained_on(overlap, run=run)
        _refuse_too_many(request.recalibrate_on, num_patients=len(set(studies.patient_ids)))
        if job.is_main:
            _say(ignored, overlap=overlap, data=other.data, config=config)
        dataset = evaluation_datasets(other.data, config)["test"]
        table = predict_studies(
            network, {"external": dataset}, config=config, job=job, progress=progress,
            log_pos_weight=points.log_pos_weight or {}, bad_images_in=RunDir(folder.path),
        )["external"]  # fmt: skip
        is_aside = set_aside(table, num_patients=request.recalibrate_on or 0, seed=settings.seed)
        remaining = table.select(~is_aside)
        evaluation = None
        if job.is_main:
            recalibration, new_points = None, None
            if request.recalibrate_on is not None:
                recalibration, new_points = _recalibrated(
                    table.select(is_aside), remaining, points=points, settings=settings
                )
            assessment = assess(
                remaining, points=points, points_of="run", by=by, settings=settings, track=resampling_bar(progress)
            )
            matched = [finding for finding, match in other.findings.items() if match.theirs]
            internal = internal_predictions(network, points=points, checkpoint_name=checkpoint_name)
            external = External(
                name=request.name,
                findings=other.findings,
                unmatched=other.unmatched,
                patients=_known_patients(overlap),
                drift=None
                if internal is None
                else drift_from(internal, remaining, findings=matched, points=points, settings=settings),
                recalibration=recalibration,
            )
            split = request.split or "all"
            account = account_of_other_data(
                config, studies=other.data, split=request.split, trained_on=_in_words(overlap), table=table,
                network=network, checkpoint_name=checkpoint_name, software=f"dualview {__version__}",
            )  # fmt: skip
            provenance = provenance_of(
                network, split=split, checkpoint_name=checkpoint_name, data=other.data, account=account,
                several_images_at_test=points.several_images_at_test,
            )  # fmt: skip
            counts = {**provenance.data, "splits": {split: count_tables([studies])}}
            evaluation = Evaluation.of(replace(provenance, data=counts), assessment, external=external)
            write_evaluation(folder, evaluation, table=remaining, points=points)
            if new_points is not None:
                new_points.write(folder.recalibrated_points)
            else:
                folder.recalibrated_points.unlink(missing_ok=True)
        job.barrier()
    tracked = None
    if evaluation is not None:
        kept = replace(other.data, test=studies.select(~is_aside))
        tracked = log_evaluation(
            evaluation,
            table=remaining,
            points=points,
            dataset=evaluation_datasets(kept, config)["test"],
            evaluation_file=folder.evaluation,
            config=config,
            external_name=request.folder_name,
        )
    return ExternalEvaluation(folder=folder.path, evaluation=evaluation, wandb=tracked)


def load_studies_of(
    config: Config, request: Request, *, network: TrainedNetwork, maps: dict[str, str], job: Job
) -> OtherStudies:
    """The other data with the findings of the network. All ranks call.

    Raises:
        UserError: problems of the data, no finding in common, or no study that the network can take.
    """
    matches: list[dict[str, FindingMatch]] = []
    there: list[str] = []

    def as_findings(tables: Sequence[StudyTable]) -> list[StudyTable]:
        there.extend(dict.fromkeys(name for table in tables for name in table.findings))
        matches.extend(match_findings(network.findings, tables, sources=config.data.all_sources, maps=maps))
        return [with_matched(table, findings=network.findings, matches=found)
                for table, found in zip(tables, matches, strict=True)]  # fmt: skip

    data = load_other_data(
        config.data, seed=config.data_seed, as_findings=as_findings, split=request.split,
        store=node_store(config, job=job),
    )  # fmt: skip
    model = config.model
    if model.needs_all_views:
        taken = data.test.seen_by(model.views, needs_all=True)
        if not len(taken):
            raise UserError(f"model.name is {model.name}, and no study of these data has the views it needs")
        if job.is_main:
            logger.info(
                "model.name %s: %d of %d studies lack a view that it needs, and are left out",
                model.name, len(data.test) - len(taken), len(data.test),
            )  # fmt: skip
        data = replace(data, test=taken)
    findings = {}
    for finding in network.findings:
        of_sources = [found[finding] for found in matches if finding in found]
        theirs = list(dict.fromkeys(name for match in of_sources for name in match.theirs))
        findings[finding] = MatchedFinding(theirs=theirs, by=of_sources[0].by if of_sources else None)
    used = {name for match in findings.values() for name in match.theirs}
    return OtherStudies(data=data, findings=findings, unmatched=[name for name in there if name not in used])


def points_at_hand(network: TrainedNetwork, *, checkpoint_name: str) -> OperatingPoints:
    """The operating points of the run; of another checkpoint than the best those of its own evaluation.

    Raises:
        UserError: there are none.
    """
    run = network.run
    if network.is_best:
        points = read_operating_points(run.operating_points)
        remedy = f"dualview evaluate {run} --set-thresholds"
    else:
        points = read_operating_points(run.evaluation("test", checkpoint=checkpoint_name).operating_points)
        remedy = f"dualview evaluate {run} --checkpoint {checkpoint_name}"
    if points is None:
        raise UserError(
            f"{run} has no thresholds of checkpoint {checkpoint_name}, and on other data none are chosen. Choose them "
            f"on val of the run: {remedy}"
        )
    return points


def internal_predictions(
    network: TrainedNetwork, *, points: OperatingPoints, checkpoint_name: str
) -> PredictionTable | None:
    """What the same weights say of the run's own test: by `dualview evaluate`, or by training; None: nobody has asked.

    Says where it comes from, or what to do. Several images of a view counted there as for the operating points.
    """
    run, several = network.run, points.several_images_at_test
    folder = run.evaluation("test", checkpoint=checkpoint_name)
    if folder.evaluation.is_file() and folder.predictions.is_file():
        earlier = Evaluation.from_json(folder.evaluation.read_bytes(), file=folder.evaluation)
        is_alike = (earlier.several_images_at_test or "first") == several
        is_own_test = earlier.external is None and earlier.split == "test"
        is_this_network = earlier.checkpoint is not None and earlier.checkpoint.step == network.step
        if is_own_test and is_this_network and is_alike:
            return _if_any(read_predictions(folder.predictions), network=network)
    is_alike = network.config.data.several_images_at_test == several
    if network.is_best and run.is_finished and run.predictions("test").is_file() and is_alike:
        return _if_any(read_predictions(run.predictions("test")), network=network)
    logger.warning(
        "%s has no predictions of its own test by checkpoint %s: nothing is compared with them. Make them with "
        "`dualview evaluate %s`, and evaluate these data again", run, checkpoint_name, run,
    )  # fmt: skip
    return None


def _if_any(table: PredictionTable, *, network: TrainedNetwork) -> PredictionTable | None:
    """The predictions, if there are some of the network's findings."""
    return table if table.findings == network.findings and table.evaluated.any() else None


def _refuse_too_many(num_aside: int | None, *, num_patients: int) -> None:
    if num_aside is not None and not 1 <= num_aside < num_patients:
        raise UserError(
            f"--recalibrate-on {num_aside}: these data have {num_patients} patients, and at least one is to be set "
            f"aside and one evaluated; give a number from 1 to {num_patients - 1}"
        )


def _recalibrated(
    aside: PredictionTable, remaining: PredictionTable, *, points: OperatingPoints, settings: EvaluationSettings
) -> tuple[Recalibration, OperatingPoints]:
    """What patients who were set aside change.

    Raises:
        UserError: they are too few to fit anything, or they are all whose images can be read.
    """
    num_patients = len(set(aside.patient_ids))
    if not remaining.evaluated.any():
        raise UserError(
            f"--recalibrate-on {num_patients}: no other patient has an image that can be read, so nobody is left to "
            "evaluate; set fewer aside"
        )
    rule = ThresholdRule.parse(points.rule)
    new_points, said = points_of_set_aside(aside, points=points, rule=rule, num_patients=num_patients)
    methods = {new_points.method(route, finding) for route in Availability for finding in aside.findings}
    if methods == {"none"}:
        counts = [
            f"{finding} {int(aside.positive[:, k].sum())} positive, "
            f"{int((aside.label_mask & ~aside.positive)[:, k].sum())} negative"
            for k, finding in enumerate(aside.findings)
            if aside.label_mask[:, k].any()
        ]
        raise UserError(
            f"--recalibrate-on {num_patients}: nothing can be fitted on these patients. On one route, all findings "
            f"together need at least {FEWEST} positive and {FEWEST} negative labels; they have {'; '.join(counts)} on "
            "all routes. Set more aside"
        )
    for sentence in said:
        logger.info("recalibrated on %d patients, %s", num_patients, sentence)
    return recalibrated(
        remaining, points=new_points, said=said, aside=aside, seed=settings.seed, settings=settings
    ), new_points


def _known_patients(overlap: Overlap) -> KnownPatients:
    return KnownPatients(
        are_shared=bool(overlap.reason),
        trained_on=overlap.count("train"),
        chosen_on=overlap.count("val"),
        tested_on=overlap.count("test"),
    )


def _in_words(overlap: Overlap) -> str:
    """What is known of patients whom the run was trained on or chosen by."""
    seen = overlap.count("train") + overlap.count("val")
    if not seen:
        return "No identifier of these patients is one of the run's train or val split."
    if overlap.reason:
        return f"{seen:,} of these patients are in the run's val split, by which checkpoint and thresholds were chosen."
    return (
        f"{seen:,} of these patients have identifiers of the run's train or val split; they are taken for other "
        "people, which the identifiers alone do not show."
    )


def _say(ignored: list[str], *, overlap: Overlap, data: Data, config: Config) -> None:
    """What does not count of the settings, whom the run may know, and what is remarkable about the data."""
    if ignored:
        logger.warning("not used, as they are about the network: %s", "; ".join(ignored))
    for split, what in (
        ("train", "what the network says of those it was trained on shows nothing"),
        ("val", "checkpoint and thresholds were chosen on these"),
        ("test", "these studies and the run's own test would not be independent"),
    ):
        if alike := overlap.alike[split]:
            logger.warning(
                "%d patient identifier(s) are also in the %s split of the run. If they are the same people, %s: say so "
                "with data.shared_patients=true; if they are not, data.shared_patients=false", len(alike), split, what,
            )  # fmt: skip
        if same := overlap.same[split]:
            logger.warning(
                "%d patient(s) are in the %s split of the run (%s): %s", len(same), split, overlap.reason, what
            )
    for problem in too_dark(look_at_sources(data), config.data):
        logger.warning("%s", problem)
    for source in data.sources:
        for remark in source.remarks:
            logger.warning("%s: %d x %s (dualview data names one)", source.name, remark.count, remark.kind)
