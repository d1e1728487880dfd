"""Optimizer, and the learning rate as a function of the step."""

import math
from typing import Any

import torch
from torch import nn

from dualview.config import OptimConfig
from dualview.models.depth import depths
from dualview.models.network import PARTS


def part_of(parameter_name: str) -> str:
    """Which part of the network a parameter belongs to: `pa`, `lateral`, `joint`, `shared` by both views, or `loss`."""
    part = parameter_name.split(".", 1)[0]
    if part not in PARTS:
        raise ValueError(f"parameter {parameter_name} is in none of {PARTS}")
    return part


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam or AdamW with one group per part and factor of its rate; `set_learning_rates` gives each its rate.

    Learned weights of the loss do not decay: that would pull them to 1.
    """
    factors = rate_factors(model, config)
    groups: dict[tuple[str, float], dict[str, Any]] = {}
    for part in PARTS:
        for name, parameter in model.named_parameters():
            if part_of(name) != part:
                continue
            factor = factors.get(name, 1.0)
            group = groups.setdefault((part, factor), {
                "params": [],
                "name": part,
                "factor": factor,
                "lr": factor * peak_learning_rate(part, config),
                "weight_decay": 0.0 if part == "loss" else config.weight_decay,
            })  # fmt: skip
            group["params"].append(parameter)
    optimizer = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return optimizer(list(groups.values()), betas=config.betas)


def rate_factors(model: nn.Module, config: OptimConfig) -> dict[str, float]:
    """Parameter -> what its part's learning rate is multiplied by, for those of a backbone.

    `layer_decay` once for each depth below the deepest (Clark et al., ELECTRA, ICLR 2020; depths as timm's
    `param_groups_layer_decay`), times `backbone_factor`.
    """
    if config.backbone_factor == 1 and config.layer_decay == 1:
        return {}
    of = depths(model, in_stages=False)
    last = max(of.values(), default=0)
    return {name: config.backbone_factor * config.layer_decay ** (last - depth) for name, depth in of.items()}


def peak_learning_rate(part: str, config: OptimConfig) -> float:
    """The part's own learning rate where one is configured, else `optim.learning_rate`."""
    own: float | None = getattr(config, f"learning_rate_{part}", None)
    return config.learning_rate if own is None else own


def schedule_factor(step: int, *, max_steps: int, config: OptimConfig) -> float:
    """Learning rate at step 0 .. max_steps - 1 as a fraction of the peak.

    Linear warm-up: (step + 1) / warmup_steps. Then cosine: f + (1 - f)(1 + cos(pi t)) / 2, t going from
    0 at the end of the warm-up to 1 at the last step (Loshchilov & Hutter, SGDR, ICLR 2017, eq. 5,
    without restarts); or step: decay_factor ** floor(steps since warm-up / decay_every_steps).
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    after = step - config.warmup_steps
    if config.schedule == "cosine":
        progress = min(after / max(max_steps - 1 - config.warmup_steps, 1), 1.0)
        return config.final_fraction + (1 - config.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
    if config.schedule == "step":
        assert config.decay_every_steps is not None  # OptimConfig has checked it.
        return float(config.decay_factor ** (after // config.decay_every_steps))
    return 1.0


def set_learning_rates(
    optimizer: torch.optim.Optimizer, *, step: int, max_steps: int, config: OptimConfig
) -> dict[str, float]:
    """Set every group's learning rate for `step`; returns it per part, without the factors of its backbone."""
    factor = schedule_factor(step, max_steps=max_steps, config=config)
    rates = {}
    for group in optimizer.param_groups:
        rates[group["name"]] = peak_learning_rate(group["name"], config) * factor
        group["lr"] = rates[group["name"]] * group.get("factor", 1.0)
    return rates
