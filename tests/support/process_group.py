"""N processes of one gloo world without a launcher: forked in milliseconds from a server that has imported everything.

What torch's launcher gives its ranks (environment, rendezvous store, a file for last words, an end for those that are
left when one fails) they are given here, so that a test of what ranks do together does not wait for a launcher and N
imports of torch. Where the launcher itself is the claim, tests start the launcher (launch.py).
"""

import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest
import torch
from torch import distributed as dist

from tests.support import ROOT

PRELOADED = ["pytest", "torch._dynamo", "dualview.cli", "wandb"]  # torch imports the second in the first step
GRACE_SECONDS = 10  # between the end of the first rank that fails and the killing of those that are left


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A group of ranks that has ended."""

    statuses: list[int]  # of each rank; negative for a signal
    stdout: str  # of all ranks, in their order
    stderr: str
    last_words: str  # of the rank that failed first: what the launcher prints as the root cause


class ProcessGroups:
    """Runs one group after another; the server that all are forked from lives as long as the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_groups = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def __call__(
        self,
        num_processes: int,
        function: Callable[..., object],
        *arguments: object,
        check: bool = True,
        timeout_seconds: float = 120,
        **options: object,
    ) -> Ended:
        """Run `function(*arguments, **options)` on every rank; a hang ends after the time limit and fails the test."""
        folder = self._folder / str(self._num_groups)
        folder.mkdir()
        self._num_groups += 1
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # the launcher holds one too
        work = partial(function, *arguments, **options)
        ranks = [
            self._context.Process(
                target=_be_rank,
                args=(work, folder / str(rank), _environment(rank, num_processes, port=store.port)),
            )
            for rank in range(num_processes)
        ]
        for rank in ranks:
            rank.start()
        in_time = _end(ranks, timeout_seconds=timeout_seconds)
        ended = Ended(
            statuses=[int(rank.exitcode) for rank in ranks],
            stdout="".join(_said(folder / str(rank), "stdout.txt") for rank in range(num_processes)),
            stderr="".join(_said(folder / str(rank), "stderr.txt") for rank in range(num_processes)),
            last_words=_last_words([folder / str(rank) / "error.json" for rank in range(num_processes)]),
        )
        if not in_time or (check and any(ended.statuses)):
            how = f"ended with {ended.statuses}" if in_time else f"took more than {timeout_seconds} s"
            said = f"{ended.stdout[-3000:]}\n{ended.stderr[-5000:]}\n{ended.last_words}"
            pytest.fail(f"{function.__name__}{arguments} on {num_processes} ranks {how}\n{said}")
        return ended


def dualview(*words: object) -> None:
    """The command `dualview WORDS`, as a function for ranks."""
    from dualview.cli import main  # noqa: PLC0415 - where the tests themselves run, nobody needs it

    sys.argv = ["dualview", *map(str, words)]
    main()


def _environment(rank: int, num_processes: int, *, port: int) -> dict[str, str]:
    """What torch's and Accelerate's launchers set."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "ACCELERATE_DEBUG_MODE": "1",
        "WANDB_MODE": "offline",
    }


def _be_rank(work: Callable[[], object], folder: Path, environment: dict[str, str]) -> None:
    folder.mkdir()
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o644), number)
    os.environ.update(environment, TORCHELASTIC_ERROR_FILE=str(folder / "error.json"))
    os.chdir(ROOT)
    default = multiprocessing.get_all_start_methods()[0]  # else workers of this rank would start servers of their own
    multiprocessing.set_start_method(default, force=True)
    torch.set_num_threads(1)
    gc.freeze()  # else Accelerate's last act is to search all that is imported, whose pages are copied for it
    work()


def _end(ranks: list[BaseProcess], *, timeout_seconds: float) -> bool:
    """Wait for all; once one has failed, end the others as the launcher does. False: they were out of time."""
    deadline = time.monotonic() + timeout_seconds
    in_time, one_failed = True, False
    while alive := [rank for rank in ranks if rank.exitcode is None]:
        if not one_failed and any(rank.exitcode for rank in ranks):
            one_failed, deadline = True, time.monotonic() + GRACE_SECONDS
            for rank in alive:
                rank.kill() if _is_stopped(rank) else rank.terminate()
        if time.monotonic() > deadline:
            in_time, deadline = one_failed, float("inf")
            for rank in alive:
                rank.kill()
        wait([rank.sentinel for rank in alive], timeout=0.1)
    return in_time


def _is_stopped(rank: BaseProcess) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(rank.pid).status() == psutil.STATUS_STOPPED
    return False


def _said(folder: Path, name: str) -> str:
    file = folder / name
    return file.read_text(errors="replace") if file.exists() else ""


def _last_words(files: list[Path]) -> str:
    """As torch's launcher chooses: the earliest; the lower rank's where two are of one second."""
    errors = [json.loads(file.read_text()) for file in files if file.exists()]
    return min(errors, key=lambda error: error["timestamp"])["message"] if errors else ""
