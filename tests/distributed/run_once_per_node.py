"""Work that one process per node does, longer than the time limit: run_once_per_node.py FOLDER SECONDS [fail]."""

import sys
import time
from pathlib import Path

from dualview.config import DistributedConfig, RunConfig
from dualview.distributed import start


def main(folder: Path, *, seconds: float, fail: bool) -> None:
    with start(RunConfig(device="cpu"), distributed=DistributedConfig(timeout_seconds=5)) as job:

        def work() -> None:
            time.sleep(seconds)
            if fail:
                raise ValueError("no room for the copy")
            with (folder / "done.txt").open("a") as file:
                file.write(f"rank {job.rank}\n")

        job.once_per_node(work)
        assert (folder / "done.txt").read_text() == "rank 0\n"  # on every rank, once it goes on


if __name__ == "__main__":
    main(Path(sys.argv[1]), seconds=float(sys.argv[2]), fail=sys.argv[3:] == ["fail"])
