"""Weights of the three heads that are learned with the network (`loss.learned_weights`).

They live in the network, as its part `loss`, because DDP sums the gradients of what its forward pass returns.
"""

import math
from typing import Literal

import torch
from torch import nn

from dualview.batch import HeadWeights

LearnedWeights = Literal["uncertainty", "temperature"]
LEAST_SQUARE = 1e-4  # added to T^2, so that no weight is above 1 / LEAST_SQUARE


class LossWeights(nn.Module):
    """One learned scalar for each head; of a complete study the loss is sum of weight x head's loss, plus `log_terms`.

    With sigma_h the noise of a head, both are (1 / sigma_h^2) l_h + log sigma_h summed over heads, least where
    sigma_h^2 = 2 l_h: the weight of a head is 1 / (2 x its mean loss).

    - `uncertainty`: the scalar is s = log sigma^2; weight exp(-s), term s / 2. Source: Kendall, Gal & Cipolla, CVPR
      2018 (arXiv:1705.07115), section 3.2, for classification.
    - `temperature`: the scalar is T = sigma itself; weight T^-2, term log T. Source: the authors'
      `--learn-loss-coeffs`. Nothing keeps a step of the optimizer from T = 0, so sigma^2 is T^2 + 1e-4, and a
      negative T is as good as its opposite.

    Args:
        kind: one of these.
        pa, lateral: the weights to begin with, in (0, 100]; joint begins with 1.
    """

    def __init__(self, kind: LearnedWeights, *, pa: float = 0.3, lateral: float = 0.3) -> None:
        super().__init__()
        self.kind = kind
        first = (1.0, pa, lateral)
        if not all(0 < weight <= 100 for weight in first):
            raise ValueError(f"weights that are learned begin above 0 and at most at 100, found {pa:g} and {lateral:g}")
        if kind == "uncertainty":
            values = [-math.log(weight) for weight in first]
        else:
            values = [math.sqrt(1 / weight - LEAST_SQUARE) for weight in first]
        self.values = nn.Parameter(torch.tensor(values))  # (3,) joint, PA, lateral

    def forward(self) -> HeadWeights:
        """The weights now, and the sum of the log terms."""
        log_squares = self.values if self.kind == "uncertainty" else (self.values.square() + LEAST_SQUARE).log()
        joint, pa, lateral = log_squares.neg().exp().unbind()
        return HeadWeights(joint=joint, pa=pa, lateral=lateral, log_terms=log_squares.sum() / 2)

    def now(self) -> dict[str, float]:
        """Head -> weight."""
        with torch.no_grad():
            joint, pa, lateral, _ = map(float, self())
        return {"joint": joint, "pa": pa, "lateral": lateral}
