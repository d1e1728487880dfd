"""A fixed set of runs and what they give, to show that a change of the code changes no number.

    python docs/generate/fixed_runs.py OUT        trains into OUT and writes OUT/record.json
    python docs/generate/fixed_runs.py --compare ONE/record.json OTHER/record.json

The quickstart on one and on two processes; every member of the family on `densenet_tiny` with view dropout, dropout
and accumulation; one run that SIGUSR1 interrupts and the same command continues. Each is evaluated, one is asked to
predict. The record holds SHA-256 of the final weights, of metrics.json, of evaluation.json without the versions that
it names, of the logged losses and of the predicted CSV. About ten minutes on two cores.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image

ROOT = Path(__file__).parents[2]
TINY = [
    "data.phantom.num_studies=120",
    "data.phantom.unknown_label_fraction=0.1", "data.view_dropout.p_pa=0.2", "data.view_dropout.p_lateral=0.2",
    "model.dropout=0.1", "optim.gradient_clip_norm=1", "loss.pos_weight=reference", "train.max_steps=12",
    "train.micro_batch_size=4", "train.accumulation_steps=2", "train.eval_every_steps=6", "train.log_every_steps=3",
    "tracking.wandb=disabled",
]  # fmt: skip
MEMBERS = {
    "auxloss": [],
    "auxloss_cl": ["loss.curriculum_probability=0.5"],
    "auxloss_learned": ["loss.learned_weights=uncertainty"],
    "auxloss_shared": ["model.shared_branch=true"],
    "auxloss_vote": ["model.joint_rule=vote", "model.merge_after_block=4"],
    "dualnet": ["model.name=dualnet"],
    "hemis": ["model.name=hemis"],
    "hemis_cl": ["model.name=hemis", "data.view_dropout.whole_step=true"],
    "attention": ["model.name=attention"],
    "single_pa": ["model.name=single", "model.view=pa"],
    "single_lateral": ["model.name=single", "model.view=lateral"],
    "stacked": ["model.name=stacked"],
}


def dualview(*arguments: str, processes: int = 1) -> subprocess.Popen[bytes]:
    """Start a command of this checkout's dualview."""
    launcher = ["-m", "dualview"]
    if processes > 1:
        launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "launch/cpu2.yaml"), *launcher]
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, *launcher, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )


def call(*arguments: str, processes: int = 1) -> None:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    if dualview(*arguments, processes=processes).wait() != 0:
        raise SystemExit(f"failed: dualview {' '.join(arguments)}")


def make_all(out: Path) -> None:
    """Train, evaluate and predict everything that the record is about."""
    for processes in (1, 2):
        run = str(out / f"quickstart-{processes}")
        call("train", "configs/quickstart.yaml", f"run.dir={run}", "tracking.wandb=disabled", processes=processes)
        call("evaluate", run, "tracking.wandb=disabled", processes=processes)
    for name, changes in MEMBERS.items():
        run = str(out / name)
        call("train", "configs/quickstart.yaml", f"run.dir={run}", *TINY, *changes)
        call("evaluate", run, "--resamples", "200")
    interrupted = out / "interrupted"
    command = ["train", "configs/quickstart.yaml", f"run.dir={interrupted}", *TINY, "train.log_every_steps=1"]
    process = dualview(*command)
    while not logged_steps(interrupted):
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    if process.wait() != 75:
        raise SystemExit("the run to be interrupted was not: its machine is too fast, or signals are not heeded")
    call(*command)
    call("evaluate", str(interrupted), "--resamples", "200")
    make_pictures(out / "pictures")
    call("predict", str(out / "auxloss"), "--folder", str(out / "pictures"), "--out", str(out / "predicted.csv"))


def logged_steps(run: Path) -> list[str]:
    file = run / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def make_pictures(folder: Path) -> None:
    """Studies with both views, PA only and lateral only, of blocks in random grays."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(9):
        for view in (("pa", "lateral"), ("pa",), ("lateral",))[number % 3]:
            blocks = generator.integers(0, 256, (10, 12), dtype=np.uint8)
            Image.fromarray(np.kron(blocks, np.ones((8, 8), np.uint8))).save(folder / f"S{number}_{view}.png")


def record_of(out: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of what every run below `out` gave."""
    record = {}
    for run in sorted(path.parent for path in out.glob("*/metrics.json")):
        evaluation = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
        del evaluation["versions"]
        losses = [json.loads(line) for line in logged_steps(run)]
        losses = [{key: line[key] for key in line if key.startswith(("step", "loss/", "val"))} for line in losses]
        weights = safetensors.numpy.load_file(run / "checkpoints" / "last" / "model.safetensors")
        record[run.name] = {
            "weights": digest("".join(f"{key} {digest(value)}" for key, value in sorted(weights.items()))),
            "metrics.json": digest((run / "metrics.json").read_bytes()),
            "evaluation.json": digest(json.dumps(evaluation, sort_keys=True)),
            "losses": digest(json.dumps([line for line in losses if line])),
            "operating_points.json": digest((run / "operating_points.json").read_bytes()),
        }
    record["predict"] = {"csv": digest((out / "predicted.csv").read_bytes())}
    return record


def digest(content: str | bytes | np.ndarray) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data.tobytes() if isinstance(data, np.ndarray) else data).hexdigest()[:16]


def compare(one: Path, other: Path) -> int:
    """Print every difference of two records; returns their number."""
    first, second = (json.loads(file.read_text()) for file in (one, other))
    differing = [
        f"{run} {what}: {first.get(run, {}).get(what)}, {second.get(run, {}).get(what)}"
        for run in sorted({*first, *second})
        for what in sorted({*first.get(run, {}), *second.get(run, {})})
        if first.get(run, {}).get(what) != second.get(run, {}).get(what)
    ]
    total = sum(len(values) for values in first.values())
    print("\n".join(differing) or f"bit-equal: {total} checksums of {len(first)} runs")
    return len(differing)


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        sys.exit(min(compare(Path(sys.argv[2]), Path(sys.argv[3])), 1))
    out = Path(sys.argv[1]).resolve()
    make_all(out)
    (out / "record.json").write_text(json.dumps(record_of(out), indent=1) + "\n")
