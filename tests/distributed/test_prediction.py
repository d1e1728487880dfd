"""`dualview predict` on two processes, and stopped by a signal: byte for byte the CSV of one that nothing stopped."""

import csv

import pandas as pd
import pytest

from tests.distributed.run_prediction import CHUNK_STUDIES, run_prediction

NUM_STUDIES = 5 * CHUNK_STUDIES + 20  # six chunks


@pytest.fixture
def words(make_run, draw_png, tmp_path):
    """The command without --out: studies of every availability, and every twentieth without an image."""
    for seed in range(5):
        draw_png(tmp_path / "images" / f"{seed}.png", seed=seed)
    table = tmp_path / "images" / "studies.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "pa", "lateral"])
        for n in range(NUM_STUDIES):
            pa, lateral = f"{n % 5}.png", f"{(n + 1 + n // 5 % 4) % 5}.png"  # never one file for both
            kind = n * 7 % 20
            writer.writerow([f"{n:05d}", pa if kind < 14 else "", lateral if kind < 6 or 14 <= kind < 19 else ""])
    return ["predict", make_run(), "--csv", table, "--device", "cpu", "--workers", "1", "--out"]


def test_two_processes_and_a_signal_change_no_byte(on_ranks, words, tmp_path):
    """A signal to the one process, or to one of two alone: both end after the round, and what is written is kept."""
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    on_ranks(1, run_prediction, *words, one)
    on_ranks(2, run_prediction, *words, two)
    whole = one.read_bytes()
    assert two.read_bytes() == whole
    rows = pd.read_csv(one, dtype=str, keep_default_na=False)
    assert rows["study"].tolist() == [f"{n:05d}" for n in range(NUM_STUDIES)]
    assert rows["views"].value_counts().to_dict() == {"pa+lateral": 102, "pa": 136, "lateral": 85, "": 17}

    for num_processes, stopped_rank in ((1, 0), (2, 1)):
        out = tmp_path / f"stopped-{num_processes}.csv"
        done = on_ranks(num_processes, run_prediction, *words, out, stopped_rank=stopped_rank, check=False)
        assert done.statuses == [75] * num_processes
        assert "stopped by a signal" in done.stderr
        assert "start the same command again to continue" in " ".join(done.stderr.split())
        parts = out.with_name(f"{out.name}.parts")
        assert sorted(path.name for path in parts.glob("0*.csv")) == [f"{n:08d}.csv" for n in range(num_processes)]
        assert not out.exists()
        continued = on_ranks(2, run_prediction, *words, out)
        assert f"{num_processes} of 6 parts are there" in " ".join(continued.stdout.split())
        assert out.read_bytes() == whole
        assert not parts.exists()
