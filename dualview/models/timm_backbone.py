"""timm's networks as feature maps of gray images: maps as they are, a transformer's patch tokens as a map."""

from collections import OrderedDict
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dualview.errors import UserError
from dualview.models.first_convolution import FirstConvolution
from dualview.models.idle import nothing_of
from dualview.models.norm import Norm, PooledBatchNorm2d, SyncedBatchNorm2d, use_norm

PREFIX = "timm:"


class TimmFeatures(nn.Module):
    """A network of timm without its head.

    Its parameters have timm's names under `network.`, so that published weights fit.

    Attributes:
        num_channels: D of the feature map.
        map_size: (h, w) of the feature map.
        layout: of what the network gives: `NCHW`, `NHWC` or `NLC`, tokens of which the first are no patches.
    """

    def __init__(self, network: Any, *, in_channels: int, image_size_px: int) -> None:
        super().__init__()
        self.network: Any = network
        self.num_channels = int(network.num_features)
        self.num_prefix_tokens = int(getattr(network, "num_prefix_tokens", 0))
        was_training = network.training
        with torch.no_grad():
            features = network.eval().forward_features(torch.zeros(1, in_channels, image_size_px, image_size_px))
        network.train(was_training)
        self.layout = self._layout(features.shape)
        self.map_size = self._as_map(features).shape[2:]

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to the last feature map (N, D, h, w)."""
        if images.shape[0] == 0 and not any(isinstance(layer, SyncedBatchNorm2d) for layer in self.modules()):
            # Many networks cannot divide no rows into windows or heads.
            return images.new_zeros(0, self.num_channels, *self.map_size) + nothing_of(self)
        return self._as_map(self.network.forward_features(images))

    def _as_map(self, features: Tensor) -> Tensor:
        if self.layout == "NLC":
            patches = features[:, self.num_prefix_tokens :].transpose(1, 2)
            side = round(patches.shape[2] ** 0.5)
            return patches.reshape(*patches.shape[:2], side, side)
        return features.permute(0, 3, 1, 2) if self.layout == "NHWC" else features

    def recompute_blocks(self) -> bool:
        """Keep no maps within the network's blocks in training; False where the network cannot."""
        try:
            self.network.set_grad_checkpointing()
        except (AssertionError, AttributeError):
            return False
        return True

    def _layout(self, shape: torch.Size) -> str:
        if len(shape) == 4 and self.num_channels in (shape[1], shape[3]):
            return "NCHW" if shape[1] == self.num_channels else "NHWC"
        num_patches = shape[1] - self.num_prefix_tokens
        is_square = num_patches > 1 and round(num_patches**0.5) ** 2 == num_patches
        if len(shape) == 3 and shape[2] == self.num_channels and is_square:
            return "NLC"
        raise ValueError(
            f"it gives features of shape {tuple(shape)}, which are neither a map nor one token per patch, "
            f"{self.num_channels} channels each"
        )


def build_timm_features(backbone: str, *, norm: Norm, in_channels: int, image_size_px: int) -> nn.Sequential:
    """The layers of `timm:NAME` up to its last feature map, with random weights; they belong to `image_size_px`.

    A transformer that has its last normalisation after the pooling gets it before, on the tokens.

    Raises:
        UserError: timm is not installed or has no such network, or the network does not take these images, gives no
            map, or normalises batches in a way that is not pooled over ranks; the text says which.
    """
    timm, name = library(), backbone.removeprefix(PREFIX)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=5)
        raise UserError(
            f"model.backbone is {backbone}, and timm {timm.__version__} has no network {architecture}"
            + (f"; near it are {', '.join(near)}" if near else "")
        )
    try:
        network = _created(timm, architecture, in_channels=in_channels, image_size_px=image_size_px)
        _remove_head(network)
        _refuse_cut_patches(network, image_size_px=image_size_px)
        features = TimmFeatures(network, in_channels=in_channels, image_size_px=image_size_px)
    except (ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"model.backbone is {backbone}, which cannot be used with data.image_size_px {image_size_px}: {error}"
        ) from error
    use_norm(features, norm)
    for path, first in [item for item in features.named_modules() if isinstance(item[1], nn.Conv2d)][:1]:
        if type(first) is nn.Conv2d:  # Others pad or standardise in ways of their own.
            features.set_submodule(path, FirstConvolution.of(first))
    _refuse_other_batch_norms(features, backbone=backbone)
    return nn.Sequential(OrderedDict(timm=features))


def num_channels(layers: nn.Sequential) -> int:
    """D of what `build_timm_features` made."""
    features = layers[0]
    assert isinstance(features, TimmFeatures)
    return features.num_channels


def library() -> Any:
    """timm itself.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm  # noqa: PLC0415 - an extra
    except ImportError:
        raise UserError('timm is needed, and not there: pip install "dualview[timm]"') from None
    return timm


def _created(timm: Any, architecture: str, *, in_channels: int, image_size_px: int) -> Any:
    """A network for images of that size; those with positions must be told it."""
    settings = {"pretrained": False, "num_classes": 0, "in_chans": in_channels}
    try:
        return timm.create_model(architecture, img_size=image_size_px, **settings)
    except TypeError:
        return timm.create_model(architecture, **settings)


def _remove_head(network: Any) -> None:
    """Take away what comes after the last feature map, so that no parameter is without a gradient."""
    if isinstance(getattr(network, "norm", None), nn.Identity) and hasattr(network, "fc_norm"):
        network.norm, network.fc_norm = network.fc_norm, nn.Identity()
    for name in ("head", "head_norm", "attn_pool", "pre_logits"):
        if isinstance(getattr(network, name, None), nn.Module):
            setattr(network, name, nn.Identity())
    # MobileNets widen the map after the pooling, by layers that EfficientNets have before it.
    if network.num_features != getattr(getattr(network, "conv_head", None), "out_channels", network.num_features):
        network.conv_head = network.norm_head = nn.Identity()


def _refuse_cut_patches(network: Any, *, image_size_px: int) -> None:
    """Patches that the image does not hold whole would be left out, at its right and lower edge."""
    size = getattr(getattr(network, "patch_embed", None), "patch_size", 1)
    side = size[0] if isinstance(size, tuple) else size
    if isinstance(side, int) and image_size_px % side:
        below = image_size_px // side * side
        raise ValueError(f"its patches are of {side} px, and would not cover the image; give {below} or {below + side}")


def _refuse_other_batch_norms(features: nn.Module, *, backbone: str) -> None:
    kinds = {
        type(layer).__name__
        for layer in features.modules()
        if isinstance(layer, _BatchNorm) and not isinstance(layer, PooledBatchNorm2d)
    }
    if kinds:
        raise UserError(
            f"model.backbone is {backbone}, whose {', '.join(sorted(kinds))} keeps statistics that are not pooled over "
            "ranks, so that results would depend on their number; choose another"
        )
