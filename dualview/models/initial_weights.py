"""Fitting weights of others into a network: names, gray images, and the intensities they were trained with."""

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor, nn

from dualview.config import ModelConfig
from dualview.errors import UserError, listed
from dualview.models import timm_backbone, transformers_names
from dualview.models.branch import SharedBackbone, ViewPart
from dualview.models.first_convolution import FirstConvolution
from dualview.models.network import PARTS, Network, WeightSource
from dualview.models.pretrained import Pretrained, find_weights

logger = logging.getLogger(__name__)

CLASSIFIERS = ("classifier.", "fc.", "head.", "head_dist.", "attn_pool.")
"""Names of the last layers of torchvision and timm, which have learned other findings."""
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SHIFT = ".shift"
"""End of the names of what a first layer has taken up of its images' mean."""
HEAD = re.compile(r"(^|\.)(head|joint)\.(weight|bias)$")
"""The layers of a network of ours that answer findings."""


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """What a network begins with; see `initial_weights.load_weights`."""

    of_all: str | None = None  # weights of every part
    of_pa: str | None = None  # weights of the PA branch, in place of them
    of_lateral: str | None = None
    mean: Sequence[float] | None = None  # of images, where it is not known of the weights
    std: Sequence[float] | None = None
    findings: Sequence[str] | None = None  # those of the network

    def load(self, network: Network, *, backbone: str) -> list[WeightSource]:
        """Put the weights into a network; tells where each are from."""
        sources, are_networks = [], []
        for parts, weights in ((PARTS, self.of_all), (("pa",), self.of_pa), (("lateral",), self.of_lateral)):
            if weights is None:
                continue
            found = load_weights(
                network, weights=weights, backbone=backbone, parts=parts, findings=self.findings, mean=self.mean,
                std=self.std,
            )  # fmt: skip
            sources.append(WeightSource(", ".join(parts) if parts != PARTS else "all", found.source, found.licence))
            are_networks.append(found.is_network)
        if self.mean is not None and are_networks and all(are_networks):
            raise UserError(
                f"model.weights_mean is given, and {' and '.join(source.source for source in sources)} holds a network "
                "of dualview, whose first layer has taken up its own; leave weights_mean and weights_std out"
            )
        return sources


def configured_weights(model: ModelConfig, *, findings: Sequence[str]) -> InitialWeights:
    """The weights that a configuration begins with."""
    return InitialWeights(
        of_all=model.weights, of_pa=model.weights_pa, of_lateral=model.weights_lateral, mean=model.weights_mean,
        std=model.weights_std, findings=findings,
    )  # fmt: skip


