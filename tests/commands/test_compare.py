"""Whole comparisons: trained once, continued where they stopped, and failures told."""

import json
import os
import signal
import threading

import pandas as pd
import pytest
from typer.testing import CliRunner

from dualview.cli import app
from tests.support.runs import write_comparison

FILE = """
compare:
  dir: {dir}
  seeds: [1]
  baseline: pa
  resamples: 100
  variants:
    pa: {{model.name: single}}
    aux: {{model.name: auxloss}}
run: {{device: cpu}}
data: {{image_size_px: 64, num_workers: 0, phantom: {{num_studies: 80}}}}
model: {{backbone: densenet_tiny}}
train: {{max_steps: 2, micro_batch_size: 4}}
tracking: {{wandb: disabled}}
"""


@pytest.fixture
def file(tmp_path):
    return write_comparison(tmp_path, FILE)


def test_a_comparison_trains_what_is_missing_once_and_writes_one_table(file, tmp_path):
    runs = tmp_path / "runs"
    done = CliRunner().invoke(app, ["compare", str(file), "--only", "0"])
    assert done.exit_code == 0, done.output
    assert (runs / "pa/seed-1/metrics.json").exists()
    assert not (runs / "aux").exists()
    untouched = (runs / "pa/seed-1/checkpoints").stat().st_mtime_ns
    done = CliRunner().invoke(app, ["compare", str(file), "--jobs", "2"])
    assert done.exit_code == 0, done.output
    assert (runs / "pa/seed-1/checkpoints").stat().st_mtime_ns == untouched
    table = pd.read_csv(runs / "comparison-to-pa.csv", keep_default_na=False)
    macro = table[(table["finding"] == "macro") & (table["group"] == "both") & (table["metric"] == "auroc")]
    means = {}
    for variant in ("pa", "aux"):
        metrics = json.loads((runs / variant / "seed-1/metrics.json").read_text())
        group = "both" if variant == "aux" else "all"
        means[variant] = metrics["test"][group]["macro_auroc"]
    expected = means["aux"]  # its test split is the same, and so are its complete studies
    assert float(macro.loc[macro["variant"] == "aux", "mean"].iloc[0]) == pytest.approx(expected)
    line = next(text for text in (runs / "comparison-to-pa.md").read_text().splitlines() if "chosen on val" in text)
    assert line in done.output.replace("\n", " ") or line in done.output
    assert "| aux |" in (runs / "comparison-to-pa.md").read_text()

    again = CliRunner().invoke(app, ["compare", str(file), "compare.baseline=aux"])
    assert again.exit_code == 0
    assert (runs / "comparison-to-aux.csv").exists()
    assert (runs / "pa/seed-1/checkpoints").stat().st_mtime_ns == untouched
    refused = CliRunner().invoke(app, ["compare", str(file), "train.max_steps=3"])
    assert refused.exit_code == 1
    assert "train.max_steps: the run has 2, now 3" in refused.output


def test_a_run_that_fails_is_named_and_the_others_are_kept(file, tmp_path):
    text = file.read_text().replace("{model.name: auxloss}", f"{{model.weights: {tmp_path / 'none.pt'}}}")
    file.write_text(text)
    done = CliRunner().invoke(app, ["compare", str(file), "--jobs", "2"])
    assert done.exit_code == 1
    assert "1 of 2 run(s) failed" in done.output
    assert "aux/seed-1 ended with 1: error:" in done.output
    assert (tmp_path / "runs/pa/seed-1/metrics.json").exists()


def test_a_signal_saves_the_runs(file, tmp_path):
    metrics = tmp_path / "runs/pa/seed-1/metrics.jsonl"
    ended = threading.Event()

    def signal_once_steps_are_logged():
        while not ended.wait(0.1):
            if metrics.exists() and metrics.stat().st_size > 3000:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watch = threading.Thread(target=signal_once_steps_are_logged)
    watch.start()
    command = ["compare", str(file), "train.max_steps=400", "train.log_every_steps=1"]
    done = CliRunner().invoke(app, command)
    ended.set()
    watch.join()
    assert done.exit_code == 75, done.output
    assert "the runs in progress are saved" in done.output
    assert (tmp_path / "runs/pa/seed-1/preempted.txt").exists()
    assert list((tmp_path / "runs/pa/seed-1/checkpoints").glob("step-*"))


def test_it_refuses_to_be_launched_itself(file, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, ["compare", str(file)])
    assert done.exit_code == 1
    assert "without a launcher" in done.output
