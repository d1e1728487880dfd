"""The factor by which the loss is scaled under float16, so that small gradients do not become 0 (`train.precision`).

Every rank has the same: it is moved by whether the gradient that all ranks have averaged is finite. Source:
Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2;
the constants are those of torch.amp.GradScaler.
"""

from dataclasses import dataclass

from torch import nn

FIRST, GROWTH, STEPS_TO_GROW = 2.0**16, 2.0, 2000


@dataclass
class LossScale:
    """The factor, a power of 2 and at least 1, and the steps since it was last moved."""

    value: float = FIRST
    steps_since: int = 0

    def undo(self, model: nn.Module) -> None:
        """Divide every gradient by the factor."""
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(self.value)

    def see(self, *, is_finite: bool) -> None:
        """Halve the factor where the gradient has overflowed, double it after many steps without."""
        self.steps_since = self.steps_since + 1 if is_finite else 0
        if not is_finite:
            self.value = max(self.value / GROWTH, 1.0)
        elif self.steps_since == STEPS_TO_GROW:
            self.value, self.steps_since = self.value * GROWTH, 0
