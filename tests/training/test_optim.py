"""Learning rates as functions of the step, against torch's schedulers and by hand."""

import pytest
import torch

from dualview.config import OptimConfig
from dualview.models import build_model
from dualview.models.loss_weights import LossWeights
from dualview.training.optim import build_optimizer, schedule_factor, set_learning_rates


def factors(num, **config):
    return [schedule_factor(step, max_steps=num, config=OptimConfig(**config)) for step in range(num)]


def reference(scheduler_class, num, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_class(optimizer, **kwargs)
    rates = []
    for _ in range(num):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs():
    expected = reference(torch.optim.lr_scheduler.CosineAnnealingLR, 50, T_max=49, eta_min=0.1)
    assert factors(50, schedule="cosine", final_fraction=0.1) == pytest.approx(expected)


def test_step_decay_is_torchs():
    expected = reference(torch.optim.lr_scheduler.StepLR, 50, step_size=20, gamma=0.5)
    assert factors(50, schedule="step", decay_every_steps=20) == pytest.approx(expected)


def test_warm_up_by_hand():
    assert factors(6, schedule="constant", warmup_steps=4) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    after = factors(14, schedule="cosine", warmup_steps=4)
    assert after[4:] == pytest.approx(factors(10, schedule="cosine"))
    assert after[-1] == pytest.approx(0)


def test_each_part_has_its_own_rate_and_every_parameter_one_group():
    model = build_model("auxloss", num_findings=2, backbone="densenet_tiny")
    config = OptimConfig(learning_rate=1e-3, learning_rate_pa=2e-3, learning_rate_lateral=4e-3, schedule="constant")
    optimizer = build_optimizer(model, config)
    assert set_learning_rates(optimizer, step=0, max_steps=10, config=config) == {
        "pa": 2e-3,
        "lateral": 4e-3,
        "joint": 1e-3,
    }
    by_name = {group["name"]: {id(p) for p in group["params"]} for group in optimizer.param_groups}
    assert by_name["pa"] == {id(p) for p in model.pa.parameters()}
    assert by_name["lateral"] == {id(p) for p in model.lateral.parameters()}
    assert by_name["joint"] == {id(p) for p in model.joint.parameters()}


def test_backbones_learn_slower_the_deeper_and_heads_do_not():
    """densenet_tiny: the stem has depth 0, dense block i with its transition i, the last norm 4."""
    model = build_model("auxloss", num_findings=2, backbone="densenet_tiny")
    config = OptimConfig(
        learning_rate=1.0, learning_rate_pa=2.0, backbone_factor=0.1, layer_decay=0.5, schedule="constant"
    )
    optimizer = build_optimizer(model, config)
    assert set_learning_rates(optimizer, step=0, max_steps=10, config=config)["pa"] == 2.0
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        "conv0": 1 / 16,
        "norm0": 1 / 16,
        "denseblock1": 1 / 8,
        "transition3": 1 / 2,
        "denseblock4": 1,
        "norm5": 1,
    }
    for view, rate in (("pa", 2.0), ("lateral", 1.0)):
        branch = getattr(model, view)
        for layer, factor in expected.items():
            assert {rates[id(p)] for p in branch.features.get_submodule(layer).parameters()} == {0.1 * factor * rate}
        assert rates[id(branch.head.weight)] == rate
    assert len(rates) == len(list(model.parameters()))


def test_depths_of_timms_networks_are_those_of_its_own_groups():
    pytest.importorskip("timm", reason="timm is not installed (extra dualview[timm])")
    model = build_model("single", num_findings=2, backbone="timm:vit_tiny_patch16_224", image_size_px=64)
    config = OptimConfig(learning_rate=1.0, layer_decay=0.5, schedule="constant")
    rates = {
        name: group["lr"]
        for group in build_optimizer(model, config).param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    # The patches are embedded at depth 0, and the blocks have depths 1 to 12.
    assert rates["pa.features.timm.network.patch_embed.proj.weight"] == 0.5**12
    assert rates["pa.features.timm.network.blocks.0.attn.qkv.weight"] == 0.5**11
    assert rates["pa.features.timm.network.blocks.11.attn.qkv.weight"] == 1
    assert rates["pa.features.timm.network.norm.weight"] == rates["pa.head.weight"] == 1


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_everything_decays_but_learned_weights_of_the_loss(name):
    model = build_model("auxloss", num_findings=2, backbone="densenet_tiny")
    model.loss = LossWeights("uncertainty")
    optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.1))
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decay == {"pa": 0.1, "lateral": 0.1, "joint": 0.1, "loss": 0.0}
    assert optimizer.param_groups[-1]["params"] == [model.loss.values]


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_one_named(name, kind):
    model = build_model("auxloss", num_findings=2, backbone="densenet_tiny")
    assert type(build_optimizer(model, OptimConfig(name=name, weight_decay=0.1))) is kind
