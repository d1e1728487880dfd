"""`dualview train`, with a fault on one rank in one step; only in the first attempt of a restarted group.

    accelerate launch ... run_faulty.py FAULT RANK STEP train CONFIG ...      or as `faulty`, a function for ranks

FAULT is raise, nan (in the loss), kill (SIGKILL), stop (SIGSTOP), usr1 (SIGUSR1 to that rank alone), repeat (that rank
takes the step before once more) or no_backward (its backward passes leave out the network).
"""

import os
import signal
import sys

import torch

import dualview.commands.train as training
import dualview.training.step as training_step
from dualview.cli import main

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "usr1": signal.SIGUSR1}


def break_training(fault: str, *, rank: int, faulty_step: int) -> None:
    if os.environ.get("RANK", "0") != str(rank) or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return
    real_count, real_take_step, real_forward = training.count, training.take_step, training_step.forward

    def count(group, *, step, job):
        return real_count(group, step=step - (fault == "repeat" and step == faulty_step), job=job)

    def take_step(learner, group, *, step, **kwargs):
        if step == faulty_step:
            if fault == "raise":
                raise ValueError(f"rank {rank} has a bug")
            if fault in SIGNALS:
                os.kill(os.getpid(), SIGNALS[fault])
        training_step.forward = forward if step == faulty_step else real_forward
        return real_take_step(learner, group, step=step, **kwargs)

    def forward(learner, batch, **kwargs):
        losses = real_forward(learner, batch, **kwargs)
        if fault == "nan":
            return losses._replace(pa=losses.pa * torch.nan)
        if fault == "no_backward":
            return type(losses)(*(part.detach().requires_grad_() for part in losses))
        return losses

    training.count, training.take_step = count, take_step


def faulty(fault: str, rank: int, faulty_step: int, *words: str) -> None:
    """The command `dualview WORDS` with that fault."""
    break_training(fault, rank=rank, faulty_step=faulty_step)
    sys.argv = ["dualview", *words]
    main()


if __name__ == "__main__":
    fault, rank, step, *words = sys.argv[1:]
    faulty(fault, int(rank), int(step), *words)
