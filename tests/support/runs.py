"""Runs of seconds, and what they leave behind."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dualview.config import Config
from dualview.models.build import build_configured
from dualview.run import checkpoint
from dualview.run.directory import RunDir
from dualview.run.state import BestCheckpoint, TrainState

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


def write_untrained_run(
    run_dir: Path,
    name: str = "auxloss",
    *,
    findings: tuple[str, ...] = ("Nodule", "Effusion", "Hernia"),
    pos_weight: list[float] | None = None,
    **sections: Any,
) -> Path:
    """A run directory whose network has random weights, so that no test waits for a training; returns `run_dir`."""
    model = {"name": name, "backbone": "densenet_tiny", **sections.pop("model", {})}
    data = {"image_size_px": 64, **sections.pop("data", {})}
    config = Config.model_validate({"run": {"dir": run_dir}, "data": data, "model": model, **sections})
    network = build_configured(config, num_findings=len(findings))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for key, value in network.state_dict().items():  # statistics and heads as if it had been trained
            if key.endswith("running_mean"):
                value.normal_(std=0.1)
            elif key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif key.endswith(("head.weight", "joint.weight")):
                value.normal_(std=4 * value.shape[1] ** -0.5)
    run = RunDir(run_dir)
    state = TrainState(run_id="", micro_batches_per_step=1, train_studies="", step=7, best=BestCheckpoint(None, 7))
    checkpoint.save(
        run, weights=network.state_dict(), state=state, optimizer={}, findings=findings, config=config,
        config_yaml=config.to_yaml(), keep=1, pos_weight=pos_weight or [1.0] * len(findings),
    )  # fmt: skip
    checkpoint.mark_best(run, 7)
    return run_dir


def write_comparison(folder: Path, text: str) -> Path:
    """A file for `dualview compare` whose `{dir}` is `folder/runs`; returns its path."""
    path = folder / "compare.yaml"
    path.write_text(text.format(dir=folder / "runs"))
    return path


def quickstart(run_dir: Path, *settings: str) -> list[str]:
    """Words for `dualview`: train on 120 phantoms with dropout, a micro-batch of 4 and every step logged."""
    given = ("data.phantom.num_studies=120", "model.dropout=0.1", "train.micro_batch_size=4", "train.log_every_steps=1")
    return ["train", "configs/quickstart.yaml", f"run.dir={run_dir}", *given, *settings]


def records(run_dir: Path) -> list[dict[str, Any]]:
    """What was logged, in order; a last line that is half written is left out."""
    text = (run_dir / "metrics.jsonl").read_text().rpartition("\n")[0] if (run_dir / "metrics.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def logged(run_dir: Path, key: str) -> list[Any]:
    """Each value of this key, in order."""
    return [record[key] for record in records(run_dir) if key in record]


def steps_logged(run_dir: Path) -> list[int]:
    return [record["step"] for record in records(run_dir) if "loss/total" in record]


def weights(run_dir: Path, name: str = "last") -> dict[str, Tensor]:
    return load_file(run_dir / "checkpoints" / name / "model.safetensors")


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether both hold the same names with bit-equal tensors."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
