"""`dualview predict` in small chunks, with a rank that is told to stop once it has written its first one."""

import os
import signal

from dualview.commands import predict as predicting
from dualview.inference.csv_parts import Parts
from tests.support.process_group import dualview

CHUNK_STUDIES = 64


def run_prediction(*words: object, stopped_rank: int | None = None) -> None:
    """The command `dualview WORDS`; a signal to `stopped_rank`, and to no other, after its first part."""
    predicting.CHUNK_STUDIES = CHUNK_STUDIES
    write = Parts.write

    def write_and_stop(self, number, rows):
        write(self, number, rows)
        os.kill(os.getpid(), signal.SIGTERM)

    if os.environ["RANK"] == str(stopped_rank):
        Parts.write = write_and_stop
    dualview(*words)
