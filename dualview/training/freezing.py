"""Layers that do not learn, for all of the training or its first steps (`model.freeze`, `model.freeze_steps`).

A frozen layer has a learning rate and decay of 0, made by taking its gradients away after all ranks have averaged them,
and its batch normalisation uses the running statistics and leaves them. Its parameters go on requiring a gradient:
under DDP a later change of that desynchronises the ranks (Lightning issue 20340).
"""

from dataclasses import dataclass

from torch import nn

from dualview.config import ModelConfig
from dualview.errors import UserError
from dualview.models.depth import depths
from dualview.models.norm import PooledBatchNorm2d


@dataclass(frozen=True, kw_only=True)
class Freezing:
    """What is frozen, and for how long."""

    parameters: list[nn.Parameter]
    norms: list[PooledBatchNorm2d]  # the batch normalisations among the frozen layers
    steps: int | None  # steps until they thaw; None: never

    def begin_step(self, step: int) -> None:
        """Put the normalisations of frozen layers into evaluation mode, and back when they thaw."""
        for norm in self.norms:
            norm.train(not self.holds_at(step))

    def end_backward(self, step: int) -> None:
        """Take the gradients of frozen layers away."""
        if self.holds_at(step):
            for parameter in self.parameters:
                parameter.grad = None

    def holds_at(self, step: int) -> bool:
        """Whether the layers are frozen at a step, counted from 0."""
        return self.steps is None or step < self.steps


def configured_freezing(model: nn.Module, config: ModelConfig) -> Freezing | None:
    """The layers that a configuration freezes; None: all learn.

    Raises:
        UserError: the backbone has fewer stages than are to be frozen.
    """
    if config.freeze == "none":
        return None
    of = depths(model, in_stages=True)
    last = max(of.values())
    if config.freeze != "backbone" and config.freeze > last:
        raise UserError(
            f"model.freeze is {config.freeze}, and {config.backbone} has {last} stages after its stem; give 1 to "
            f"{last}, or backbone"
        )
    names = {name for name, depth in of.items() if config.freeze == "backbone" or depth <= config.freeze}
    return Freezing(
        parameters=[parameter for name, parameter in model.named_parameters() if name in names],
        norms=[
            layer
            for name, layer in model.named_modules()
            if isinstance(layer, PooledBatchNorm2d) and f"{name}.weight" in names
        ],
        steps=config.freeze_steps,
    )
