"""Continuing a run: what may differ between it and its continuation, and what may not."""

import hashlib
import logging
from typing import Any

from dualview.config import Config
from dualview.config.load import changed
from dualview.data.table import StudyTable
from dualview.errors import UserError, listed

logger = logging.getLogger(__name__)

# Keys, or the beginnings of keys, that change neither what is learned nor on what it is measured.
HARMLESS = (
    "run.dir", "run.device", "run.deterministic",
    "data.root", "data.csv", "data.check_files", "data.on_missing_file", "data.num_workers", "data.on_bad_image",
    "data.store", "data.stage_to", "data.augment_on",
    "model.weights",  # resumed weights come from the checkpoint
    "train.accumulation_steps",  # the number of ranks fixes it
    "train.channels_last", "train.eval_every_steps", "train.early_stopping_evaluations", "train.log_every_steps",
    "train.checkpoint_every_steps", "train.keep_checkpoints", "train.resume", "train.max_bad_steps",
    "tracking.", "distributed.", "study.", "data.reference_standard",
)  # fmt: skip

SEVERAL_IMAGES_KEY = "data.several_images_at_test"

# Harmless where a trained network is only evaluated.
ALSO_HARMLESS = (
    "train.micro_batch_size", "train.precision", "data.on_missing_finding", "data.split.file",
    SEVERAL_IMAGES_KEY,
)  # fmt: skip


def continued(config: Config, *, earlier: dict[str, Any], micro_batches_per_step: int, world_size: int) -> Config:
    """The configuration with which a run goes on: the new one, with accumulation that keeps the global batch.

    Args:
        earlier: configuration of the checkpoint, as `Config.model_dump(mode="json")`.
        micro_batches_per_step: of the checkpoint, over all ranks and accumulation steps.
        world_size: number of ranks now.

    Raises:
        UserError: this many ranks cannot share the micro-batches of a step, or settings differ that
            decide what is learned; all of them are named.
    """
    config = _as_the_run_began(config, earlier=Config.model_validate(earlier))
    differing = _differing(config, Config.model_validate(earlier))
    refused = {key: values for key, values in differing.items() if not key.startswith(HARMLESS)}
    if refused:
        problems = [f"{key}: the run has {old!r}, now {new!r}" for key, (old, new) in refused.items()]
        raise UserError(
            f"run.dir {config.run.dir} holds a run with other settings\n{listed(problems)}\n"
            "Set them back to continue it, or choose a new run.dir"
        )
    if micro_batches_per_step % world_size:
        fitting = [str(ranks) for ranks in range(1, micro_batches_per_step + 1) if micro_batches_per_step % ranks == 0]
        size = config.train.micro_batch_size
        raise UserError(
            f"run.dir {config.run.dir} holds a run with a global batch of {size * micro_batches_per_step} studies, "
            f"{micro_batches_per_step} micro-batches of {size}; {world_size} ranks cannot share them evenly. "
            f"Continue with {', '.join(fitting)} ranks, or choose a new run.dir"
        )
    for key, (old, new) in differing.items():
        if key != "train.accumulation_steps":
            logger.info("continuing with %s: %s instead of %s", key, new, old)
    accumulation_steps = micro_batches_per_step // world_size
    if accumulation_steps != config.train.accumulation_steps:
        logger.info(
            "train.accumulation_steps is %d instead of %d, to keep the global batch on %d rank(s)",
            accumulation_steps, config.train.accumulation_steps, world_size,
        )  # fmt: skip
    train = config.train.model_copy(update={"accumulation_steps": accumulation_steps})
    return config.model_copy(update={"train": train})


def _as_the_run_began(config: Config, *, earlier: Config) -> Config:
    """The configuration with the run's own `loss.normalise` where it sets none: its default was another once."""
    normalise = earlier.loss.normalise
    if "normalise" in config.loss.model_fields_set or config.loss.normalise == normalise:
        return config
    logger.info(
        "loss.normalise is %s, as the run began; the default of a new run is %s", normalise, config.loss.normalise
    )
    return config.model_copy(update={"loss": config.loss.model_copy(update={"normalise": normalise})})


def differing_settings(config: Config, earlier: Config) -> dict[str, tuple[Any, Any]]:
    """Settings by which two runs learn or measure something else: key -> (earlier value, value now)."""
    return {key: values for key, values in _differing(config, earlier).items() if not key.startswith(HARMLESS)}


def with_overrides(config: Config, overrides: list[str]) -> Config:
    """The configuration of a trained network with other places for its data.

    Raises:
        UserError: an override would make it another network or other data.
    """
    replaced: tuple[str, ...] = ()
    if config.data.split.folds is not None and any(word.startswith("data.split.file=") for word in overrides):
        replaced = ("data.split.folds", "data.split.fold")  # The file that they made says the same.
    new = changed(config, overrides=[*overrides, *(f"{key}=null" for key in replaced)])
    # Keys that the run does not use are compared as well: an override of one would be obeyed by nobody.
    now, before = _flat(new.model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    refused = [key for key in differing if not key.startswith((*HARMLESS, *ALSO_HARMLESS, *replaced))]
    if refused:
        raise UserError(
            f"{', '.join(refused)} cannot be changed for a network that is trained; allowed are "
            f"{', '.join(key for key in (*HARMLESS, *ALSO_HARMLESS) if key.startswith(('data.', 'run.device')))}, "
            "train.micro_batch_size, train.precision, those of study and those of tracking"
            + (
                ". Other data than the run's own are evaluated by dualview evaluate RUN --on CONFIG"
                if any(key.startswith("data.") for key in refused)
                else ""
            )
        )
    return new


def _differing(config: Config, earlier: Config) -> dict[str, tuple[Any, Any]]:
    # Keys that the run does not use may differ.
    now, before = (_flat(each.effective.model_dump(mode="json")) for each in (config, earlier))
    return {key: (before.get(key), now.get(key)) for key in {**before, **now} if before.get(key) != now.get(key)}


def fingerprint(table: StudyTable) -> str:
    """SHA-256 of the training studies, their views and labels, in order: the data that a run is a function of."""
    digest = hashlib.sha256()
    for text in ("\0".join(table.findings), "\0".join(map(str, table.study_ids))):
        digest.update(text.encode())
    for array in (table.view_mask, table.label_mask, table.labels * table.label_mask):
        digest.update(array.tobytes())
    return digest.hexdigest()


def refuse_other_data(table: StudyTable, *, earlier: str, config: Config) -> None:
    """Raises: UserError where the training studies are not those that the checkpoint was trained on."""
    if fingerprint(table) != earlier:
        raise UserError(
            f"run.dir {config.run.dir} holds a run on other training studies: the table of source {config.data.source} "
            "has changed since (studies, views, labels or their order). Restore it, or choose a new run.dir"
        )


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.field` keys; lists and mappings of findings stay whole."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict) and key != "findings":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
