"""Checkpoints: whole or absent, best and last kept."""

import pytest
import torch

from dualview import checkpoint
from dualview.config import OptimConfig
from dualview.models import build_model
from dualview.optim import build_optimizer


@pytest.fixture
def model():
    return build_model("auxloss", num_findings=2, backbone="densenet_tiny", seed=0)


def save(run_dir, model, step, is_best=False):
    optimizer = build_optimizer(model, OptimConfig())
    checkpoint.save(run_dir, model=model, optimizer=optimizer, step=step, config_yaml="run: {}\n", is_best=is_best)


def steps(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def test_weights_and_buffers_come_back_bit_equal(tmp_path, model):
    model.pa.features.norm0.running_mean.fill_(3)
    save(tmp_path, model, 7, is_best=True)
    other = build_model("auxloss", num_findings=2, backbone="densenet_tiny", seed=1)
    assert checkpoint.load_model(tmp_path / "checkpoints" / "best", model=other) == 7
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())


def test_best_and_last_stay_and_the_rest_goes(tmp_path, model):
    save(tmp_path, model, 1)
    save(tmp_path, model, 2, is_best=True)
    save(tmp_path, model, 3)
    save(tmp_path, model, 4)
    assert steps(tmp_path) == ["best", "last", "step-000002", "step-000004"]
    assert (tmp_path / "checkpoints" / "best").resolve().name == "step-000002"
    assert (tmp_path / "checkpoints" / "last").resolve().name == "step-000004"


def test_a_failed_write_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, model, monkeypatch):
    save(tmp_path, model, 1, is_best=True)

    def full(*_args, **_kwargs):
        raise RuntimeError("unexpected pos")  # what torch.save says when the disk is full

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="step-000002 could not be written"):
        save(tmp_path, model, 2)
    assert steps(tmp_path) == ["best", "last", "step-000001"]
