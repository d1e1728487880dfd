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
