"""`dualview train`, with a fault on one rank before it counts one step; only in the first attempt of a restarted group.

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

fault, rank, faulty_step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
real_count, real_forward = training.count, training.forward
now = 0


def count(group, *, step, job):
    global now  # noqa: PLW0603
    now = step
    if step == faulty_step and job.rank == rank and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        if fault == "raise":
            raise ValueError("rank 1 has a bug")
        if fault in ("kill", "stop", "usr1"):
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "usr1": signal.SIGUSR1}[fault])
        if fault == "repeat":
            step -= 1
    return real_count(group, step=step, job=job)


def forward(model, batch, **kwargs):
    losses = real_forward(model, batch, **kwargs)
    if now == faulty_step and int(os.environ.get("RANK", "0")) == rank:
        if fault == "nan":
            losses = losses._replace(pa=losses.pa * torch.nan)
        if fault == "no_backward":
            losses = type(losses)(*(part.detach().requires_grad_() for part in losses))
    return losses


training.count, training.forward = count, forward
del sys.argv[1:4]
main()
