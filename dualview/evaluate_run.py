"""`dualview evaluate RUN`: a finished run on every study of a split, complete ones also with a view withheld.

    RUN/evaluation-test/predictions.parquet   what the network says (predictions.py)
    RUN/evaluation-test/evaluation.json       what that is worth (assessment.py)
    RUN/operating_points.json                 temperatures and thresholds, from val

and the same, but for the predictions, as a run of wandb (evaluation_tracking.py).

With any number of processes; every study is predicted once, and all come out alike.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from rich.progress import Progress

from dualview.config import Config, changed
from dualview.data import load_data
from dualview.data.account import account
from dualview.data.table import StudyTable
from dualview.distributed import start
from dualview.errors import UserError
from dualview.evaluate import as_predictions, evaluate_split
from dualview.evaluation.assess import Document, Settings, assess, choose_operating_points, fit_temperatures
from dualview.evaluation.operating_points import FILE as OPERATING_POINTS
from dualview.evaluation.prediction_table import Predictions
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule
from dualview.evaluation.wandb_run import EvaluationJob, log_evaluation
from dualview.resume import HARMLESS, differing_settings
from dualview.run_directory import BadImages
from dualview.studies import datasets, for_network, node_store
from dualview.trained import TrainedNetwork, load_trained
from dualview.views import Availability

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
PREDICTIONS, EVALUATION = "predictions.parquet", "evaluation.json"
ALSO_HARMLESS = ("train.micro_batch_size", "train.precision")  # to a network that is trained


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """Where an evaluation was written, and what it says."""

    folder: Path
    document: Document
    is_main: bool
    wandb: EvaluationJob | None  # None on other than the main process


def evaluate_run(
    run_dir: Path,
    *,
    split: Split = "test",
    checkpoint_name: str = "best",
    overrides: list[str] | None = None,
    out: Path | None = None,
    by: list[str] | None = None,
    rule: ThresholdRule = YOUDEN,
    calibrate: bool = False,
    settings: Settings | None = None,
    progress: Progress,
) -> RunEvaluation:
    """Evaluate a checkpoint of a run and write the result.

    Args:
        split: whose studies are evaluated; thresholds and temperatures are those of val in any case.
        checkpoint_name: `best`, `last`, or a step.
        overrides: `section.field=value` for where the data are and what reads them, such as data.root.
        out: folder to write to; without it `RUN/evaluation-SPLIT`, for another checkpoint than best with its name.
        by: columns of the study table to divide by (assessment.py).
        rule: by which thresholds are chosen on val.
        calibrate: fit a temperature per route on val.

    Raises:
        UserError: no such run or checkpoint, an override that changes what was learned, or data that are not
            those of the run.
    """
    config = with_overrides(load_trained(run_dir, name=checkpoint_name).config, overrides or [])
    with start(config.run, distributed=config.distributed) as job:
        network = load_trained(run_dir, name=checkpoint_name, device=job.device)
        whole = load_data(config.data, seed=config.data_seed, store=node_store(config, job=job))
        if by is not None and (unknown := sorted(set(by) - set(whole.test.attributes))):
            raise UserError(
                f"--by {', '.join(unknown)}: no such column of the study table; there are "
                f"{', '.join(whole.test.attributes) or 'none (for csv, name them in data.attributes)'}"
            )
        _refuse_other_patients(run_dir, whole.splits)
        data = for_network(whole, config, job=job)
        if data.train.findings != network.findings:
            raise UserError(
                f"the data have the findings {', '.join(data.train.findings)}; the run was trained on "
                f"{', '.join(network.findings)}"
            )
        train_set, val_set, test_set = datasets(data, config)
        train_set.augment = None
        of_split = {"train": train_set, "val": val_set, "test": test_set}
        if not len(of_split[split]):
            raise UserError(f"the {split} split has no study; choose another --split")
        bad_images = BadImages(run_dir, policy=config.data.on_bad_image, job=job)
        predictions: dict[str, Predictions] = {}
        for name in dict.fromkeys(("val", split)):
            evaluation = evaluate_split(
                network.model, name=name, dataset=of_split[name], config=config, job=job, bad_images=bad_images,
                progress=progress, hide_views=True,
            )  # fmt: skip
            predictions[name] = as_predictions(evaluation)
        folder = out or run_dir / _folder_name(split, checkpoint_name)
        document: Document = {}
        if job.is_main:
            temperatures = fit_temperatures(predictions["val"]) if calibrate else None
            points = choose_operating_points(predictions["val"], rule=rule, temperatures=temperatures)
            document = {
                **_provenance(network, split=split, checkpoint_name=checkpoint_name),
                "data": _data_card(account(whole)),
                **assess(
                    predictions[split],
                    points=points,
                    train_prevalence=train_prevalence(data.train),
                    by=by,
                    settings=settings,
                    track=_bar(progress),
                ),
                "temperature": points.temperature,
            }
            folder.mkdir(parents=True, exist_ok=True)
            predictions[split].write(folder / PREDICTIONS)
            _write(folder / EVALUATION, json.dumps(document, indent=1, allow_nan=False) + "\n")
            points.write((run_dir if checkpoint_name == "best" else folder) / OPERATING_POINTS)
        job.barrier()
    tracked = None
    if job.is_main:  # last, and when nobody waits for it: sending may take long
        tracked = log_evaluation(
            document,
            predictions=predictions[split],
            dataset=of_split[split],
            evaluation_file=folder / EVALUATION,
            config=config,
        )
    return RunEvaluation(folder=folder, document=document, is_main=job.is_main, wandb=tracked)


def train_prevalence(train: StudyTable) -> np.ndarray:
    """(3, K) share of positives among the known labels of the training studies of each `Availability`; NaN: none."""
    shares = np.full((len(Availability), len(train.findings)), np.nan)
    positive = train.label_mask & (train.labels > 0.5)
    for kind in Availability:
        rows = train.availability == kind
        known = train.label_mask[rows].sum(axis=0)
        shares[kind] = np.where(known > 0, positive[rows].sum(axis=0) / np.maximum(known, 1), np.nan)
    return shares


def with_overrides(config: Config, overrides: list[str]) -> Config:
    """The configuration of a trained network with other places for its data.

    Raises:
        UserError: an override would make it another network or other data.
    """
    new = changed(config, overrides=overrides)
    refused = [key for key in differing_settings(new, config) if not key.startswith(ALSO_HARMLESS)]
    if refused:
        raise UserError(
            f"{', '.join(refused)} cannot be changed for a network that is trained; allowed are "
            f"{', '.join(key for key in (*HARMLESS, *ALSO_HARMLESS) if key.startswith(('data.', 'run.device')))}, "
            "train.micro_batch_size, train.precision and those of tracking"
        )
    return new


def _refuse_other_patients(run_dir: Path, splits: dict[str, StudyTable]) -> None:
    """Raises: UserError where a patient to be evaluated was trained on, as the run's split.csv says."""
    file = run_dir / "split.csv"
    if not file.exists():
        raise UserError(f"{file} is not there; without it nobody knows which patients the run was trained on")
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    trained_on = set(rows["patient"][rows["split"] == "train"])
    for name in ("val", "test"):
        leaked = trained_on & set(map(str, splits[name].patient_ids))
        if leaked:
            raise UserError(
                f"{len(leaked)} patient(s) of the {name} split were trained on, as {file} says: the table has changed "
                f"since. Restore it, or give the old split: data.split.file={file}"
            )


def _folder_name(split: str, checkpoint_name: str) -> str:
    return f"evaluation-{split}" + ("" if checkpoint_name == "best" else f"-{checkpoint_name}")


def _provenance(network: TrainedNetwork, *, split: str, checkpoint_name: str) -> Document:
    header = (network.folder / "config.yaml").read_text(encoding="utf-8").splitlines()
    return {
        "run": network.run_dir.resolve().name,
        "split": split,
        "checkpoint": {"name": checkpoint_name, "step": network.step},
        "model": network.config.model.name,
        "backbone": network.config.model.backbone,
        "num_parameters": sum(parameter.numel() for parameter in network.model.parameters()),
        "versions": [line.removeprefix("# ") for line in header if line.startswith("#")],
    }


def _data_card(counts: dict[str, Any]) -> Document:
    """Counts of the data without anything that names an image."""
    return {key: value for key, value in counts.items() if key not in ("known_bad_images", "sources")}


def _write(path: Path, text: str) -> None:
    """Write in one go, so that nobody reads half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _bar(progress: Progress) -> Callable[[list[Any]], Iterable[Any]]:
    return lambda looks: progress.track(looks, description="resampling patients")
