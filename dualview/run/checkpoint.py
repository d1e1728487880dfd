"""Checkpoints of a run: written whole or not at all, checked before they are used.

    checkpoints/
      step-000250/   model.safetensors; state.pt, the training state and the optimizer's (torch.load with
                     weights_only=True); config.yaml; and manifest.json: format, step, best step, findings, their
                     pos_weight, configuration, size and SHA-256 of each of the others, and SHA-256 of all that
      best, last     links to the checkpoint with the best validation AUROC, and to the newest

Whoever only wants the network reads the manifest and the weights; the optimizer's moments are left alone. Older
checkpoints have findings and configuration in state.pt, from where they are still read, and do not say pos_weight.
"""

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from dualview.config import Config
from dualview.config.load import as_it_was_trained
from dualview.errors import UserError, listed
from dualview.files import flush_to_disk, link_whole, sha256_of
from dualview.run.directory import RunDir
from dualview.run.state import TrainState

logger = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS, STATE, CONFIG, MANIFEST = "model.safetensors", "state.pt", "config.yaml", "manifest.json"


class SavedTraining(NamedTuple):
    """What a training goes on from, besides the weights."""

    state: TrainState
    optimizer: dict[str, Any]
    loss_scale: dict[str, Any] | None  # fields of `LossScale`, where there is one
    average: dict[str, Any] | None  # `WeightAverage.state`, where the weights are an average


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint read into memory as bytes, which can travel to the other ranks."""

    folder: Path
    step: int
    findings: tuple[str, ...]  # (K,) names in the order of the logits
    config: dict[str, Any]  # settings of the run, as `Config.model_dump(mode="json")`, keys of later as it did without
    pos_weight: tuple[float, ...] | None  # (K,) factors of the odds, see `Criterion.odds_factors`; None: an older one
    weights_sha256: str  # of the file of weights: tells one network from another
    weights_bytes: bytes
    state_bytes: bytes | None  # training state; None: not read, only needed to resume

    @property
    def weights(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = safetensors.torch.load(self.weights_bytes)
        return tensors

    def training(self) -> SavedTraining:
        """Unpack where the training was, and the state of its optimizer."""
        assert self.state_bytes is not None, "the checkpoint was read without its state"
        saved = _unpacked(self.state_bytes)
        return SavedTraining(
            TrainState.from_dict(saved), saved["optimizer"], saved.get("loss_scale"), saved.get("average")
        )


def save(
    run: RunDir,
    *,
    weights: dict[str, Tensor],
    state: TrainState,
    optimizer: dict[str, Any],
    findings: tuple[str, ...],
    config: Config,
    config_yaml: str,
    keep: int,
    pos_weight: Sequence[float] | None = None,
    loss_scale: dict[str, Any] | None = None,
    average: dict[str, Any] | None = None,
) -> None:
    """Write `checkpoints/step-N`, N being `state.step`, and drop old ones. Main process only.

    The folder is written under a temporary name, flushed to disk and renamed, so that a kill at any
    moment leaves the earlier checkpoints and either none or the whole of this one. The newest `keep`
    stay, and for each of them the best checkpoint that it knew of.

    Args:
        pos_weight: (K,) factors by which the odds that are learned are above those of the data, see
            `Criterion.odds_factors`: the weights of positive labels in the loss.
        loss_scale: fields of the `LossScale` of float16.
        average: where `weights` are an average, what the training goes on from (`WeightAverage.state`).

    Raises:
        OSError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    final = run.checkpoint(state.step)
    temporary = final.with_name(f"tmp-{final.name}")
    _remove_leftovers(run.checkpoints)
    temporary.mkdir(parents=True)
    try:
        contiguous = {key: value.contiguous() for key, value in weights.items()}
        safetensors.torch.save_file(contiguous, temporary / WEIGHTS)
        of_learner = {"optimizer": optimizer, "loss_scale": loss_scale, "average": average}
        torch.save({**state.to_dict(), **of_learner}, temporary / STATE)
        (temporary / CONFIG).write_text(config_yaml, encoding="utf-8")
        files = {name: _fingerprint(temporary / name) for name in (WEIGHTS, STATE, CONFIG)}
        manifest = {
            "format": FORMAT,
            "step": state.step,
            "best_step": state.best.step,
            "findings": list(findings),
            **({} if pos_weight is None else {"pos_weight": list(pos_weight)}),
            "config": config.model_dump(mode="json"),
            "files": files,
        }
        text = json.dumps({**manifest, "sha256": _digest(manifest)}, indent=2, ensure_ascii=False)
        (temporary / MANIFEST).write_text(text + "\n", encoding="utf-8")
        for file in temporary.iterdir():
            flush_to_disk(file)
        _set_aside(final)  # A run that resumed from before this step reaches it a second time.
        temporary.rename(final)
        link_whole(run.checkpoint("last"), to=final)
        flush_to_disk(run.checkpoints)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        # A full disk is reported by torch and safetensors as errors of their own.
        free = shutil.disk_usage(run.path).free
        raise OSError(
            f"checkpoint {final} could not be written ({error}); {free / 2**20:.1f} MiB are free on that disk. "
            "The earlier checkpoints are whole: make room and start the same command again"
        ) from error
    _prune(run, keep=keep)


