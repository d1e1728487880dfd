"""Optimizer, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from dualview.config import OptimConfig
from dualview.models.network import PARTS


def part_of(parameter_name: str) -> str:
    """Which part of the network a parameter belongs to: `pa`, `lateral`, `joint`, `shared` by both views, or `loss`."""
    part = parameter_name.split(".", 1)[0]
    if part not in PARTS:
        raise ValueError(f"parameter {parameter_name} is in none of {PARTS}")
    return part


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Adam or AdamW with one group per part; `set_learning_rates` gives each its rate.

    Learned weights of the loss do not decay: that would pull them to 1.
    """
    groups: list[dict[str, object]] = []
    for part in PARTS:
        parameters = [p for name, p in model.named_parameters() if part_of(name) == part]
        if not parameters:
            continue  # `single` has one branch, `stacked` none.
        groups.append(
            {
                "params": parameters,
                "name": part,
                "lr": peak_learning_rate(part, config),
                "weight_decay": 0.0 if part == "loss" else config.weight_decay,
            }
        )
    optimizer = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return optimizer(groups, betas=config.betas)


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
    """Set every group's learning rate for `step`; returns it per part."""
    factor = schedule_factor(step, max_steps=max_steps, config=config)
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["name"]] = peak_learning_rate(group["name"], config) * factor
    return rates
