"""A trained network out of its run directory, ready to be asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dualview.config import Config
from dualview.errors import UserError, listed
from dualview.models.build import build_configured
from dualview.models.network import Network
from dualview.run import checkpoint
from dualview.run.checkpoint import Checkpoint
from dualview.run.directory import RunDir


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """The network of one checkpoint in eval mode, and what it was trained for."""

    run: RunDir
    folder: Path  # folder of the checkpoint
    step: int
    weights_sha256: str
    config: Config  # settings of the run; `run.dir` is where the run is now
    findings: tuple[str, ...]  # (K,) names in the order of the logits
    log_pos_weight: dict[str, float] | None  # finding -> what the loss has added to its logits; None: not known
    model: Network

    @property
    def is_best(self) -> bool:
        """Whether it is the best checkpoint of its run, by whatever name it was asked for."""
        return self.run.checkpoint("best").resolve() == self.folder

    @property
    def is_unweighted(self) -> bool:
        """Whether the loss has added nothing to any logit."""
        return self.log_pos_weight is not None and not any(self.log_pos_weight.values())


def load_trained(run: RunDir, *, name: str = "best", device: torch.device | str = "cpu") -> TrainedNetwork:
    """Read a checkpoint of a run and build its network.

    Args:
        run: directory of the training.
        name: `best`, `last`, or the number of a step that is there.
        device: where the network goes.

    Raises:
        UserError: no run, no such checkpoint, or a damaged one.
    """
    folder = checkpoint_folder(run, name=name)
    read = checkpoint.read(folder, with_state=False)
    config = Config.model_validate(read.config)
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": run.path})})
    model = build_configured(config, num_findings=len(read.findings))
    model.load_state_dict(read.weights)
    if config.train.channels_last:  # The memory order of training gives the rounding of training.
        model.to(memory_format=torch.channels_last)
    return TrainedNetwork(
        run=run,
        folder=folder,
        step=read.step,
        weights_sha256=read.weights_sha256,
        config=config,
        findings=read.findings,
        log_pos_weight=_log_pos_weight(read, config=config),
        model=model.to(device).eval(),
    )


def _log_pos_weight(read: Checkpoint, *, config: Config) -> dict[str, float] | None:
    """By finding: positives of weight w in the loss multiply the odds that are learned by w, logits gain log w."""
    if read.pos_weight is not None:
        return log_of(read.pos_weight, findings=read.findings)
    if config.loss.pos_weight == "none":
        return dict.fromkeys(read.findings, 0.0)
    return None


def log_of(pos_weight: Sequence[float], *, findings: Sequence[str]) -> dict[str, float]:
    """Finding -> log of its weight."""
    return {finding: math.log(weight) for finding, weight in zip(findings, pos_weight, strict=True)}


def checkpoint_folder(run: RunDir, *, name: str) -> Path:
    """The folder of a checkpoint by its name.

    Raises:
        UserError: the directory holds no checkpoint, or none of this name.
    """
    there = sorted(path.name for path in run.checkpoints.glob("step-*"))
    if not there:
        raise UserError(
            f"{run} holds no checkpoint of a run. Give the run directory that `dualview train` printed, which "
            "has a folder checkpoints/"
        )
    folder = run.checkpoint(int(name) if name.isdigit() else name).resolve()
    if not folder.is_dir():
        raise UserError(f"{run} has no checkpoint '{name}'. There are: best, last\n{listed(there)}")
    return folder
