"""The parts of an evaluation of a trained network that do not depend on whose studies it is put to."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.progress import Progress

from dualview.config import Config, DataConfig, SeveralImages
from dualview.data.counts import count_data
from dualview.data.load import Data
from dualview.data.sources.identifiers import form_of
from dualview.data.sources.text_table import text_rows
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.evaluation.account_types import StudyAccount
from dualview.evaluation.document import EvaluatedCheckpoint, Evaluation, Provenance
from dualview.evaluation.operating_points import OperatingPoints
from dualview.evaluation.own_table import differences_from_run
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.subgroups import columns_of
from dualview.run.datasets import Studies
from dualview.run.directory import EvaluationDir, RunDir
from dualview.run.trained import TrainedNetwork
from dualview.views import Availability

logger = logging.getLogger(__name__)

PLACES = ("data.root", "data.csv", "data.split.file")
"""Keys that say where the table of the run and its split lie now."""
OTHER_DATA = ", for the studies of another table or hospital: dualview evaluate RUN --on CONFIG"


def folder_of(run: RunDir, out: Path | None, *, usual: EvaluationDir) -> EvaluationDir:
    """Where an evaluation is written: to `out` if it is given, else to the usual folder.

    Raises:
        UserError: the run has files of the same names there, such as the thresholds that `predict` uses.
    """
    if out is None:
        return usual
    place, own = out.resolve(), run.path.resolve()
    # Evaluations of the run's own splits and those of other data lie side by side, and may not take each other's place.
    kind = usual.path.name.partition("-")[0]
    if place == own or (place.parent == own and not place.name.startswith(f"{kind}-")):
        raise UserError(
            f"--out {out} would write over what the run itself has there, or into it: leave --out out, which writes to "
            f"{usual}, or give a folder outside of the run"
        )
    return EvaluationDir(out)


def check_columns(table: StudyTable, *, by: list[str] | None) -> None:
    """Raises: UserError where the study table lacks a column that is to be divided by."""
    there = table.attributes
    has = f"the study table has {', '.join(there) or 'none (for csv, name them in data.attributes)'}"
    columns_of(by or (), there=there, otherwise=has)


def form_of_identifiers(data: DataConfig) -> Callable[[str], str]:
    """What identifiers of one patient share: the text as it stands where `identifiers: exact` says so."""
    return str if any(source.identifiers == "exact" for source in data.all_sources) else form_of


def training_split(data: Data, config: Config) -> StudyTable:
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


def provenance_of(
    network: TrainedNetwork,
    *,
    split: str,
    checkpoint_name: str,
    data: Data,
    account: StudyAccount | None = None,
    several_images_at_test: SeveralImages | None = None,
) -> Provenance:
    """Which network was evaluated on which data: counts of these, without anything that names an image."""
    header = (network.folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    return Provenance(
        run=network.run.name,
        split=split,
        checkpoint=EvaluatedCheckpoint(name=checkpoint_name, step=network.step),
        model=network.config.model.name,
        backbone=network.config.model.backbone,
        num_parameters=network.model.num_parameters,
        several_images_at_test=several_images_at_test,
        versions=[line.removeprefix("# ") for line in header if line.startswith("#")],
        account=account,
        data={key: value for key, value in count_data(data).items() if key not in ("known_bad_images", "sources")},
    )


def write_evaluation(
    folder: EvaluationDir, evaluation: Evaluation, *, table: PredictionTable, points: OperatingPoints
) -> None:
    """Write the predictions, what they are worth, and the operating points that this was said with."""
    folder.path.mkdir(parents=True, exist_ok=True)
    table.write(folder.predictions)
    evaluation.write(folder.evaluation)
    points.write(folder.operating_points)


def resampling_bar(progress: Progress) -> Callable[[list[Any]], Iterable[Any]]:
    """Shows how far `assess` is."""
    return lambda looks: progress.track(looks, description="resampling patients")


def refuse_other_findings(network: TrainedNetwork, findings: tuple[str, ...]) -> None:
    """Raises: UserError where the data have other findings than the network."""
    if findings != network.findings:
        raise UserError(
            f"the data have the findings {', '.join(findings)}; the run was trained on {', '.join(network.findings)}"
        )


def refuse_other_patients(run: RunDir, splits: dict[str, StudyTable], *, form: Callable[[str], str]) -> None:
    """Look for patients that were trained on, as the run's split.csv says, among those to be evaluated.

    Args:
        form: what identifiers of one patient share.

    Raises:
        UserError: there are some.
    """
    file, trained_on = run.split, trained_patients(run, form=form)
    for name in ("val", "test"):
        leaked = trained_on & {form(str(patient)) for patient in splits[name].patient_ids}
        if leaked:
            new = {str(patient) for table in splits.values() for patient in table.patient_ids}
            new -= set(_split_rows(run)["patient"])
            remedy = f"{len(new)} patients are not in it. Restore the table, or{OTHER_DATA}"
            if not new:
                remedy = f"Restore it, or give the old split: data.split.file={file}"
            raise UserError(
                f"{len(leaked)} patient(s) of the {name} split were trained on, as {file} says: the table has changed "
                f"since. {remedy}"
            )


def refuse_other_table(
    run: RunDir, studies: Studies, *, config: Config, overrides: Sequence[str], is_main: bool
) -> None:
    """Look for what the table says otherwise than that of the run; without overrides of `data` this is only said.

    Raises:
        UserError: an override has led to another table.
    """
    may_lack = any("drop" in (s.on_missing_file, s.on_missing_finding) for s in config.data.all_sources)
    found = differences_from_run(
        run,
        studies.whole.whole_splits,
        evaluated=studies.data.splits,
        form=form_of_identifiers(config.data),
        may_lack=may_lack,
    )
    if not found:
        return
    split_file = config.data.split.file
    is_own_split = split_file is not None and split_file.resolve() == run.split.resolve()
    named = [text.partition("=")[0] for text in overrides]
    named = [key for key in named if key in PLACES and not (key == "data.split.file" and is_own_split)]
    if named:
        raise UserError(
            f"{', '.join(named)} may say where the table of the run lies now, and this is another: {'; '.join(found)}. "
            f"Give the table of the run, or{OTHER_DATA}"
        )
    if is_main:
        logger.warning("the table has changed since %s was trained: %s", run, "; ".join(found))


def trained_patients(run: RunDir, *, form: Callable[[str], str]) -> set[str]:
    """The patients that a run was trained on, as its split.csv says, each in its `form`.

    Raises:
        UserError: there is no such file.
    """
    rows = _split_rows(run)
    return set(rows["patient"][rows["split"] == "train"].map(form))


def _split_rows(run: RunDir) -> pd.DataFrame:
    """`patient` and `split` of every patient of a run; raises as `trained_patients` does."""
    file = run.split
    if not file.exists():
        raise UserError(f"{file} is not there; without it nobody knows which patients the run was trained on")
    return text_rows(file, columns=["patient", "split"], hint="It is written by training").cells
