"""Work that one process per node does, longer than the time limit of what ranks do together."""

import time
from pathlib import Path

from dualview.config import DistributedConfig, RunConfig
from dualview.distributed import start

LIMIT_SECONDS = 5  # the least that may be configured


def run_once_per_node(folder: Path, *, seconds: float, fail: bool = False) -> None:
    with start(RunConfig(device="cpu"), distributed=DistributedConfig(timeout_seconds=LIMIT_SECONDS)) as job:

        def work() -> None:
            time.sleep(seconds)
            if fail:
                raise ValueError("no room for the copy")
            with (folder / "done.txt").open("a") as file:
                file.write(f"rank {job.rank}\n")

        job.once_per_node(work)
        assert (folder / "done.txt").read_text() == "rank 0\n"  # on every rank, once it goes on
