"""A trained network comes out of its run directory as it went in."""

import pytest
import torch

from dualview.commands.train import train
from dualview.config import Config
from dualview.errors import UserError
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train(
        Config.model_validate(
            {
                "run": {"dir": run, "device": "cpu"},
                "data": {"image_size_px": 64, "num_workers": 0, "phantom": {"num_studies": 60}},
                "model": {"backbone": "densenet_tiny", "name": "attention"},
                "train": {"max_steps": 4, "eval_every_steps": 2, "micro_batch_size": 4},
                "tracking": {"wandb": "disabled"},
            }
        )
    )
    return run


def test_a_moved_run_gives_its_network_findings_and_step(run_dir, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.symlink_to(run_dir)
    network = load_trained(RunDir(moved), name="last")
    assert network.step == 4
    assert network.findings == ("Nodule", "Retrosternal opacity", "Posterior effusion", "Cardiomegaly")
    assert network.config.run.dir == moved
    assert type(network.model).__name__ == "Attention"
    assert not network.model.training


def test_a_checkpoint_is_chosen_by_name_or_step(run_dir):
    two, last = load_trained(RunDir(run_dir), name="2"), load_trained(RunDir(run_dir), name="last")
    assert (two.step, last.step) == (2, 4)
    pairs = zip(two.model.parameters(), last.model.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


def test_what_is_not_there_is_named(run_dir, tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint of a run"):
        load_trained(RunDir(tmp_path))
    with pytest.raises(UserError, match=r"no checkpoint '3'. There are: best, last\n  - step-000002"):
        load_trained(RunDir(run_dir), name="3")
