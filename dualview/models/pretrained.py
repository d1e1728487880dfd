"""Where weights come from: torchvision, timm, the Hugging Face hub, torchxrayvision, a run of dualview, or a file.

What is read keeps the names of its source; `initial_weights` fits it into a network. Nothing but tensors is loaded from
files: safetensors, or torch's `weights_only`.
"""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dualview.errors import UserError, first_line
from dualview.models import timm_backbone
from dualview.models.network import PARTS

logger = logging.getLogger(__name__)

HUB = "hf:"
FILES_OF_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
UNNAMED = "none is named by the source"


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Weights with what must be known of them."""

    source: str  # as it is told to people
    state: dict[str, Tensor]  # name -> tensor, names of the source
    licence: str | None = None  # None: of files, whose terms are known to who has them
    mean: tuple[float, ...] | None = None  # of images in [0, 1], per channel, that were subtracted in training;
    std: tuple[float, ...] | None = None  # and what they were divided by; None: images in [-1, 1] as they are
    findings: tuple[str, ...] | None = None  # of a run of dualview

    @property
    def is_network(self) -> bool:
        """Whether these are weights of a whole network of dualview, not of one backbone."""
        parts = set(PARTS) - {"loss"}
        return any(key.removeprefix("module.").partition(".")[0] in parts for key in self.state)


def find_weights(weights: str, *, backbone: str) -> Pretrained:
    """Read what `model.weights` names.

    Args:
        weights: `imagenet`, `timm`, `hf:ORG/NAME[@REVISION]`, `xrv:NAME`, `xrv:FILE`, a run directory, a folder as a
            hub has it (config.json beside the weights), or a file (.safetensors, .pt, .pth, .bin).
        backbone: to know which weights are meant by `imagenet` and `timm`.

    Raises:
        UserError: they cannot be had, or are no plain tensors.
    """
    if weights in ("imagenet", "timm"):
        return _of_torchvision(backbone) if weights == "imagenet" else _of_timm(backbone)
    if weights.startswith("xrv:"):
        return _of_torchxrayvision(weights.removeprefix("xrv:"))
    path = Path(weights)
    if (path / "checkpoints").is_dir():
        return _of_run(path)
    if weights.startswith(HUB):
        found = _of_hub(weights.removeprefix(HUB))
    elif path.is_dir():
        found = _of_folder(path, source=path.name)
    else:
        mean, std = _normalisation(path.parent / "preprocessor_config.json")
        found = Pretrained(source=path.name, state=read_state(path), mean=mean, std=std)
    return _normalised_as_timm(found, backbone=backbone)


def _normalised_as_timm(found: Pretrained, *, backbone: str) -> Pretrained:
    """With the mean that timm has for a network of its own, where nothing beside the weights says one."""
    if found.mean is not None or found.is_network or not backbone.startswith(timm_backbone.PREFIX):
        return found
    described = timm_backbone.library().get_pretrained_cfg(backbone.removeprefix(timm_backbone.PREFIX))
    if described is None:
        return found
    logger.info(
        "%s: taken as trained with timm's mean %s and standard deviation %s of images in [0, 1]; model.weights_mean "
        "and model.weights_std say otherwise", found.source, tuple(described.mean), tuple(described.std),
    )  # fmt: skip
    return replace(found, mean=tuple(described.mean), std=tuple(described.std))


def _of_torchvision(backbone: str) -> Pretrained:
    if backbone not in torchvision.models.list_models():
        remedy = "use timm" if backbone.startswith(timm_backbone.PREFIX) else "use null"
        raise UserError(f"model.weights imagenet: torchvision has none for model.backbone {backbone}; {remedy}")
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
    transforms = weights.transforms()
    return Pretrained(
        source=f"imagenet ({name})", state=state, mean=tuple(transforms.mean), std=tuple(transforms.std),
        licence="BSD-3-Clause (torchvision); trained on ImageNet-1k, whose images are for research",
    )  # fmt: skip


def _of_timm(backbone: str) -> Pretrained:
    """timm's own weights of that name, which its library fetches or finds in its cache."""
    if not backbone.startswith(timm_backbone.PREFIX):
        raise UserError(f"model.weights timm is for model.backbone timm:NAME, and that is {backbone}; use imagenet")
    timm, name = timm_backbone.library(), backbone.removeprefix(timm_backbone.PREFIX)
    described = timm.get_pretrained_cfg(name)
    if described is None or not (described.hf_hub_id or described.url or described.file):
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise UserError(
            f"model.weights timm: timm has no weights for {name}"
            + (f"; name one of {', '.join(tags)}" if tags else "; use null")
        )
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # The hub's and urllib's errors have no common kind.
        where = described.hf_hub_id or described.url
        raise UserError(
            f"model.weights timm: {where} cannot be had ({first_line(error)}). On a machine with network, download it "
            "and give model.weights the path of its model.safetensors"
        ) from None
    return Pretrained(
        source=f"timm {name}", state=network.state_dict(), mean=tuple(described.mean), std=tuple(described.std),
        licence=described.license or UNNAMED,
    )  # fmt: skip


