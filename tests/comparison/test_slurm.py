"""The Slurm array's script, run by bash with a made-up `dualview` and `scontrol`."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dualview.comparison.plan import read_plan
from dualview.comparison.runs import slurm_array
from tests.support import ROOT

DUALVIEW = """#!/usr/bin/env bash
trap 'sleep 0.2; exit 75' USR1
echo "$@" > called
for _ in $(seq 100); do sleep 0.1; [[ ! -f ends ]] || exit $(cat ends); done
"""


@pytest.mark.parametrize(("status", "requeued"), [(75, True), (1, False), (0, False)])
def test_a_run_is_requeued_only_where_a_signal_stopped_it(tmp_path, status, requeued):
    """75 comes from a run that finishes its step after SIGUSR1 and saves; other statuses are its own."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, text in (("dualview", DUALVIEW), ("scontrol", '#!/usr/bin/env bash\necho "$@" > requeued\n')):
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755)
    script = tmp_path / "array.sh"
    script.write_text(slurm_array(read_plan(ROOT / "configs/compare.yaml"), command="dualview compare x.yaml"))
    environment = {
        **os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "42",
    }  # fmt: skip
    process = subprocess.Popen(["bash", str(script)], cwd=tmp_path, env=environment)
    _wait_for(tmp_path / "called")
    if status == 75:
        process.send_signal(signal.SIGUSR1)
    else:
        (tmp_path / "ends").write_text(str(status))
    assert process.wait(timeout=30) == status
    assert (tmp_path / "called").read_text() == "compare x.yaml --only 3\n"
    assert (tmp_path / "requeued").exists() == requeued
    if requeued:
        assert (tmp_path / "requeued").read_text() == "requeue 42\n"


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
