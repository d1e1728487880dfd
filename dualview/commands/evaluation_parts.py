"""The parts of an evaluation of a trained network that do not depend on whose studies it is put to."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from dualview.config import Config, DataConfig
from dualview.data.counts import count_data
from dualview.data.load import Data
from dualview.data.sources.identifiers import form_of
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.evaluation.document import EvaluatedCheckpoint, Evaluation, Provenance
from dualview.evaluation.operating_points import OperatingPoints
from dualview.evaluation.prediction_table import PredictionTable
from dualview.run.directory import EvaluationDir, RunDir
from dualview.run.trained import TrainedNetwork
from dualview.views import Availability


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
    if by is not None and (unknown := sorted(set(by) - set(table.attributes))):
        raise UserError(
            f"--by {', '.join(unknown)}: no such column of the study table; there are "
            f"{', '.join(table.attributes) or 'none (for csv, name them in data.attributes)'}"
        )


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


def provenance_of(network: TrainedNetwork, *, split: str, checkpoint_name: str, data: Data) -> Provenance:
    """Which network was evaluated on which data: counts of these, without anything that names an image."""
    header = (network.folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    return Provenance(
        run=network.run.name,
        split=split,
        checkpoint=EvaluatedCheckpoint(name=checkpoint_name, step=network.step),
        model=network.config.model.name,
        backbone=network.config.model.backbone,
        num_parameters=network.model.num_parameters,
        versions=[line.removeprefix("# ") for line in header if line.startswith("#")],
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
