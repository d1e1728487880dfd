"""A trained network out of its run directory, ready to be asked."""

from dataclasses import dataclass
from pathlib import Path

import torch

from dualview import checkpoint
from dualview.config import Config
from dualview.errors import UserError, listed
from dualview.models.build import build_configured
from dualview.models.network import Network


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """The network of one checkpoint in eval mode, and what it was trained for."""

    run_dir: Path
    folder: Path  # of the checkpoint
    step: int
    config: Config  # of the run; `run.dir` is where the run is now
    findings: tuple[str, ...]  # K names, in the order of the logits
    model: Network


def load_trained(run_dir: Path, *, name: str = "best", device: torch.device | str = "cpu") -> TrainedNetwork:
    """Read a checkpoint of a run and build its network.

    Args:
        run_dir: as `run.dir` of the training.
        name: `best`, `last`, or the number of a step that is there.
        device: where the network goes.

    Raises:
        UserError: no run, no such checkpoint, or a damaged one.
    """
    folder = _folder(run_dir, name=name)
    read = checkpoint.read(folder)
    state = read.state
    config = Config.model_validate(state["config"])
    config = config.model_copy(update={"run": config.run.model_copy(update={"dir": run_dir})})
    findings = tuple(state["findings"])
    model = build_configured(config, num_findings=len(findings))
    model.load_state_dict(read.weights)
    if config.train.channels_last:  # as in training: another order of memory rounds otherwise
        model.to(memory_format=torch.channels_last)
    return TrainedNetwork(
        run_dir=run_dir,
        folder=folder,
        step=state["step"],
        config=config,
        findings=findings,
        model=model.to(device).eval(),
    )


def _folder(run_dir: Path, *, name: str) -> Path:
    """The folder of a checkpoint by its name."""
    there = sorted(path.name for path in run_dir.glob("checkpoints/step-*"))
    if not there:
        raise UserError(
            f"{run_dir} holds no checkpoint of a run. Give the run directory that `dualview train` printed, which "
            "has a folder checkpoints/"
        )
    wanted = checkpoint.folder_of(run_dir, int(name)) if name.isdigit() else run_dir / "checkpoints" / name
    folder = wanted.resolve()
    if not folder.is_dir():
        raise UserError(f"{run_dir} has no checkpoint '{name}'. There are: best, last\n{listed(there)}")
    return folder
