"""Broken images and tables never bring the readers down.

More: python -m tests.faults.fuzz_images FOLDER --cases 100000, and tests.faults.fuzz_tables.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT


def fuzzed(program: str, folder: Path, *, cases: int) -> dict:
    """What the program counts; it ends with an error at the first fault."""
    command = [sys.executable, "-m", f"tests.faults.{program}", str(folder), "--cases", str(cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, cwd=ROOT)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    return json.loads(done.stdout)


@pytest.mark.parametrize("cases", [2500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutants_give_an_image_or_a_refusal_in_bounded_memory(tmp_path, cases):
    counts = fuzzed("fuzz_images", tmp_path, cases=cases)
    assert counts["images"] + counts["refusals"] == cases
    assert min(counts["images"], counts["refusals"]) > 500  # the mutants are neither all whole nor all hopeless
    assert counts["more_mib"] < 1024


@pytest.mark.parametrize("cases", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_tables_give_an_account_of_every_row_or_one_error_in_bounded_memory(tmp_path, cases):
    counts = fuzzed("fuzz_tables", tmp_path, cases=cases)
    assert counts.pop("more_mib") < 512
    assert sum(sum(of_reader.values()) for of_reader in counts.values()) == cases
    assert all(min(of_reader.values()) > 5 for of_reader in counts.values()), counts  # neither all whole nor hopeless
