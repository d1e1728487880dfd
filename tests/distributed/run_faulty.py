"""`dualview train`, with a fault on one rank in one step; only in the first attempt of a restarted group.

    python run_faulty.py FAULT RANK STEP train CONFIG ...

FAULT is raise, nan (in the loss), kill (SIGKILL), stop (SIGSTOP), usr1 (SIGUSR1 to that rank alone), repeat (that rank
takes the step before once more) or no_backward (its backward passes leave out the network).
"""

import os
import signal
import sys

import torch

import dualview.train as training
from dualview.cli import main

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "usr1": signal.SIGUSR1}


def break_training(fault: str, *, rank: int, faulty_step: int) -> None:
    if os.environ.get("RANK", "0") != str(rank) or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return
    real_count, real_forward = training.count, training.forward
    now = 0

    def count(group, *, step, job):
        nonlocal now
        now = step
        if step == faulty_step:
            if fault == "raise":
                raise ValueError(f"rank {rank} has a bug")
            if fault in SIGNALS:
                os.kill(os.getpid(), SIGNALS[fault])
            if fault == "repeat":
                step -= 1
        return real_count(group, step=step, job=job)

    def forward(model, batch, **kwargs):
        losses = real_forward(model, batch, **kwargs)
        if now == faulty_step and fault == "nan":
            return losses._replace(pa=losses.pa * torch.nan)
        if now == faulty_step and fault == "no_backward":
            return type(losses)(*(part.detach().requires_grad_() for part in losses))
        return losses

    training.count, training.forward = count, forward


if __name__ == "__main__":
    fault, rank, step = sys.argv[1:4]
    del sys.argv[1:4]
    break_training(fault, rank=int(rank), faulty_step=int(step))
    main()
