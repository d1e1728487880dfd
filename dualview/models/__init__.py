"""Networks: `build_model` makes one, its docstring shows how to use it."""

from typing import Literal

import torch

from dualview.models.auxloss import AuxLoss
from dualview.models.norm import Norm
from dualview.models.weights import load_weights

__all__ = ["build_model"]


def build_model(
    name: str,
    *,
    num_findings: int,
    backbone: str = "densenet121",
    merge_after_block: int = 3,
    dropout: float = 0.0,
    norm: Norm = "batch",
    idle_branch: Literal["skip", "empty"] = "skip",
    weights: str | None = None,
    seed: int | None = None,
) -> AuxLoss:
    """Make a network by name.

        >>> import torch
        >>> from dualview.batch import StudyBatch
        >>> from dualview.models import build_model
        >>> pa, lateral = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)
        >>> batch = StudyBatch.from_views(pa=[pa[0], pa[1], None], lateral=[None, lateral[0], lateral[1]])
        >>> model = build_model("auxloss", num_findings=5, backbone="densenet_tiny")
        >>> predictions = model(batch)
        >>> [tuple(logits.shape) for logits in predictions]  # joint, PA and lateral heads: rows that reach them
        [(1, 5), (2, 5), (2, 5)]

    Args:
        name: `auxloss`.
        num_findings: K, outputs of every head.
        backbone: `densenet121`, `densenet161`, `densenet169`, `densenet201` or `densenet_tiny`.
        merge_after_block: dense block after which the views meet, 3 or 4.
        dropout: probability in [0, 1) after each dense layer.
        norm: `batch`, `group`, `frozen` or `sync` (see `norm.use_norm`).
        idle_branch: `skip` or `empty` (see `AuxLoss`).
        weights: None, `imagenet`, or a file (see `weights.load_weights`).
        seed: of the random initial weights; None draws from torch's global generator. With a seed that
            generator is left as it was.

    Raises:
        ValueError: unknown name or backbone, or a merge point that does not exist.
        UserError: weights that cannot be had or do not fit.
    """
    if name != "auxloss":
        raise ValueError(f"unknown model '{name}'; there is auxloss")
    if merge_after_block not in (3, 4):
        raise ValueError(f"merge_after_block is {merge_after_block}; it must be 3 or 4")
    with torch.random.fork_rng(enabled=seed is not None, devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        model = AuxLoss(
            num_findings=num_findings,
            backbone=backbone,
            merge_after_block=merge_after_block,
            dropout=dropout,
            norm=norm,
            idle_branch=idle_branch,
        )
    if weights is not None:
        load_weights(model, weights=weights, backbone=backbone)
    return model
