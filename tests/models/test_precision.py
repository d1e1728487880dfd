"""Every member in every precision, on every mix of availabilities; idle branches skipped or run on no rows."""

from itertools import product

import pytest
import torch

from dualview.config.uses import NETWORKS
from dualview.losses import head_loss_sums
from dualview.models import build_model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIXES = {
    "single": ("b", "p", "bp", "pp"),
    "stacked": ("b", "bb"),
    **dict.fromkeys(("auxloss", "dualnet", "hemis", "attention"), ("b", "p", "l", "bp", "bl", "pl", "bpl", "pp", "ll")),
}


@pytest.mark.parametrize(("name", "precision", "idle_branch"), [*product(sorted(NETWORKS), DTYPES, ("skip", "empty"))])
def test_every_mix_trains_and_is_near_what_float32_gives(make_batch, name, precision, idle_branch):
    model = build_model(name, num_findings=3, backbone="densenet_tiny", idle_branch=idle_branch, norm="group", seed=0)
    model.train()
    for kinds in MIXES[name]:
        batch = make_batch(kinds, size=64)
        logits = {}
        for dtype in (DTYPES[precision], torch.float32):
            model.zero_grad()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                predictions = model(batch)
            losses = head_loss_sums(predictions, batch=batch)
            losses.total.backward()
            assert losses.total.dtype == torch.float32
            assert losses.total.isfinite(), kinds
            assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters()), kinds
            logits[dtype] = predictions.by_route(batch).float()
        difference = (logits[DTYPES[precision]] - logits[torch.float32]).abs().max()
        assert difference < 0.1 * (1 + logits[torch.float32].abs().max()), kinds
