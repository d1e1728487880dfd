"""Networks: `build_model` makes one, its docstring shows how to use it."""

from typing import Any, Literal

import torch

from dualview.config import Config
from dualview.models.attention import Attention
from dualview.models.auxloss import AuxLoss
from dualview.models.branch import FeatureBranch, share_backbone
from dualview.models.dualnet import DualNet
from dualview.models.hemis import HeMIS
from dualview.models.loss_weights import LossWeights
from dualview.models.network import Network
from dualview.models.norm import Norm
from dualview.models.one_branch import Single, Stacked
from dualview.models.weights import load_weights
from dualview.views import View

__all__ = ["build_configured", "build_model"]


NAMES = ("auxloss", "dualnet", "hemis", "attention", "single", "stacked")


def build_model(
    name: str,
    *,
    num_findings: int,
    view: Literal["pa", "lateral"] = "pa",
    backbone: str = "densenet121",
    merge_after_block: int = 3,
    dropout: float = 0.0,
    norm: Norm = "batch",
    idle_branch: Literal["skip", "empty"] = "skip",
    shared_branch: bool = False,
    weights: str | None = None,
    seed: int | None = None,
) -> Network:
    """Make a network by name.

        >>> import torch
        >>> from dualview.batch import StudyBatch
        >>> from dualview.models import build_model
        >>> pa, lateral = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)
        >>> batch = StudyBatch.from_views(pa=[pa[0], pa[1], None], lateral=[None, lateral[0], lateral[1]])
        >>> model = build_model("auxloss", num_findings=5, backbone="densenet_tiny")
        >>> predictions = model(batch)
        >>> [tuple(getattr(predictions, head).shape) for head in ("joint", "pa", "lateral")]  # rows that reach them
        [(1, 5), (2, 5), (2, 5)]

    Args:
        name: one of `NAMES`.
        num_findings: K, outputs of every head.
        view: which one `single` sees.
        backbone: one of `backbone.BACKBONES`; `hemis` needs a DenseNet.
        merge_after_block: of `auxloss` and `dualnet`: dense block after which the views meet, 3 or 4.
        dropout: probability in [0, 1) after each dense layer.
        norm: `batch`, `group`, `frozen` or `sync` (see `norm.use_norm`).
        idle_branch: `skip` or `empty` (see `AuxLoss`).
        shared_branch: one backbone for both views, with an embedding of the view (not `single`, `stacked`).
        weights: None, `imagenet`, or a file (see `weights.load_weights`).
        seed: of the random initial weights; None draws from torch's global generator. With a seed that
            generator is left as it was.

    Raises:
        ValueError: unknown name or backbone, or a merge point that does not exist.
        UserError: weights that cannot be had or do not fit.
    """
    if name not in NAMES:
        raise ValueError(f"unknown model '{name}'; there are {', '.join(NAMES)}")
    if merge_after_block not in (3, 4):
        raise ValueError(f"merge_after_block is {merge_after_block}; it must be 3 or 4")
    common: dict[str, Any] = {
        "num_findings": num_findings, "backbone": backbone, "dropout": dropout, "norm": norm,
        "idle_branch": idle_branch,
    }  # fmt: skip
    with torch.random.fork_rng(enabled=seed is not None, devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        model: Network
        if name == "single":
            model = Single(view=View[view.upper()], **common)
        elif name == "stacked":
            model = Stacked(**common)
        elif name == "hemis":
            model = HeMIS(**common)
        elif name == "attention":
            model = Attention(**common)
        else:
            network = AuxLoss if name == "auxloss" else DualNet
            model = network(merge_after_block=merge_after_block, **common)
        if shared_branch:
            if name in ("single", "stacked"):
                raise ValueError(f"shared_branch needs two branches; {name} has one")
            assert isinstance(model.pa, FeatureBranch) and isinstance(model.lateral, FeatureBranch)
            model.shared = share_backbone(model.pa, model.lateral)
    if weights is not None:
        load_weights(model, weights=weights, backbone=backbone)
    return model


def build_configured(config: Config, *, num_findings: int, weights: str | None = None) -> Network:
    """The network that a configuration describes, with initial weights from its seed or from `weights`.

    Learned weights of the loss begin with the configured ones, whatever `weights` holds.

    Raises:
        UserError: weights that cannot be had or do not fit.
    """
    model = build_model(
        config.model.name,
        num_findings=num_findings,
        view=config.model.view,
        backbone=config.model.backbone,
        merge_after_block=config.model.merge_after_block,
        dropout=config.model.dropout,
        norm=config.model.norm,
        idle_branch=config.distributed.idle_branch,
        shared_branch=config.model.shared_branch,
        weights=weights,
        seed=config.run.seed,
    )
    if config.loss.learned_weights != "none":
        model.loss = LossWeights(
            config.loss.learned_weights, pa=config.loss.pa_weight, lateral=config.loss.lateral_weight
        )
    return model
