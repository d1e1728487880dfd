"""Initial weights: torchvision's ImageNet ones, or a file of one backbone or of a whole network."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dualview.errors import UserError, first_line, listed
from dualview.models.branch import SharedBackbone, ViewPart
from dualview.models.network import PARTS, Network

logger = logging.getLogger(__name__)

CLASSIFIERS = ("classifier.", "fc.", "head.")  # torchvision's names of the last layer
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def load_weights(model: Network, *, weights: str, backbone: str) -> None:
    """Put weights into `model`, in place.

    Args:
        model: a network whose branches, among `pa`, `lateral` and `joint`, have `features`.
        weights: `imagenet`; `xrv:NAME`, a DenseNet of torchxrayvision, or `xrv:PATH`, a file of such weights; or
            the path of a state dict (.pt, .pth) or .safetensors file. A file of one
            backbone (torchvision's names, any number of input channels) goes into every branch, as far as
            that goes, and leaves the heads as they are; a file of a whole dualview network goes in as it is.
        backbone: name of the backbone, to know which ImageNet weights to take.

    Raises:
        UserError: no such file, no network, an unreadable file, or keys and shapes that do not fit,
            each named.
    """
    if weights == "imagenet":
        source, state = _imagenet(backbone)
    elif weights.startswith("xrv:"):
        source, state = _torchxrayvision(weights.removeprefix("xrv:"))
    else:
        source, state = _from_file(Path(weights))
    state = {_current_name(key): value for key, value in state.items()}
    # Learned weights of the loss belong to the run that learned them and are not taken over.
    state = {key: value for key, value in state.items() if not key.startswith("loss.")}
    whole_network = any(key.startswith(tuple(f"{part}." for part in PARTS)) for key in state)
    expected = {key: value for key, value in model.state_dict().items() if not key.startswith("loss.")}
    if whole_network:
        proposed = state
    else:
        branches = [part for part in PARTS if _takes_images(model, part)]
        expected = {key: value for key, value in expected.items() if key.split(".features.")[0] in branches}
        backbone_state = {f"features.{key.removeprefix('features.')}": value for key, value in state.items()}
        left_out = sorted(key for key in state if key.removeprefix("features.").startswith(CLASSIFIERS))
        for key in left_out:
            del backbone_state[f"features.{key}"]
        if left_out:
            logger.info("%s: %s not used, the heads start anew", source, ", ".join(left_out))
        proposed = {f"{part}.{key}": value for part in branches for key, value in backbone_state.items()}
        if _is_cut(expected):
            # hemis, and dualnet that merges after block 3, have fewer layers than the file.
            proposed = {key: value for key, value in proposed.items() if key in expected}
    proposed = {key: _to_channels(value, expected.get(key)) for key, value in proposed.items()}

    if not any(key.endswith("running_mean") for key in expected):  # true of model.norm=group
        proposed = {key: value for key, value in proposed.items() if not key.endswith(BATCH_STATISTICS)}
    problems = _mismatches(proposed, expected=expected)
    if problems:
        raise UserError(f"model.weights {source} does not fit model.backbone {backbone}:\n{listed(problems)}")
    model.load_state_dict({**model.state_dict(), **proposed})


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


def _to_channels(value: Tensor, like: Tensor | None) -> Tensor:
    """Sum a first convolution (out, in, k, k) over its inputs, what it gives for a gray image, and share it out."""
    if like is None or value.dim() != 4 or like.dim() != 4 or value.shape[1] != 3 or like.shape[1] not in (1, 2):
        return value
    return value.sum(dim=1, keepdim=True).expand(-1, like.shape[1], -1, -1) / like.shape[1]


def _current_name(key: str) -> str:
    """Names as torchvision has them now: its older files say `norm.1` for `norm1`, wrapped networks `module.`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key.removeprefix("module."))


def _imagenet(backbone: str) -> tuple[str, dict[str, Tensor]]:
    if backbone not in torchvision.models.list_models():
        raise UserError(f"model.weights imagenet: torchvision has none for model.backbone {backbone}; use null")
    weights = torchvision.models.get_model_weights(backbone).DEFAULT
    name = weights.url.rsplit("/", 1)[1]
    place = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        if not place.exists():
            logger.info("fetching %s", weights.url)
        state = torch.hub.load_state_dict_from_url(
            weights.url, map_location="cpu", check_hash=not place.exists(), weights_only=True, progress=False
        )
    except (URLError, OSError) as error:
        raise UserError(
            f"model.weights imagenet: {weights.url} cannot be fetched ({error}). On a machine with network, download "
            f"that file and place it at {place}, or give model.weights the path of a file you have"
        ) from None
    except (RuntimeError, EOFError) as error:
        raise UserError(
            f"model.weights imagenet: {place} is not torchvision's file ({first_line(error)}); delete it"
        ) from None
    return f"imagenet ({name})", state


def _torchxrayvision(name: str) -> tuple[str, dict[str, Tensor]]:
    """Weights of torchxrayvision's DenseNet, made for images in [-1, 1].

    Theirs are in [-1024, 1024] (its `datasets.normalize`). The first convolution has no bias, so its weights
    times 1024 give on our images what they give on theirs.
    """
    if Path(name).exists():
        source, state = _from_file(Path(name))
    else:
        try:
            import torchxrayvision  # noqa: PLC0415 - an extra
        except ImportError:
            raise UserError(
                f"model.weights xrv:{name} is no file, and torchxrayvision is not there: pip install 'dualview[xrv]'"
            ) from None
        try:
            source, state = f"xrv:{name}", torchxrayvision.models.DenseNet(weights=name).state_dict()
        except Exception as error:  # torchxrayvision raises a bare Exception for an unknown name
            raise UserError(f"model.weights xrv:{name} cannot be had: {first_line(error)}") from None
    state = {key: value for key, value in state.items() if key != "op_threshs"}
    return source, {key: value * 1024 if key.endswith("conv0.weight") else value for key, value in state.items()}


def _from_file(path: Path) -> tuple[str, dict[str, Tensor]]:
    if not path.is_file():
        raise UserError(f"model.weights: no such file {path}; give a path, 'imagenet' or null")
    try:
        loaded: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"model.weights {path} cannot be read as a state dict: {first_line(error)}") from None
    except Exception as error:  # A malformed pickle raises more than pickle.UnpicklingError.
        raise UserError(
            f"model.weights {path} is not a plain state dict of tensors ({first_line(error)}). Whole pickled "
            "modules are not loaded, they can run code: save model.state_dict() instead"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded or not _all_tensors(loaded.values()):
        raise UserError(
            f"model.weights {path} must hold a state dict (name -> tensor), found a {type(loaded).__name__}"
        )
    return str(path), loaded


def _all_tensors(values: Iterable[object]) -> bool:
    return all(isinstance(value, Tensor) for value in values)