def mark_best(run: RunDir, step: int) -> None:
    """Make `checkpoints/best` a link to the checkpoint of `step`."""
    link_whole(run.checkpoint("best"), to=run.checkpoint(step))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, checked against its own SHA-256 where it has one.

    Raises:
        UserError: the folder has no manifest, a damaged one, or one of another format.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder} has format {manifest['format']}, this dualview reads format {FORMAT}")
        expected = manifest.pop("sha256", None)
        if expected is not None and _digest(manifest) != expected:
            raise ValueError("not what was written")
        if not isinstance(manifest["files"], dict):
            raise TypeError("files")
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / MANIFEST} is damaged") from None
    return dict(manifest)


def read(folder: Path, *, with_state: bool = True) -> Checkpoint:
    """Read a checkpoint after checking size and SHA-256 of its files.

    Args:
        with_state: also what only the continuation of the training needs.

    Raises:
        UserError: the checkpoint is torn, changed, or of another format; the text says what is wrong with it.
    """
    manifest = read_manifest(folder)
    is_old = "config" not in manifest
    content = {}
    try:
        for name, expected in manifest["files"].items():
            if name == STATE and not with_state and not is_old:
                continue
            content[name] = (folder / name).read_bytes()
            if len(content[name]) != expected["bytes"]:
                raise UserError(f"{folder / name} has {len(content[name])} bytes instead of {expected['bytes']}")
            if hashlib.sha256(content[name]).hexdigest() != expected["sha256"]:
                raise UserError(f"{folder / name} was changed: its SHA-256 is not that of {MANIFEST}")
        described = _unpacked(content[STATE]) if is_old else manifest
        return Checkpoint(
            folder=folder,
            step=manifest["step"],
            findings=tuple(described["findings"]),
            config=as_it_was_trained(described["config"]),
            pos_weight=tuple(map(float, manifest["pos_weight"])) if "pos_weight" in manifest else None,
            weights_sha256=manifest["files"][WEIGHTS]["sha256"],
            weights_bytes=content[WEIGHTS],
            state_bytes=content[STATE] if with_state else None,
        )
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / MANIFEST} is damaged") from None


def read_newest(run: RunDir) -> Checkpoint | None:
    """The newest whole checkpoint of a run, with a warning for each newer one that is not; None without any.

    Raises:
        UserError: there are checkpoints, and none of them is whole.
    """
    problems = []
    for folder in sorted(run.checkpoints.glob("step-*"), key=_step, reverse=True):
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
            f"no checkpoint in {run.checkpoints} can be used\n{listed(problems)}\n"
            "Choose a new run.dir, or remove that folder to train from the start"
        )
    return None


def read_best(run: RunDir) -> Checkpoint:
    """The best checkpoint of a run; where it is damaged, with a warning, the newest whole one.

    Raises:
        UserError: the run has no whole checkpoint.
    """
    try:
        return read(run.checkpoint("best").resolve(), with_state=False)
    except UserError as error:
        newest = read_newest(run)
        if newest is None:
            raise
        logger.warning("the best checkpoint cannot be used, taking %s instead: %s", newest.folder.name, error)
        return newest


def _unpacked(content: bytes) -> dict[str, Any]:
    unpacked: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return unpacked


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _fingerprint(file: Path) -> dict[str, int | str]:
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def _step(folder: Path) -> int:
    number = folder.name.removeprefix("step-")
    return int(number) if number.isdigit() else -1


def _prune(run: RunDir, *, keep: int) -> None:
    newest = sorted(run.checkpoints.glob("step-*"), key=_step)[-keep:]
    kept = {folder.name for folder in newest} | {run.checkpoint("best").resolve().name}
    for folder in newest:
        try:
            best_step = read_manifest(folder)["best_step"]
        except (UserError, KeyError):
            continue  # A torn checkpoint has no step to name.
        kept.add(run.checkpoint(best_step).name)
    for folder in run.checkpoints.glob("step-*"):
        if folder.name not in kept:
            _set_aside(folder)
    _remove_leftovers(run.checkpoints)


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
