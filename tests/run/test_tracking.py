"""Tracking: the jsonl record, wandb offline read back, and wandb failing at every moment."""

import json
import os
import re
import sys

import pytest
import wandb

from dualview.config import Config, DistributedConfig, RunConfig
from dualview.distributed import start
from dualview.run.tracking import Tracker


@pytest.fixture
def job():
    with start(RunConfig(device="cpu"), distributed=DistributedConfig()) as job:
        yield job


def config_for(run_dir, mode):
    return Config.model_validate(
        {"run": {"dir": run_dir}, "tracking": {"wandb": mode}, "optim": {"learning_rate": 0.125}}
    )


def records(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_jsonl_keeps_every_value_and_says_null_for_undefined(tmp_path, job):
    with Tracker(config_for(tmp_path, "disabled"), run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log({"loss/total": 0.5, "val/auroc_macro_both": None, "x": float("nan")}, step=3)
        tracker.summarise({"best/step": 3})
    assert records(tmp_path) == [
        {"step": 3, "loss/total": 0.5, "val/auroc_macro_both": None, "x": None},
        {"summary": {"best/step": 3}},
    ]
    assert tracker.wandb_dir is None


def test_the_offline_run_holds_config_values_and_summary(tmp_path, job, read_back):
    with Tracker(config_for(tmp_path, "offline"), run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log({"loss/total": 0.5}, step=1)
        tracker.log({"loss/total": 0.25, "val/auroc_macro_all": None}, step=2)
        tracker.summarise({"best/step": 2})
    text = json.dumps(records := read_back(tracker.wandb_dir))
    assert tracker.wandb_mode == "offline"
    assert tracker.wandb_dir.parent == tmp_path / "wandb"
    for part in ("learning_rate", "0.125", "loss/total", "global_step", "best/step"):
        assert part in text, part
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert (run["run_group"], run["job_type"]) == ("a1b2c3d4", "training")  # its evaluations will be beside it


def test_neither_a_path_nor_the_machine_is_in_the_offline_run(tmp_path, job, read_back):
    """Not in the settings, nor in what wandb sends by itself: the command, the interpreter and the host."""
    config = config_for(tmp_path, "offline")
    source = {"source": "csv", "root": "/data/st-mary", "csv": "/data/st-mary/patients.csv", "findings": {"A": ["A"]}}
    config = Config.model_validate({**config.model_dump(mode="json"), "data": source})
    with Tracker(config, run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log({"loss/total": 0.5}, step=1)
    records = read_back(tracker.wandb_dir)
    text = json.dumps(records)
    assert "(a path, not shown)" in text
    for private in ("st-mary", str(tmp_path), sys.executable, sys.argv[0]):
        assert private not in text, private
    (run,) = (record["run"] for record in records if record["type"] == "run")
    assert not run.get("host")


def test_a_checkpoint_is_an_artifact_that_waits_in_the_run_directory(tmp_path, job, read_back, monkeypatch):
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    folder = tmp_path / "checkpoints/step-000004"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "config.yaml", "state.pt"):
        (folder / name).write_text(name)
    with Tracker(config_for(tmp_path, "offline"), run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log_checkpoint(folder, name="best", step=4)
    assert "WANDB_DATA_DIR" not in os.environ
    (artifact,) = (record["artifact"] for record in read_back(tracker.wandb_dir) if record["type"] == "artifact")
    assert (artifact["name"], artifact["type"]) == ("model-a1b2c3d4", "model")
    assert {"best", "step-4"} <= set(artifact["aliases"])
    kept = {content["path"]: content["local_path"] for content in artifact["manifest"]["contents"]}
    assert set(kept) == {"model.safetensors", "config.yaml"}
    assert all(path.startswith(str(tmp_path / "wandb/staged-a1b2c3d4")) for path in kept.values())


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_without_a_network_or_account_it_records_offline(tmp_path, job, mode, monkeypatch, caplog):
    """`auto` finds no key; `online` fails to start, says so, and falls back."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    real_init = wandb.init

    def init(*args, **kwargs):
        if kwargs["mode"] == "online":
            raise wandb.errors.CommError("no network")
        return real_init(*args, **kwargs)

    monkeypatch.setattr(wandb, "init", init)
    with Tracker(config_for(tmp_path, mode), run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log({"loss/total": 0.5}, step=1)
    assert tracker.wandb_dir is not None
    assert ("wandb did not start online: no network" in caplog.text) == (mode == "online")


def test_wandb_that_cannot_start_leaves_the_jsonl(tmp_path, job, monkeypatch, caplog):
    def init(*_args, **_kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(wandb, "init", init)
    with Tracker(config_for(tmp_path, "offline"), run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log({"loss/total": 0.5}, step=1)
    assert records(tmp_path) == [{"step": 1, "loss/total": 0.5}]
    assert "training goes on without wandb" in caplog.text


def test_wandb_that_dies_in_the_middle_is_reported_once_and_left_alone(tmp_path, job, monkeypatch, caplog):
    with Tracker(config_for(tmp_path, "offline"), run_id="a1b2c3d4", first_step=0, job=job) as tracker:
        tracker.log({"loss/total": 0.5}, step=1)

        def log(*_args, **_kwargs):
            raise ConnectionResetError("gone")

        monkeypatch.setattr(tracker._wandb_run, "log", log)
        tracker.log({"loss/total": 0.4}, step=2)
        tracker.log({"loss/total": 0.3}, step=3)
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 3]
    assert caplog.text.count("wandb failed in log (ConnectionResetError: gone)") == 1
    wandb.teardown()


def test_a_continued_run_records_no_step_twice_and_keeps_its_wandb_id(tmp_path, job, read_back):
    """The first process got to step 4 and into a line of step 5; the second goes on from step 3."""
    with Tracker(config_for(tmp_path, "offline"), run_id="a1b2c3d4", first_step=0, job=job) as first:
        for step in (1, 2, 3, 4):
            first.log({"loss/total": step / 10}, step=step)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss/to')
    with Tracker(config_for(tmp_path, "offline"), run_id="a1b2c3d4", first_step=3, job=job) as second:
        second.log({"val/loss": 0.9}, step=3)
        for step in (4, 5):
            second.log({"loss/total": step / 10}, step=step)
    assert records(tmp_path) == [
        *({"step": step, "loss/total": step / 10} for step in (1, 2, 3, 4)),
        {"step": 3, "val/loss": 0.9},
        {"step": 5, "loss/total": 0.5},
    ]
    assert first.wandb_dir != second.wandb_dir
    for tracker in (first, second):
        assert (tracker.wandb_dir / "run-a1b2c3d4.wandb").exists()
    steps = [
        [int(step) for step in re.findall(r'"global_step": "?(\d+)', json.dumps(read_back(tracker.wandb_dir)))]
        for tracker in (first, second)
    ]
    assert [sorted(set(of_one)) for of_one in steps] == [[1, 2, 3, 4], [3, 5]]
