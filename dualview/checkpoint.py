"""Checkpoints of a run: written whole or not at all, the best and the last kept."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS = "model.safetensors"
STATE = "state.pt"


def save(
    run_dir: Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    config_yaml: str,
    is_best: bool,
) -> None:
    """Write `checkpoints/step-N`, point `last` and perhaps `best` at it, drop the others. Main process only.

    The folder is written under a temporary name, flushed to disk and renamed, so that `step-N` is
    complete wherever it exists.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    checkpoints = run_dir / "checkpoints"
    final, temporary = checkpoints / f"step-{step:06d}", checkpoints / f"tmp-step-{step:06d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, temporary / WEIGHTS)
        torch.save({"step": step, "optimizer": optimizer.state_dict()}, temporary / STATE)
        (temporary / "config.yaml").write_text(config_yaml, encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        if final.exists():  # the same step evaluated twice: identical content
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(checkpoints)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | KeyboardInterrupt | SystemExit):
            raise
        # torch and safetensors report a full disk as errors of their own
        raise OSError(f"checkpoint {final} could not be written, is the disk full? ({error})") from error
    _point(checkpoints / "last", to=final)
    if is_best:
        _point(checkpoints / "best", to=final)
    kept = {(checkpoints / name).resolve() for name in ("last", "best")}
    for folder in checkpoints.glob("step-*"):
        if folder.resolve() not in kept:
            shutil.rmtree(folder)


def load_model(checkpoint: Path, *, model: nn.Module) -> int:
    """Put a checkpoint's weights and buffers into `model`, in place; returns its step."""
    model.load_state_dict(load_file(checkpoint / WEIGHTS))
    state: dict[str, Any] = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
    return int(state["step"])


def _point(link: Path, *, to: Path) -> None:
    """Make `link` a relative symbolic link, replacing what it was in one go."""
    temporary = link.with_name(f"tmp-{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to.name)
    temporary.replace(link)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
