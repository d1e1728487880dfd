"""C7: a run that was killed and resumed is bit-equal with one that was not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGN = Path(__file__).with_name("campaign.py")


@pytest.mark.parametrize(
    ("kills", "seed"), [(4, 0), pytest.param(24, 1, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_every_killed_and_resumed_run_ends_as_the_undisturbed_one(tmp_path, kills, seed):
    command = [sys.executable, CAMPAIGN, tmp_path, "--kills", str(kills), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert len(results) == kills
    assert all(result["status"] == -9 and result["differs"] is None for result in results)
    assert len({result["moment"] for result in results}) == 4
