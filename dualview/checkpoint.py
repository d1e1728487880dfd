"""Checkpoints of a run: written whole or not at all, checked before they are used.

    checkpoints/
      step-000250/   model.safetensors, state.pt (torch.load with weights_only=True), config.yaml,
                     manifest.json: format, step, best step, and size and SHA-256 of each of the others
      best, last     links to the checkpoint with the best validation AUROC, and to the newest

No random generator has a state to save: every draw is a function of (seed, epoch or step, study or
micro-batch), so the step is the position in the epoch plan and in every stream of random numbers.
"""

import hashlib
import io
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from dualview.errors import UserError, listed

logger = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS, STATE, CONFIG, MANIFEST = "model.safetensors", "state.pt", "config.yaml", "manifest.json"
State = dict[str, Any]  # see train.py for what stands in it


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint read into memory as bytes, which can travel to the other ranks."""

    folder: Path
    weights_bytes: bytes
    state_bytes: bytes

    @property
    def weights(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = safetensors.torch.load(self.weights_bytes)
        return tensors

    @property
    def state(self) -> State:
        state: State = torch.load(io.BytesIO(self.state_bytes), map_location="cpu", weights_only=True)
        return state


def folder_of(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step-{step:06d}"


def save(run_dir: Path, *, model: nn.Module, state: State, config_yaml: str, keep: int) -> None:
    """Write `checkpoints/step-N`, N being `state["step"]`, and drop old ones. Main process only.

    The folder is written under a temporary name, flushed to disk and renamed, so that a kill at any
    moment leaves the earlier checkpoints and either none or the whole of this one. The newest `keep`
    stay, and for each of them the best checkpoint that it knew of.

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = folder_of(run_dir, state["step"])
    temporary = final.with_name(f"tmp-{final.name}")
    _remove_leftovers(final.parent)
    temporary.mkdir(parents=True)
    try:
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        safetensors.torch.save_file(weights, temporary / WEIGHTS)
        torch.save(state, temporary / STATE)
        (temporary / CONFIG).write_text(config_yaml, encoding="utf-8")
        files = {name: _fingerprint(temporary / name) for name in (WEIGHTS, STATE, CONFIG)}
        manifest = {"format": FORMAT, "step": state["step"], "best_step": state["best"]["step"], "files": files}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        _set_aside(final)  # the same step reached twice, after a resume from before it
        temporary.rename(final)
        _link("last", to=final)
        _flush(final.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        # torch and safetensors report a full disk as errors of their own
        free = shutil.disk_usage(run_dir).free
        raise OSError(
            f"checkpoint {final} could not be written ({error}); {free / 2**20:.1f} MiB are free on that disk. "
            "The earlier checkpoints are whole: make room and start the same command again"
        ) from error
    _prune(final.parent, keep=keep)


def mark_best(run_dir: Path, step: int) -> None:
    """Make `checkpoints/best` a link to the checkpoint of `step`."""
    _link("best", to=folder_of(run_dir, step))


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint after checking size and SHA-256 of its files.

    Raises:
        UserError: it is torn, changed, or of another format; the text says what is wrong with it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder} has format {manifest['format']}, this dualview reads format {FORMAT}")
        content = {}
        for name, expected in manifest["files"].items():
            content[name] = (folder / name).read_bytes()
            if len(content[name]) != expected["bytes"]:
                raise UserError(f"{folder / name} has {len(content[name])} bytes instead of {expected['bytes']}")
            if hashlib.sha256(content[name]).hexdigest() != expected["sha256"]:
                raise UserError(f"{folder / name} was changed: its SHA-256 is not that of {MANIFEST}")
        return Checkpoint(folder=folder, weights_bytes=content[WEIGHTS], state_bytes=content[STATE])
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / MANIFEST} is damaged") from None


def read_newest(run_dir: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run, with a warning for each newer one that is not; None without any.

    Raises:
        UserError: there are checkpoints, and none of them is whole.
    """
    problems = []
    for folder in sorted(run_dir.glob("checkpoints/step-*"), key=_step, reverse=True):
        try:
            whole = read(folder)
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            logger.warning("a checkpoint is damaged, going back to %s: %s", folder.name, problem)
        return whole
    if problems:
        raise UserError(
            f"no checkpoint in {run_dir / 'checkpoints'} can be used\n{listed(problems)}\n"
            "Choose a new run.dir, or remove that folder to train from the start"
        )
    return None


def read_best(run_dir: Path) -> Checkpoint:
    """The best checkpoint of a run; where it is damaged, with a warning, the newest whole one.

    Raises:
        UserError: there is none.
    """
    try:
        return read((run_dir / "checkpoints" / "best").resolve())
    except UserError as error:
        newest = read_newest(run_dir)
        if newest is None:
            raise
        logger.warning("the best checkpoint cannot be used, taking %s instead: %s", newest.folder.name, error)
        return newest


def _link(name: str, *, to: Path) -> None:
    """Link `name` beside a checkpoint, replacing what it was in one go."""
    temporary = to.with_name(f"tmp-{name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(to.name)
    temporary.replace(to.with_name(name))


def _fingerprint(file: Path) -> dict[str, int | str]:
    with file.open("rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else -1


def _prune(checkpoints: Path, *, keep: int) -> None:
    newest = sorted(checkpoints.glob("step-*"), key=_step)[-keep:]
    kept = {folder.name for folder in newest} | {(checkpoints / "best").resolve().name}
    for folder in newest:
        try:
            best_step = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["best_step"]
        except (OSError, ValueError, KeyError):
            continue  # torn: nothing to learn from it
        kept.add(folder_of(checkpoints.parent, best_step).name)
    for folder in checkpoints.glob("step-*"):
        if folder.name not in kept:
            _set_aside(folder)
    _remove_leftovers(checkpoints)


def _set_aside(folder: Path) -> None:
    """Take a checkpoint out of the count at once; its files can take longer to go."""
    if folder.exists():
        folder.rename(folder.with_name(f"tmp-old-{folder.name}"))


def _remove_leftovers(checkpoints: Path) -> None:
    """Remove what a kill in the middle of writing or removing left behind."""
    for leftover in checkpoints.glob("tmp-step-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for leftover in checkpoints.glob("tmp-old-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
