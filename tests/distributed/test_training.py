"""Whole runs through accelerate launch."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

TINY = [
    "data.phantom.num_studies=120",
    "data.phantom.unknown_label_fraction=0.1",
    "model.dropout=0.1",
    "optim.learning_rate=1e-4",
    "train.max_steps=4",
    "train.micro_batch_size=4",
    "train.eval_every_steps=2",
    "train.log_every_steps=1",
    "tracking.wandb=offline",
]


def logged(run_dir, key):
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [record[key] for record in records if key in record]


def last_words(done) -> str:
    """What the launcher names as the root cause, the last lines of its output."""
    return done.stderr.rpartition("Root Cause")[2]


def test_two_processes_train_what_one_process_with_accumulation_trains(launch, tmp_path):
    for num_processes, accumulation in ((1, 2), (2, 1)):
        overrides = [f"run.dir={tmp_path / str(num_processes)}", f"train.accumulation_steps={accumulation}", *TINY]
        launch(num_processes, "-m", "dualview", "train", "configs/quickstart.yaml", *overrides)
    one, two = tmp_path / "1", tmp_path / "2"
    assert logged(two, "loss/total") == pytest.approx(logged(one, "loss/total"), rel=1e-4)
    assert logged(two, "routing/rows_lateral") == logged(one, "routing/rows_lateral")
    assert logged(two, "optim/learning_rate_pa") == logged(one, "optim/learning_rate_pa")
    predictions = [pd.read_parquet(run / "predictions-test.parquet") for run in (one, two)]
    assert predictions[0]["study"].is_unique
    assert predictions[0]["study"].tolist() == predictions[1]["study"].tolist()
    for column in predictions[0].filter(like="/route"):
        assert (predictions[0][column] - predictions[1][column]).abs().max() < 1e-3
    assert len(list((two / "wandb").glob("offline-run-*"))) == 1


def test_a_bad_image_that_one_process_meets_is_named_once_and_ends_all(launch, tmp_path):
    """Two of 40 images are damaged; the process that reads a good one stops without a word of its own."""
    rows = ["patient,study,view,path,A"]
    for study in range(40):
        pixels = np.random.default_rng(study).integers(0, 255, (70, 70), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{study}.png")
        rows.append(f"p{study},{study},PA,{study}.png,{study % 2}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    for study in (5, 6):
        (tmp_path / f"{study}.png").write_bytes((tmp_path / f"{study}.png").read_bytes()[:900])
    data = ["data.source=csv", f"data.root={tmp_path}", "data.findings=[A]", "train.epochs=3", "train.max_steps=null"]
    done = launch(
        2, "-m", "dualview", "train", "configs/quickstart.yaml", *TINY, *data, f"run.dir={tmp_path / 'r'}", check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("error:") == 2  # where it happened, and last of all, by the launcher
    assert "image(s) cannot be used" in last_words(done)
    assert "Connection closed" not in done.stderr


def test_an_error_ends_all_processes_with_one_message(launch, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    done = launch(
        2, "-m", "dualview", "train", "configs/quickstart.yaml", f"run.dir={tmp_path / 'run'}", *TINY, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("error: run.dir") == 2
    assert "is not empty and not a run of dualview, it holds metrics.jsonl" in last_words(done)


def test_the_exactness_bench_compares_steps_of_one_run(launch):
    done = launch(2, "-m", "dualview", "bench", "exactness", "--json", "--rounds", "1", "--image-size-px", "64")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ranks"] == 2
    assert result["slowdown"] == pytest.approx(result["seconds_exact"] / result["seconds_plain"])  # of one round


@pytest.mark.parametrize("num_processes", [1, 2])
def test_work_of_one_process_per_node_may_take_longer_than_the_time_limit(launch, tmp_path, num_processes):
    launch(num_processes, ROOT / "tests/distributed/run_once_per_node.py", tmp_path, "8")
    assert (tmp_path / "done.txt").read_text() == "rank 0\n"


def test_work_that_fails_ends_all_processes_with_its_reason(launch, tmp_path):
    script = ROOT / "tests/distributed/run_once_per_node.py"
    done = launch(2, script, tmp_path, "0.5", "fail", check=False)
    assert done.returncode != 0
    assert "no room for the copy" in done.stderr


def test_two_processes_train_from_one_staged_store_what_one_trains_from_the_files(launch, tmp_path):
    rows = ["patient,study,view,path,A"]
    for study in range(40):
        for view in ("PA", "L")[: 1 + study % 2]:
            pixels = np.random.default_rng(study).integers(0, 65536, (64, 64)).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / f"{study}{view}.png")
            rows.append(f"p{study},{study},{view},{study}{view}.png,{study // 2 % 2}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    config = ["configs/quickstart.yaml", *TINY, "data.source=csv", f"data.root={tmp_path}", "data.findings=[A]",
              "data.image_size_px=64", "data.num_workers=1"]  # fmt: skip
    store = [f"data.store={tmp_path / 'store'}", f"data.stage_to={tmp_path / 'node'}", "data.augment_on=device"]
    launch(1, "-m", "dualview", "prepare", *config, store[0])
    one, two = tmp_path / "one", tmp_path / "two"
    launch(1, "-m", "dualview", "train", *config, f"run.dir={one}", "train.accumulation_steps=2")
    launch(2, "-m", "dualview", "train", *config, *store, f"run.dir={two}")
    assert len(list((tmp_path / "node").iterdir())) == 1
    assert logged(two, "loss/total") == pytest.approx(logged(one, "loss/total"), rel=1e-4)


def test_evaluations_of_one_and_two_processes_are_bit_equal(launch, tmp_path):
    """C6, withheld views and intervals included."""
    run = tmp_path / "run"
    launch(1, "-m", "dualview", "train", "configs/quickstart.yaml", *TINY, f"run.dir={run}")
    for num_processes in (1, 2):
        out = str(tmp_path / str(num_processes))
        launch(num_processes, "-m", "dualview", "evaluate", str(run), "--resamples", "100", "--out", out)
    one, two = ((tmp_path / n / "evaluation.json").read_text() for n in ("1", "2"))
    assert one == two
    frames = [pd.read_parquet(tmp_path / n / "predictions.parquet") for n in ("1", "2")]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
