"""Runs of seconds, and what they leave behind."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dualview.config import Config

PHANTOMS = {"source": "phantom", "image_size_px": 64, "num_workers": 0, "phantom": {"num_studies": 60}}
TINY: dict[str, dict[str, Any]] = {
    "run": {"device": "cpu"},
    "data": PHANTOMS,
    "model": {"backbone": "densenet_tiny"},
    "train": {"max_steps": 4, "eval_every_steps": 2, "log_every_steps": 1, "micro_batch_size": 4},
    "tracking": {"wandb": "disabled"},
}


def tiny_config(run_dir: Path, **sections: dict[str, Any]) -> Config:
    """Four steps of 4 of 60 phantoms (36 train, 12 val, 12 test), with changes per section.

    >>> tiny_config(Path("run"), train={"max_steps": 8}).train.max_steps
    8
    """
    values = {**TINY, **{name: {**TINY.get(name, {}), **changes} for name, changes in sections.items()}}
    return Config.model_validate({**values, "run": {**values["run"], "dir": run_dir}})


def records(run_dir: Path) -> list[dict[str, Any]]:
    """What was logged, in order; a last line that is half written is left out."""
    text = (run_dir / "metrics.jsonl").read_text().rpartition("\n")[0] if (run_dir / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def logged(run_dir: Path, key: str) -> list[Any]:
    """Each value of this key, in order."""
    return [record[key] for record in records(run_dir) if key in record]


def steps_logged(run_dir: Path) -> list[int]:
    return [record["step"] for record in records(run_dir) if "loss/total" in record]


def weights(run_dir: Path, checkpoint: str = "last") -> dict[str, Tensor]:
    return load_file(run_dir / "checkpoints" / checkpoint / "model.safetensors")


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether both hold the same names with bit-equal tensors."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