def load_weights(
    model: Network,
    *,
    weights: str,
    backbone: str,
    parts: Collection[str] = PARTS,
    findings: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Pretrained:
    """Put weights into `model`, in place; tells what they are.

    Weights that were trained on images in [0, 1] less a mean, divided by a standard deviation, give on images in
    [-1, 1] what they gave on those: both are folded into the first layer.

    Args:
        model: a network whose branches, among `pa`, `lateral` and `joint`, have `features`.
        weights: see `pretrained.find_weights`. A file of one backbone (any number of input channels) goes into every
            branch, as far as that goes, and leaves the heads as they are; one of a whole dualview network goes in as it
            is, but for the heads of a run with other findings.
        backbone: name of the backbone.
        parts: which parts of the network take them.
        findings: those of the network's heads; None: not known, heads are taken.
        mean, std: of the images, in place of what is known of the weights.

    Raises:
        UserError: no such file, no network, an unreadable file, or keys and shapes that do not fit,
            each named.
    """
    found = find_weights(weights, backbone=backbone)
    state = {_current_name(key): value for key, value in found.state.items()}
    # Learned weights of the loss belong to the run that learned them and are not taken over.
    state = {key: value for key, value in state.items() if not key.startswith("loss.")}
    before = model.state_dict()
    # A shift belongs to the weights that it came with, and goes with them where others take their place.
    expected = {
        key: value
        for key, value in before.items()
        if not key.startswith("loss.") and key.split(".")[0] in parts and not key.endswith(SHIFT)
    }
    if found.is_network:
        if set(parts) != set(PARTS):
            expected = {key: value for key, value in expected.items() if ".features." in key}
        proposed = {key: value for key, value in state.items() if key.split(".")[0] in parts}
        if set(parts) != set(PARTS):
            proposed = {key: value for key, value in proposed.items() if ".features." in key}
        elif None not in (found.findings, findings) and found.findings != tuple(findings or ()):
            heads = sorted(key for key in expected if HEAD.search(key))
            logger.info("%s has other findings: %s start anew", found.source, ", ".join(heads))
            expected, proposed = ({k: v for k, v in d.items() if k not in heads} for d in (expected, proposed))
    else:
        branches = [part for part in parts if _takes_images(model, part)]
        expected = {key: value for key, value in expected.items() if key.split(".features.")[0] in branches}
        proposed = {}
        for part in branches:
            of_part = _of_backbone(state, layers=getattr(model, part).features, found=found, mean=mean, std=std)
            proposed |= {f"{part}.features.{key}": value for key, value in of_part.items()}
        left_out = sorted(key for key in state if key.removeprefix("features.").startswith(CLASSIFIERS))
        if left_out:
            logger.info("%s: %s not used, the heads start anew", found.source, ", ".join(left_out))
        if _is_cut(expected):
            # hemis, and dualnet that merges after block 3, have fewer layers than the file.
            proposed = {key: value for key, value in proposed.items() if key in expected}

    if not any(key.endswith("running_mean") for key in expected):  # true of model.norm=group
        proposed = {key: value for key, value in proposed.items() if not key.endswith(BATCH_STATISTICS)}
    shifts = {key: value for key, value in proposed.items() if key.endswith(SHIFT)}
    problems = _mismatches(proposed, expected=expected | shifts)
    if problems:
        raise UserError(f"model.weights {found.source} does not fit model.backbone {backbone}:\n{listed(problems)}")
    kept = {key: value for key, value in before.items() if f"{key.removesuffix(SHIFT)}.weight" not in proposed}
    model.load_state_dict({**kept, **proposed})
    return found


def _of_backbone(
    state: dict[str, Tensor],
    *,
    layers: nn.Sequential,
    found: Pretrained,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> dict[str, Tensor]:
    """Weights of one backbone under the names of our layers, for gray images in [-1, 1]."""
    state = {
        key.removeprefix("features."): value
        for key, value in state.items()
        if not key.removeprefix("features.").startswith(CLASSIFIERS)
    }
    if isinstance(layers[0], timm_backbone.TimmFeatures):
        state = {f"timm.network.{key}": value for key, value in _as_timm_has_them(state, layers[0].network).items()}
    first = _first_convolution(layers)
    weight = state.get(f"{first}.weight")
    if weight is None:
        return state  # The mismatch is told with all others.
    mean, std = (found.mean, found.std) if mean is None else (mean, std)
    if mean is not None and std is not None:
        state |= _folded(state, layers=layers, first=first, mean=mean, std=std, source=found.source)
    convolution = layers.get_submodule(first)
    assert isinstance(convolution, nn.Conv2d)
    state[f"{first}.weight"] = _to_channels(state[f"{first}.weight"], convolution.weight)
    return state


def _as_timm_has_them(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Names of timm, whatever the source, with positions for the network's own image size."""
    if transformers_names.is_dinov2(state):
        state = transformers_names.in_timms_names(state)
    if "fc_norm.weight" in state and "norm.weight" not in state:
        # What comes after the pooling there is before it here (see timm_backbone).
        state = {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in state.items()}
    adapt = getattr(import_module(type(network).__module__), "checkpoint_filter_fn", None)
    adapted: dict[str, Tensor] = state if adapt is None else adapt(state, network)
    return {key: value for key, value in adapted.items() if not key.startswith(CLASSIFIERS)}


def _first_convolution(layers: nn.Sequential) -> str:
    """Its path; of networks without any, a name that no weight has."""
    paths: list[str] = [path for path, layer in layers.named_modules() if isinstance(layer, nn.Conv2d)]
    return paths[0] if paths else "no convolution"


def _folded(
    state: dict[str, Tensor],
    *,
    layers: nn.Sequential,
    first: str,
    mean: Sequence[float],
    std: Sequence[float],
    source: str,
) -> dict[str, Tensor]:
    """The first layer for images x in [-1, 1] instead of z = ((x + 1) / 2 - mean) / std.

    z is x / (2 std) plus a constant, which goes into the layer's bias, or where the layer pads images into its `shift`.
    """
    weight, convolution = state[f"{first}.weight"], layers.get_submodule(first)
    if not isinstance(convolution, FirstConvolution):
        raise UserError(
            f"model.weights {source}: the first layer is a {type(convolution).__name__}, which pads images or "
            "standardises weights in a way of its own; the mean and standard deviation of images cannot be put into it"
        )
    if not (len(mean) == len(std) and len(mean) in (1, weight.shape[1])):
        raise UserError(
            f"model.weights {source}: mean {tuple(mean)} and std {tuple(std)} do not belong to its {weight.shape[1]} "
            "channels; give one or as many of each"
        )
    means, stds = (torch.tensor(values, dtype=weight.dtype).expand(weight.shape[1]) for values in (mean, std))
    on_ones = torch.einsum("oikl,i->okl", weight, (0.5 - means) / stds)[:, None]
    changed = {f"{first}.weight": weight / (2 * stds)[:, None, None]}
    if f"{first}.bias" in state and not any(convolution._reversed_padding_repeated_twice):
        changed[f"{first}.bias"] = state[f"{first}.bias"] + on_ones.sum(dim=(1, 2, 3))
    else:
        changed[f"{first}.shift"] = on_ones
    return changed


def _mismatches(proposed: dict[str, Tensor], *, expected: dict[str, Tensor]) -> list[str]:
    # Some sources lack num_batches_tracked, which changes nothing where it is missing.
    missing = [key for key in expected if key not in proposed and not key.endswith("num_batches_tracked")]
    problems = [f"{key}: missing in the file, the network needs {tuple(expected[key].shape)}" for key in missing]
    problems += [f"{key}: in the file, but not in the network" for key in proposed if key not in expected]
    problems += [
        f"{key}: {tuple(value.shape)} in the file, {tuple(expected[key].shape)} in the network"
        for key, value in proposed.items()
        if key in expected and value.shape != expected[key].shape
    ]
    return problems


def _takes_images(model: Network, part: str) -> bool:
    """Whether the part has a backbone of its own: not the tail of hemis, not a branch that borrows one."""
    module = getattr(model, part, None)
    return isinstance(module, ViewPart | SharedBackbone) and module.is_owner


def _is_cut(expected: dict[str, Tensor]) -> bool:
    """Whether the branches are DenseNets without their end."""
    has = "".join(expected)
    return ".features.conv0." in has and ".features.norm5." not in has


def _to_channels(value: Tensor, like: Tensor) -> Tensor:
    """Sum a first convolution (out, in, k, k) over its inputs, what it gives for a gray image, and share it out."""
    if value.dim() != 4 or value.shape[1] != 3 or like.shape[1] not in (1, 2):
        return value
    return value.sum(dim=1, keepdim=True).expand(-1, like.shape[1], -1, -1) / like.shape[1]


def _current_name(key: str) -> str:
    """Names as torchvision has them now: its older files say `norm.1` for `norm1`, wrapped networks `module.`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key.removeprefix("module."))
