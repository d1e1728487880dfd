"""Kill a training at seeded random moments, resume it, and compare it with one that nobody killed.

    python tests/faults/campaign.py FOLDER --kills 24 --seed 0

Every kill is a SIGKILL to a process of its own (forked, so that torch is imported once): between steps,
inside the writing of a checkpoint, during an evaluation, or at a random time. Then the same command is
run to its end, and final weights, predictions and recorded steps must be those of the undisturbed run.
Prints one JSON object per kill.
"""

import argparse
import gc
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

import dualview.commands.train as training
from dualview.config import Config
from dualview.data.dataset import StudyDataset
from dualview.run import checkpoint

STEPS, EVAL_EVERY = 12, 4


def config_for(run_dir: Path) -> Config:
    """Everything random is on: dropout, augmentation, view dropout, images drawn anew, unknown labels."""
    return Config.model_validate(
        {
            "run": {"dir": run_dir, "device": "cpu"},
            "data": {
                "image_size_px": 64,
                "num_workers": 0,
                "view_dropout": {"p_pa": 0.1, "p_lateral": 0.1},
                "several_images": "random",
                "phantom": {"num_studies": 60, "unknown_label_fraction": 0.1},
            },
            "model": {"backbone": "densenet_tiny", "dropout": 0.1},
            "train": {
                "max_steps": STEPS,
                "eval_every_steps": EVAL_EVERY,
                "checkpoint_every_steps": 3,
                "log_every_steps": 1,
                "micro_batch_size": 4,
                "accumulation_steps": 2,
            },
            "tracking": {"wandb": "disabled"},
        }
    )


def die_at_call(number: int, *places: tuple[object, str]) -> None:
    """From now on the number-th call of any of these functions is the last thing this process does."""
    calls = 0

    def deadly(function: Callable) -> Callable:
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for owner, name in places:
        setattr(owner, name, deadly(getattr(owner, name)))


WRITING = (
    (checkpoint.safetensors.torch, "save_file"),
    (checkpoint.torch, "save"),
    (checkpoint, "_fingerprint"),
    (checkpoint, "flush_to_disk"),
    (checkpoint, "link_whole"),
    (checkpoint, "_set_aside"),
    (checkpoint, "_remove_leftovers"),
    (pathlib.Path, "rename"),
)


def arm(moment: str, generator: random.Random) -> str:
    """Prepare this process's death; returns when it will come."""
    if moment == "between steps":
        number = generator.randint(1, 2 * STEPS)
        die_at_call(number, (training, "count"), (training, "set_learning_rates"))
    elif moment == "writing a checkpoint":
        number = generator.randint(1, 60)
        die_at_call(number, *WRITING)
    else:
        number = generator.randint(1, 2 * 12)
        real = StudyDataset.__getitem__
        calls = 0

        def read(dataset: StudyDataset, key: tuple[int, ...]) -> object:
            nonlocal calls
            calls += dataset.augment is None  # a study of an evaluation
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(dataset, key)

        StudyDataset.__getitem__ = read  # type: ignore[method-assign]
    return f"{moment}, call {number}"


def run(run_dir: Path, *, moment: str | None = None, seed: int = 0, seconds: float | None = None) -> int:
    """Train in a child process; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        gc.freeze()  # what is imported is no garbage, and Accelerate looks for some at the end of every training
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        status = 1
        try:
            if moment is not None and seconds is None:
                arm(moment, random.Random(seed))  # noqa: S311
            training.train(config_for(run_dir))
            status = 0
        finally:
            os._exit(status)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def difference(run_dir: Path, undisturbed: Path) -> str | None:
    """What differs between two finished runs; None where nothing does."""
    weights = [load_file(path / "checkpoints" / "last" / "model.safetensors") for path in (run_dir, undisturbed)]
    for name, value in weights[1].items():
        if not torch.equal(weights[0][name], value):
            return f"weights {name}"
    for split in ("val", "test"):
        tables = [pd.read_parquet(path / f"predictions-{split}.parquet") for path in (run_dir, undisturbed)]
        if not tables[0].equals(tables[1]):
            return f"predictions of {split}"
    recorded = [
        [
            {key: value for key, value in json.loads(line).items() if not key.startswith("speed/")}
            for line in (path / "metrics.jsonl").read_text().splitlines()
        ]
        for path in (run_dir, undisturbed)
    ]
    return None if recorded[0] == recorded[1] else "recorded metrics"


def main(folder: Path, *, kills: int, seed: int) -> bool:
    generator = random.Random(seed)  # noqa: S311
    undisturbed = folder / "undisturbed"
    started = time.monotonic()
    assert run(undisturbed) == 0, "the undisturbed run failed"
    duration = time.monotonic() - started
    moments = ("between steps", "writing a checkpoint", "during an evaluation", "at a random time")
    all_equal = True
    for kill in range(kills):
        run_dir, moment = folder / str(kill), moments[kill % len(moments)]
        seconds = generator.uniform(0.05, 0.85) * duration if moment == "at a random time" else None
        status = run(run_dir, moment=moment, seed=seed * 1000 + kill, seconds=seconds)
        while seconds is not None and status == 0:  # it was done before its time came: machines have slow minutes
            shutil.rmtree(run_dir)
            seconds /= 2
            status = run(run_dir, moment=moment, seconds=seconds)
        checkpoints = sorted(path.name for path in run_dir.glob("checkpoints/*"))
        resumed = run(run_dir)
        differs = f"the resumed run ended with {resumed}" if resumed else difference(run_dir, undisturbed)
        all_equal &= differs is None and status == -signal.SIGKILL
        print(
            json.dumps(
                {"kill": kill, "moment": moment, "seconds": seconds, "status": status, "found": checkpoints,
                 "differs": differs}
            ),
            flush=True,
        )  # fmt: skip
        shutil.rmtree(run_dir)
    return all_equal


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(0 if main(arguments.folder, kills=arguments.kills, seed=arguments.seed) else 1)
