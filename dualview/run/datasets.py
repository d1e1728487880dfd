"""The studies of a run, as its network takes them and where this node reads them."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from dualview.config import Config
from dualview.data.counts import left_out_of_training
from dualview.data.dataset import StudyDataset, expand_all
from dualview.data.images.sample import of_sample
from dualview.data.images.store import stage
from dualview.data.load import Data, check_labels, load_data, look_at_sources, too_dark
from dualview.distributed import Job
from dualview.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Studies:
    """Studies of each split, as tables and as datasets to train on and to evaluate."""

    data: Data  # studies of each split that the network can take
    whole: Data  # all studies, also those that the network cannot take
    train: StudyDataset  # training studies with augmentation
    evaluated: dict[str, StudyDataset]  # split -> each of its studies once, without augmentation


def load_studies(config: Config, *, job: Job, findings: tuple[str, ...] | None = None) -> Studies:
    """Read the study tables of a run; images are read later, study by study. All ranks call.

    Args:
        findings: of the trained network that the studies are for. One that `data.on_missing_finding` has dropped is
            unknown in all of them.

    Raises:
        UserError: problems of the tables or of the image store, or no study that the network can take.
    """
    whole = load_data(config.data, seed=config.data_seed, store=node_store(config, job=job))
    drops = any(source.on_missing_finding == "drop" for source in config.data.all_sources)
    if findings is not None and drops and set(whole.train.findings) < set(findings):
        whole = whole.with_findings(findings)
    return studies_for(whole, config, job=job)


def studies_for(whole: Data, config: Config, *, job: Job) -> Studies:
    """What of the studies of a run its network takes, to train on and to evaluate.

    Raises:
        UserError: no study that the network can take.
    """
    data = for_network(whole, config, job=job)
    return Studies(
        data=data,
        whole=whole,
        train=training_dataset(data, config),
        evaluated=evaluation_datasets(data, config),
    )


def check_training(studies: Studies, config: Config, *, is_new: bool, job: Job) -> None:
    """Say what is left out of training and what is unusual about it.

    Args:
        is_new: whether training begins; of a run that goes on, dark images are a warning, as its settings are fixed.

    Raises:
        UserError: images too dark to be true, `train.best_findings` that the data lack, or no finding has both
            positive and negative studies.
    """
    check_labels(studies.data.train)
    if unknown := sorted(set(config.train.best_findings) - set(studies.data.train.findings)):
        raise UserError(
            f"train.best_findings names {', '.join(unknown)}; the data have {', '.join(studies.data.train.findings)}"
        )
    samples = job.share(look_at_sources(studies.whole) if job.is_main else {})
    problems = too_dark(samples, config.data)
    if problems and is_new:
        raise UserError("\n".join(problems))
    if job.is_main:
        for problem in problems:
            logger.warning(problem)
        for source in studies.data.sources:
            sample = samples.get(source.name)
            for remark in (*source.remarks, *(of_sample(sample.remarks) if sample else ())):
                logger.warning("%s: %d x %s (dualview data names one)", source.name, remark.count, remark.kind)
    left_out = left_out_of_training(studies.whole)
    if left_out["studies"] and job.is_main:
        logger.info(
            "data.split.max_train_patients, data.train_on leave out %d training studies and %d patients altogether",
            left_out["studies"],
            left_out["patients"],
        )
    if config.data.augment.horizontal_flip_probability and job.is_main:
        logger.warning("data.augment.horizontal_flip_probability mirrors images: hearts come out on the right")


def node_store(config: Config, *, job: Job) -> Path | None:
    """Where this node reads the image store, after copying it there if wanted; None without a store.

    Raises:
        UserError: there is no whole store, no room for a copy, or `data.stage_to` has a variable that is not set.
    """
    store, to = config.data.store, config.data.stage_to
    if store is None or to is None:
        return store
    local = Path(os.path.expandvars(to))
    if "$" in str(local):
        raise UserError(f"data.stage_to is {to}, and this variable is not set here; give a folder")
    job.once_per_node(lambda: stage(store, local))
    return stage(store, local)


def for_network(data: Data, config: Config, *, job: Job) -> Data:
    """The studies, and of them the views, that the network can take; says how many are left out."""
    model = config.model
    if not model.needs_all_views:
        return data
    splits = {split: table.seen_by(model.views, needs_all=True) for split, table in data.splits.items()}
    if job.is_main:
        what = "both views" if len(model.views) > 1 else f"a {model.view} view"
        left_out = ", ".join(f"{split} {len(data.splits[split]) - len(table)}" for split, table in splits.items())
        logger.info("model.name %s needs %s; studies left out: %s", model.name, what, left_out)
    if empty := [split for split in ("train", "val") if not len(splits[split])]:
        raise UserError(
            f"model.name is {model.name}, and no study of the {' and '.join(empty)} split has the views it needs"
        )
    return replace(data, train=splits["train"], val=splits["val"], test=splits["test"])


def training_dataset(data: Data, config: Config) -> StudyDataset:
    """The train split as it is learned from: augmented, with `data.several_images`."""
    several = config.data.several_images
    return StudyDataset(
        expand_all(data.train) if several == "all" else data.train,
        read=data.read,
        image_size_px=config.data.image_size_px,
        seed=config.run.seed,
        several_images="random" if several == "random" else "first",
        augment=config.data.augment,
        augment_on=config.data.augment_on,
    )


def evaluation_datasets(data: Data, config: Config) -> dict[str, StudyDataset]:
    """Every split as it is evaluated, train too: each study once, by the first image of a view, as it is."""
    return {
        split: StudyDataset(table, read=data.read, image_size_px=config.data.image_size_px, seed=config.run.seed)
        for split, table in data.splits.items()
    }