def _of_hub(name: str) -> Pretrained:
    """A repository of the Hugging Face hub, from its cache where it is there."""
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError(f'model.weights hf:{name} needs huggingface_hub: pip install "dualview[timm]"') from None
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(repository, revision=revision or None, allow_patterns=["*.json", *FILES_OF_WEIGHTS])
    except Exception as error:  # The library raises a dozen kinds, some of requests'.
        raise UserError(
            f"model.weights hf:{name} cannot be had ({first_line(error)}). On a machine with network, download its "
            "config.json, preprocessor_config.json and model.safetensors into a folder, and give model.weights its path"
        ) from None
    return _of_folder(Path(folder), source=f"hf:{name}", licence=UNNAMED)


def _of_folder(folder: Path, *, source: str, licence: str | None = None) -> Pretrained:
    """A folder as hubs have it: weights, and the normalisation of images beside them."""
    file = next((folder / name for name in FILES_OF_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise UserError(
            f"model.weights {source}: the folder holds no {' or '.join(FILES_OF_WEIGHTS)}, and is no run of dualview"
        )
    mean, std = _normalisation(folder / "preprocessor_config.json")
    if mean is None:
        mean, std = _normalisation(folder / "config.json")
    licence = _licence(folder / "config.json") or licence
    return Pretrained(source=source, state=read_state(file), licence=licence, mean=mean, std=std)


def _normalisation(file: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | tuple[None, None]:
    """Mean and standard deviation as transformers and timm write them; None without such a file."""
    content = _json(file)
    content = content.get("pretrained_cfg", content)
    for mean, std in (("image_mean", "image_std"), ("mean", "std")):
        if mean in content and std in content:
            return tuple(map(float, content[mean])), tuple(map(float, content[std]))
    return None, None


def _licence(file: Path) -> str | None:
    content = _json(file)
    licence = content.get("pretrained_cfg", content).get("license")
    return str(licence) if licence else None


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"model.weights: {file} is no JSON ({first_line(error)})") from None
    return content if isinstance(content, dict) else {}


def _of_torchxrayvision(name: str) -> Pretrained:
    """Weights of torchxrayvision's DenseNet, made for images in [-1, 1].

    Theirs are in [-1024, 1024] (its `datasets.normalize`). The first convolution has no bias, so its weights
    times 1024 give on our images what they give on theirs.
    """
    licence = None
    if Path(name).exists():
        source, state = str(name), read_state(Path(name))
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
        licence = "Apache-2.0 (torchxrayvision); its data sets have terms of their own"
    state = {key: value for key, value in state.items() if key != "op_threshs"}
    state = {key: value * 1024 if key.endswith("conv0.weight") else value for key, value in state.items()}
    return Pretrained(source=source, state=state, licence=licence)


def _of_run(run: Path) -> Pretrained:
    """The best checkpoint of a training."""
    folder = run / "checkpoints" / "best"
    try:
        findings = tuple(json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["findings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"model.weights {run}: the run has no best checkpoint of this dualview in {folder}") from None
    return Pretrained(source=f"run {run.name}", state=read_state(folder / "model.safetensors"), findings=findings)


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file.

    Raises:
        UserError: no such file, or no plain tensors in it.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights: no such file {path}; give a path, imagenet, timm, hf:ORG/NAME, xrv:NAME or null"
        )
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
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(
            f"model.weights {path} must hold a state dict (name -> tensor), found a {type(loaded).__name__}"
        )
    return loaded
