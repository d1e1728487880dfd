"""Whole runs of several ranks, and what the launcher says where one of them cannot go on."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.distributed.run_once_per_node import LIMIT_SECONDS, run_once_per_node
from tests.support.process_group import dualview
from tests.support.runs import logged, quickstart

FOUR_STEPS = ["train.max_steps=4", "train.eval_every_steps=2", "optim.learning_rate=1e-4", "tracking.wandb=offline"]


def training_in(run_dir, *more: str) -> list[str]:
    return quickstart(run_dir, *FOUR_STEPS, "data.phantom.unknown_label_fraction=0.1", *more)


@pytest.fixture(scope="module")
def run_of_one(on_ranks, tmp_path_factory):
    """One process, which accumulates two micro-batches per step."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    on_ranks(1, dualview, *training_in(run_dir), "train.accumulation_steps=2")
    return run_dir


def test_two_processes_train_what_one_process_with_accumulation_trains(on_ranks, run_of_one, tmp_path):
    one, two = run_of_one, tmp_path / "run"
    on_ranks(2, dualview, *training_in(two))
    assert logged(two, "loss/total") == pytest.approx(logged(one, "loss/total"), rel=1e-4)
    assert logged(two, "routing/rows_lateral") == logged(one, "routing/rows_lateral")
    assert logged(two, "optim/learning_rate_pa") == logged(one, "optim/learning_rate_pa")
    predictions = [pd.read_parquet(run / "predictions-test.parquet") for run in (one, two)]
    assert predictions[0]["study"].is_unique
    assert predictions[0]["study"].tolist() == predictions[1]["study"].tolist()
    for column in predictions[0].filter(like="/route"):
        assert (predictions[0][column] - predictions[1][column]).abs().max() < 1e-3
    assert len(list((two / "wandb").glob("offline-run-*"))) == 1


def test_a_bad_image_that_one_process_meets_is_named_once_and_ends_all(on_ranks, hospital, tmp_path):
    """Two of 40 images are damaged; the process that reads a good one stops without a word of its own."""
    root = hospital("p" * 40)
    for study in (5, 6):
        image = root / f"{study}PA.png"
        image.write_bytes(image.read_bytes()[:900])
    data = ["data.source=csv", f"data.root={root}", "data.findings=[A]", "train.epochs=3", "train.max_steps=null"]
    done = on_ranks(2, dualview, *training_in(tmp_path / "run", *data), check=False)
    assert all(done.statuses)
    assert done.stderr.count("error:") == 1  # where it happened; the launcher prints the last words below it all
    assert "image(s) cannot be used" in done.last_words
    assert "Connection closed" not in done.stderr


def test_an_error_ends_all_processes_with_one_message(on_ranks, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    done = on_ranks(2, dualview, *training_in(tmp_path / "run"), check=False)
    assert all(done.statuses)
    assert done.stderr.count("error: run.dir") == 1
    assert "is not empty and not a run of dualview, it holds metrics.jsonl" in done.last_words


def test_the_exactness_bench_compares_steps_of_one_run(on_ranks):
    done = on_ranks(2, dualview, "bench", "exactness", "--json", "--rounds", "1", "--image-size-px", "64")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["ranks"] == 2
    assert result["slowdown"] == pytest.approx(result["seconds_exact"] / result["seconds_plain"])  # of one round


@pytest.mark.parametrize(("num_processes", "seconds"), [(1, 0.1), (2, LIMIT_SECONDS + 1)])
def test_work_of_one_process_per_node_may_take_longer_than_the_time_limit(on_ranks, tmp_path, num_processes, seconds):
    on_ranks(num_processes, run_once_per_node, tmp_path, seconds=seconds)
    assert (tmp_path / "done.txt").read_text() == "rank 0\n"


def test_work_that_fails_ends_all_processes_with_its_reason(on_ranks, tmp_path):
    done = on_ranks(2, run_once_per_node, tmp_path, seconds=0.5, fail=True, check=False)
    assert all(done.statuses)
    assert "no room for the copy" in done.stderr


def test_two_processes_train_from_one_staged_store_what_one_trains_from_the_files(on_ranks, hospital, tmp_path):
    root = hospital("pb" * 20, size_px=64, dtype=np.uint16)
    data = ["data.source=csv", f"data.root={root}", "data.findings=[A]", "data.image_size_px=64",
            "data.num_workers=1"]  # fmt: skip
    store = [f"data.store={tmp_path / 'store'}", f"data.stage_to={tmp_path / 'node'}", "data.augment_on=device"]
    one, two = tmp_path / "one", tmp_path / "two"
    on_ranks(1, dualview, "prepare", *training_in(one, *data, store[0])[1:])
    on_ranks(1, dualview, *training_in(one, *data, "train.accumulation_steps=2"))
    on_ranks(2, dualview, *training_in(two, *data, *store))
    assert len(list((tmp_path / "node").iterdir())) == 1
    assert logged(two, "loss/total") == pytest.approx(logged(one, "loss/total"), rel=1e-4)


def test_evaluations_of_one_and_two_processes_are_bit_equal(on_ranks, run_of_one, tmp_path):
    """C6, withheld views and intervals included."""
    for num_processes in (1, 2):
        out = tmp_path / str(num_processes)
        on_ranks(num_processes, dualview, "evaluate", run_of_one, "--resamples", "100", "--out", out)
    one, two = ((tmp_path / n / "evaluation.json").read_text() for n in ("1", "2"))
    assert one == two
    frames = [pd.read_parquet(tmp_path / n / "predictions.parquet") for n in ("1", "2")]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
