"""`dualview predict` on two processes, and stopped by a signal: byte for byte the CSV of one that nothing stopped."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from dualview.commands.predict import predict

ROOT = Path(__file__).parents[2]
NUM_STUDIES = 1400  # six chunks


@pytest.fixture
def arguments(make_run, draw_png, tmp_path):
    """The command without --out: studies of every availability, and every twentieth without an image."""
    for seed in range(5):
        draw_png(tmp_path / "images" / f"{seed}.png", seed=seed)
    table = tmp_path / "images" / "studies.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "pa", "lateral"])
        for n in range(NUM_STUDIES):
            pa, lateral = f"{n % 5}.png", f"{n // 5 % 5}.png"
            kind = n * 7 % 20
            writer.writerow([f"{n:05d}", pa if kind < 14 else "", lateral if kind < 6 or 14 <= kind < 19 else ""])
    run_dir = make_run()
    return ["-m", "dualview", "predict", run_dir, "--csv", table, "--device", "cpu", "--workers", "1", "--out"]


def test_two_processes_and_a_signal_change_no_byte(launch, arguments, tmp_path):
    predict(Path(arguments[3]), csv=Path(arguments[5]), out=tmp_path / "one.csv", device="cpu", num_workers=0)
    launch(2, *arguments, tmp_path / "two.csv")
    whole = (tmp_path / "one.csv").read_bytes()
    assert (tmp_path / "two.csv").read_bytes() == whole
    rows = pd.read_csv(tmp_path / "one.csv", dtype=str, keep_default_na=False)
    assert rows["study"].tolist() == [f"{n:05d}" for n in range(NUM_STUDIES)]
    assert rows["views"].value_counts().to_dict() == {"pa+lateral": 420, "pa": 560, "lateral": 350, "": 70}

    out = tmp_path / "stopped.csv"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments), str(out)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    parts = tmp_path / "stopped.csv.parts"
    deadline = time.monotonic() + 60
    while not list(parts.glob("0*.csv")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 75, stderr
    assert "start the same command again to continue" in stderr
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("0*.csv")}
    assert 1 <= len(done) < 6 and not out.exists()
    continued = launch(2, *arguments, out)
    assert f"{len(done)} of 6 parts are there" in " ".join(continued.stdout.split())
    assert out.read_bytes() == whole
    assert not parts.exists()


def test_a_signal_to_one_process_stops_all(launch, arguments, tmp_path):
    """Rank 1 alone is asked to stop; both end after the round, and what both have written is kept."""
    script = tmp_path / "stop_rank_1.py"
    script.write_text(
        "import os, sys, dualview.commands.predict as predicting\n"
        "from dualview.distributed import Job\n"
        "agree = Job.sum_numbers\n"
        "def sum_numbers(self, numbers):\n"
        "    if isinstance(numbers[0], bool):\n"
        "        numbers = [os.environ['RANK'] == '1']\n"
        "    return agree(self, numbers)\n"
        "Job.sum_numbers = sum_numbers\n"
        "from dualview.cli import main\n"
        "main()\n"
    )
    out = tmp_path / "out.csv"
    done = launch(2, script, *arguments[2:], out, check=False)
    assert done.returncode != 0
    assert "stopped by a signal" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out.csv.parts").glob("0*.csv")) == ["00000000.csv", "00000001.csv"]
    launch(2, *arguments, out)
    assert len(pd.read_csv(out)) == NUM_STUDIES
