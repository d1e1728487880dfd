"""Starting N processes through accelerate launch, as users start training: for tests whose claim the launcher is."""

import os
import subprocess
import sys

import pytest

from tests.support import ROOT


def launch(
    num_processes: int, *arguments: object, check: bool = True, max_restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` on N processes; a hang ends after the time limit."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "launch/cpu2.yaml")]
    command += ["--num_processes", str(num_processes), "--max_restarts", str(max_restarts)]
    command += map(str, arguments)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_DEBUG_MODE": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment, cwd=ROOT, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}")
    return done


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """What the launcher names as the root cause, the last lines of its output."""
    return done.stderr.rpartition("Root Cause")[2]
