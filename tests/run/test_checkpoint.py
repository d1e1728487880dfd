"""Checkpoints: whole or absent, checked before use, the newest and the best kept."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dualview.config import Config, OptimConfig
from dualview.errors import UserError
from dualview.files import sha256_of
from dualview.models import build_model
from dualview.run import checkpoint
from dualview.run.directory import RunDir
from dualview.run.state import BestCheckpoint, TrainState
from dualview.training.optim import build_optimizer


@pytest.fixture
def model():
    return build_model("auxloss", num_findings=2, backbone="densenet_tiny", seed=0)


def save(run_dir, model, step, best_step=0, keep=2):
    state = TrainState(
        run_id="a1b2c3d4", micro_batches_per_step=2, train_studies="", step=step, best=BestCheckpoint(0.5, best_step)
    )
    checkpoint.save(
        RunDir(run_dir), weights=model.state_dict(), state=state,
        optimizer=build_optimizer(model, OptimConfig()).state_dict(), findings=("A", "B"), config=Config(),
        config_yaml="run: {}\n", keep=keep,
    )  # fmt: skip


def newest_step(run_dir):
    return checkpoint.read_newest(RunDir(run_dir)).step


def names(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_weights_and_buffers_come_back_bit_equal(tmp_path, model):
    model.pa.features.norm0.running_mean.fill_(3)
    save(tmp_path, model, 7)
    whole = checkpoint.read_newest(RunDir(tmp_path))
    assert whole.training().state.step == whole.step == 7
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in whole.weights.items())
    assert whole.weights.keys() == model.state_dict().keys()


def test_nothing_of_a_checkpoint_needs_pickle(tmp_path, model):
    save(tmp_path, model, 1)
    torch.load(tmp_path / "checkpoints" / "last" / "state.pt", weights_only=True)


def test_the_newest_and_the_best_that_each_knows_stay(tmp_path, model):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    checkpoint.mark_best(RunDir(tmp_path), 2)
    for step in (3, 4, 5):
        save(tmp_path, model, step, best_step=2)
    assert names(tmp_path) == ["best", "last", "step-000002", "step-000004", "step-000005"]
    checkpoint.mark_best(RunDir(tmp_path), 5)
    save(tmp_path, model, 6, best_step=5)  # should 6 be damaged, 5 continues, and its best is 2
    assert names(tmp_path) == ["best", "last", "step-000002", "step-000005", "step-000006"]
    save(tmp_path, model, 7, best_step=5)
    assert names(tmp_path) == ["best", "last", "step-000005", "step-000006", "step-000007"]
    assert (tmp_path / "checkpoints" / "last").resolve().name == "step-000007"


def test_a_step_reached_twice_is_replaced(tmp_path, model):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    model.joint.bias.data.fill_(5)
    save(tmp_path, model, 2)
    assert checkpoint.read_newest(RunDir(tmp_path)).weights["joint.bias"].eq(5).all()
    assert names(tmp_path) == ["last", "step-000001", "step-000002"]


def truncated(path):
    os.truncate(path, path.stat().st_size - 1)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.safetensors", "state.pt", "config.yaml", "manifest.json"])
@pytest.mark.parametrize("damage", [truncated, flipped, os.remove, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_found_and_the_one_before_it_used(tmp_path, model, caplog, file, damage):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2)
    damage(tmp_path / "checkpoints" / "step-000002" / file)
    if file == "manifest.json" and damage is truncated:  # its last byte is a line break
        assert newest_step(tmp_path) == 2
        return
    assert newest_step(tmp_path) == 1
    assert "a checkpoint is damaged, going back to step-000001" in caplog.text
    damage(tmp_path / "checkpoints" / "step-000001" / file)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        checkpoint.read_newest(RunDir(tmp_path))


def test_a_damaged_best_checkpoint_falls_back_to_the_newest(tmp_path, model, caplog):
    save(tmp_path, model, 1)
    checkpoint.mark_best(RunDir(tmp_path), 1)
    save(tmp_path, model, 2, best_step=1)
    flipped(tmp_path / "checkpoints" / "step-000001" / "model.safetensors")
    assert checkpoint.read_best(RunDir(tmp_path)).step == 2
    assert "the best checkpoint cannot be used, taking step-000002" in caplog.text


def test_another_format_is_refused_by_name(tmp_path, model):
    save(tmp_path, model, 1)
    manifest = tmp_path / "checkpoints" / "step-000001" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    with pytest.raises(UserError, match="has format 99, this dualview reads format 1"):
        checkpoint.read_newest(RunDir(tmp_path))


def test_without_checkpoints_there_is_none(tmp_path):
    assert checkpoint.read_newest(RunDir(tmp_path)) is None


def test_a_failed_write_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, model, monkeypatch):
    save(tmp_path, model, 1)

    def full(*_args, **_kwargs):
        raise RuntimeError("unexpected pos")  # what torch.save says when the disk is full

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"step-000002 could not be written .*MiB are free"):
        save(tmp_path, model, 2)
    assert names(tmp_path) == ["last", "step-000001"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_the_earlier_checkpoint_whole(small_disk, model):
    """Real ENOSPC at a different byte each time: while writing weights, state, or the small files."""
    save(small_disk, model, 1)
    filler = small_disk / "filler"
    needed = sum(-(-file.stat().st_size // 4096) for file in (small_disk / "checkpoints" / "step-000001").iterdir())
    for free_pages in (needed // 3, needed - 3, needed - 1):
        filler.write_bytes(b"0" * (shutil.disk_usage(small_disk).free - free_pages * 4096))
        with pytest.raises(OSError, match=r"step-000002 could not be written .*make room"):
            save(small_disk, model, 2)
        assert newest_step(small_disk) == 1
        assert names(small_disk) == ["last", "step-000001"]
        filler.unlink()
    save(small_disk, model, 2)
    assert newest_step(small_disk) == 2


def test_a_kill_while_writing_leaves_the_earlier_checkpoint(tmp_path, model, monkeypatch):
    """A process dies before each file that it writes, flushes, renames or removes; then the step is saved again."""
    calls, deadly = 0, None

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for owner, name in (
        (torch, "save"), (safetensors.torch, "save_file"), (checkpoint, "flush_to_disk"), (checkpoint, "_fingerprint"),
        (checkpoint, "link_whole"), (checkpoint, "_set_aside"), (Path, "rename"), (shutil, "rmtree"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    save(tmp_path / "0", model, 1, keep=1)
    calls = 0
    save(tmp_path / "0", model, 2, keep=1)
    number_of_calls = calls
    assert number_of_calls > 10
    for moment in range(1, number_of_calls + 1):
        run_dir = tmp_path / str(moment)
        save(run_dir, model, 1, keep=1)
        calls, deadly = 0, moment
        process = multiprocessing.get_context("fork").Process(target=save, args=(run_dir, model, 2), kwargs={"keep": 1})
        process.start()
        process.join()
        calls, deadly = 0, None
        assert process.exitcode == -signal.SIGKILL
        assert newest_step(run_dir) in (1, 2)
        save(run_dir, model, 2, keep=1)
        assert names(run_dir) == ["last", "step-000002"]


def test_whoever_wants_the_network_does_not_touch_the_training_state(tmp_path, model, monkeypatch):
    """Findings, configuration and weights come without unpickling, or even reading, the optimizer's moments."""
    save(tmp_path, model, 1)
    folder = tmp_path / "checkpoints" / "step-000001"
    (folder / "state.pt").unlink()
    monkeypatch.setattr(torch, "load", None)
    read = checkpoint.read(folder, with_state=False)
    assert read.findings == ("A", "B") and Config.model_validate(read.config) == Config()
    assert torch.equal(read.weights["joint.weight"], model.joint.weight)


def test_findings_changed_in_the_manifest_are_noticed(tmp_path, model):
    save(tmp_path, model, 1)
    manifest = tmp_path / "checkpoints" / "step-000001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"A"', '"B"', 1))
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        checkpoint.read(manifest.parent)


def test_a_checkpoint_of_before_has_findings_and_config_in_its_state(tmp_path, model):
    """Format 1 as it was written first: nothing but step, best step and files in the manifest."""
    save(tmp_path, model, 3, best_step=2)
    folder = tmp_path / "checkpoints" / "step-000003"
    state = torch.load(folder / "state.pt", weights_only=True)
    state |= {"findings": ["A", "B"], "config": Config().model_dump(mode="json"), "epoch": 0, "step_in_epoch": 3}
    torch.save(state, folder / "state.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    files = manifest["files"] | {"state.pt": {"bytes": (folder / "state.pt").stat().st_size,
                                              "sha256": sha256_of(folder / "state.pt")}}  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "step": 3, "best_step": 2, "files": files}))
    for with_state in (False, True):
        read = checkpoint.read(folder, with_state=with_state)
        assert (read.step, read.findings) == (3, ("A", "B")) and Config.model_validate(read.config) == Config()
    assert read.training().state.best == BestCheckpoint(0.5, 2)
