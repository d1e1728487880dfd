"""From a name and settings, or from a configuration, to a network."""

from importlib import import_module
from typing import Literal

import torch

from dualview.config import Config
from dualview.config.uses import NETWORKS
from dualview.models.initial_weights import InitialWeights
from dualview.models.network import Network, NetworkSpec
from dualview.models.norm import Norm
from dualview.views import View


def build_model(
    name: str,
    *,
    num_findings: int,
    view: Literal["pa", "lateral"] = "pa",
    backbone: str = "densenet121",
    image_size_px: int = 224,
    merge_after_block: int = 3,
    dropout: float = 0.0,
    norm: Norm = "batch",
    idle_branch: Literal["skip", "empty"] = "skip",
    gradient_checkpointing: bool = False,
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
        >>> logits = model(batch)
        >>> [tuple(getattr(logits, head).shape) for head in ("joint", "pa", "lateral")]  # rows per head
        [(1, 5), (2, 5), (2, 5)]

    Args:
        name: `auxloss`, `dualnet`, `hemis`, `attention`, `single` or `stacked`.
        num_findings: K, outputs of every head.
        view: which one `single` sees.
        backbone: one of `backbone.BACKBONES`, or `timm:NAME`; `hemis` needs a DenseNet.
        image_size_px: side of the images, for networks of timm that have positions.
        merge_after_block: of `auxloss` and `dualnet`: dense block after which the views meet, 3 or 4.
        dropout: probability in [0, 1) after each dense layer.
        norm: `batch`, `group`, `frozen` or `sync` (see `norm.use_norm`).
        idle_branch: what a branch without rows does: `skip`, it is not run; `empty`, it runs on zero rows, so that
            every forward pass has the same graph. Gradients are the same, but None against zero.
        gradient_checkpointing: in training, keep only the maps between layers (see `Backbone.recomputes`).
        shared_branch: one backbone for both views, with an embedding of the view (not `single`, `stacked`).
        weights: None, `imagenet`, or a file (see `initial_weights.load_weights`).
        seed: of the random initial weights; None draws from torch's global generator. With a seed that
            generator is left as it was.

    Raises:
        ValueError: unknown name or backbone, or a merge point that does not exist.
        UserError: weights that cannot be had or do not fit.
    """
    if merge_after_block not in (3, 4):
        raise ValueError(f"merge_after_block is {merge_after_block}; it must be 3 or 4")
    spec = NetworkSpec(
        num_findings=num_findings,
        backbone=backbone,
        image_size_px=image_size_px,
        merge_after_block=merge_after_block,
        dropout=dropout,
        norm=norm,
        runs_when_idle=idle_branch == "empty",
        recomputes=gradient_checkpointing,
        shared_branch=shared_branch,
        view=View[view.upper()],
    )
    return build_network(name, spec, weights=InitialWeights(of_all=weights) if weights else None, seed=seed)


def build_configured(config: Config, *, num_findings: int, weights: InitialWeights | None = None) -> Network:
    """The network that a configuration describes, with initial weights from its seed or from `weights`.

    Learned weights of the loss begin with the configured ones, whatever `weights` holds.

    Raises:
        UserError: weights that cannot be had or do not fit.
    """
    model, loss = config.model, config.loss
    spec = NetworkSpec(
        num_findings=num_findings,
        backbone=model.backbone,
        image_size_px=config.data.image_size_px,
        merge_after_block=model.merge_after_block,
        dropout=model.dropout,
        norm=model.norm,
        runs_when_idle=config.distributed.idle_branch == "empty",
        recomputes=config.train.gradient_checkpointing,
        shared_branch=model.shared_branch,
        view=View[model.view.upper()],
        learned_weights=loss.learned_weights,
        pa_weight=loss.pa_weight,
        lateral_weight=loss.lateral_weight,
    )
    return build_network(model.name, spec, weights=weights, seed=config.run.seed)


def build_network(
    name: str, spec: NetworkSpec, *, weights: InitialWeights | None = None, seed: int | None = None
) -> Network:
    """The member of the family in `models/NAME.py`, which calls its class NETWORK; arguments as `build_model`.

    Raises:
        ValueError: unknown name or backbone, a merge point that does not exist, or nothing to share.
        UserError: weights that cannot be had or do not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown model '{name}'; there are {', '.join(NETWORKS)}")
    if spec.shared_branch and "model.shared_branch" not in NETWORKS[name].keys:
        raise ValueError(f"shared_branch needs two branches; {name} has one")
    member: type[Network] = import_module(f"dualview.models.{name}").NETWORK
    with torch.random.fork_rng(enabled=seed is not None, devices=[]):
        if seed is not None:
            torch.manual_seed(seed)
        network = member(spec)
    if weights is not None:
        network.weight_sources = weights.load(network, backbone=spec.backbone)
    return network
