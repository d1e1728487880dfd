"""The same answers on a GPU."""

import copy

import pytest
import torch

from dualview.commands.train import train
from dualview.config import Config
from dualview.losses import head_loss_sums
from dualview.models import build_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("kinds", ["bbbbpppl", "ppp", "lll"])
def test_gradients_are_those_of_the_cpu(make_batch, kinds):
    """Float64, so that only a different computation can differ."""
    on_cpu = build_model("auxloss", num_findings=3, backbone="densenet_tiny", seed=0).double().train()
    on_gpu = copy.deepcopy(on_cpu).cuda()
    batch = make_batch(kinds, dtype=torch.float64)
    moved = batch._replace(
        **{name: value.cuda() for name, value in batch._asdict().items() if isinstance(value, torch.Tensor)},
        rows=type(batch.rows)(*(rows.cuda() for rows in batch.rows)),
    )
    for model, of in ((on_cpu, batch), (on_gpu, moved)):
        head_loss_sums(model(of), batch=of).total.backward()
    for (name, ours), theirs in zip(on_gpu.named_parameters(), on_cpu.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_goes_through(tmp_path, precision):
    config = Config.model_validate(
        {
            "run": {"dir": tmp_path / "run", "device": "cuda"},
            "data": {"image_size_px": 64, "num_workers": 1, "phantom": {"num_studies": 60}},
            "model": {"backbone": "densenet_tiny"},
            "train": {"max_steps": 3, "precision": precision},
            "tracking": {"wandb": "disabled"},
        }
    )
    assert train(config).num_steps == 3
