"""torchvision's networks as feature maps of one-channel images; DenseNets divided where the views meet."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import groupby

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dualview.models import timm_backbone
from dualview.models.first_convolution import FirstConvolution
from dualview.models.norm import Norm, PooledBatchNorm2d, PooledStatistics, use_norm

# The tiny DenseNet has 38 thousand parameters, is for tests and demonstrations, and is published nowhere.
_tiny = partial(torchvision.models.DenseNet, growth_rate=8, block_config=(2, 2, 4, 2), num_init_features=16, bn_size=2)
DENSENETS: dict[str, Callable[..., torchvision.models.DenseNet]] = {
    **{
        name: getattr(torchvision.models, name) for name in ("densenet121", "densenet161", "densenet169", "densenet201")
    },
    "densenet_tiny": _tiny,
}
OTHERS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "convnext_tiny", "convnext_small", "convnext_base", "convnext_large",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l",
    "swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s", "swin_v2_b",
)  # fmt: skip
BACKBONES = (*DENSENETS, *OTHERS)


def build_features(
    name: str, *, dropout: float, norm: Norm = "batch", in_channels: int = 1, image_size_px: int = 224
) -> nn.Sequential:
    """The layers of a torchvision network up to its last feature map (N, D, h, w), with random weights.

    For a DenseNet: same modules, names and values as torchvision's `DenseNet.features`, so that its weights fit, with
    three changes: the input channels; the normalisation asked for (norm.py); and
    the average pooling of each transition before its 1x1 convolution instead of after. Both are
    linear and act on different axes, so the result is the same and the convolution does a quarter of
    the work. Other networks are as torchvision builds them, but for input channels and normalisation;
    their layers keep the names of torchvision's weights.

    Args:
        image_size_px: of the images, which only networks of timm that have positions look at.

    Raises:
        ValueError: unknown `name`, or dropout for a network that is no DenseNet.
        UserError: timm is not there, or its network cannot be used.
    """
    is_timms = name.startswith(timm_backbone.PREFIX)
    if name not in BACKBONES and not is_timms:
        raise ValueError(f"unknown backbone '{name}'; there are {', '.join(BACKBONES)}, and timm:NAME")
    if name not in DENSENETS:
        if dropout:
            raise ValueError(f"dropout is {dropout:g}, but only DenseNets have it after each layer; use 0 with {name}")
        if is_timms:
            return timm_backbone.build_timm_features(
                name, norm=norm, in_channels=in_channels, image_size_px=image_size_px
            )
        return _other_features(name, norm=norm, in_channels=in_channels)
    features: nn.Sequential = DENSENETS[name](drop_rate=dropout).features
    num_channels = features.get_submodule("norm0").num_features
    assert isinstance(num_channels, int)
    features.conv0 = FirstConvolution(in_channels, num_channels, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(features.conv0.weight)  # torchvision's own rule
    for layer_name, layer in features.named_children():
        if layer_name.startswith("transition"):
            pool_first = {key: getattr(layer, key) for key in ("norm", "relu", "pool", "conv")}
            layer._modules.clear()
            for key, module in pool_first.items():
                layer.add_module(key, module)
    use_norm(features, norm)
    return features


def _other_features(name: str, *, norm: Norm, in_channels: int) -> nn.Sequential:
    network = getattr(torchvision.models, name)()
    layers = OrderedDict(network.named_children())
    if name.startswith("resnet"):
        kept = OrderedDict((key, layer) for key, layer in layers.items() if key not in ("avgpool", "fc"))
    else:
        kept = OrderedDict(layers["features"].named_children())
        if name.startswith("swin"):  # Swin has channels last until its layer `permute`.
            kept |= {"norm": layers["norm"], "permute": layers["permute"]}
    features = nn.Sequential(kept)
    path, first = next((path, layer) for path, layer in features.named_modules() if isinstance(layer, nn.Conv2d))
    own = FirstConvolution(in_channels, first.out_channels, kernel_size=1, bias=first.bias is not None)
    for setting in ("kernel_size", "stride", "padding", "_reversed_padding_repeated_twice"):
        setattr(own, setting, getattr(first, setting))
    own.weight = nn.Parameter(torch.empty(first.out_channels, in_channels, *first.kernel_size))
    nn.init.kaiming_normal_(own.weight)
    features.set_submodule(path, own)
    use_norm(features, norm)
    return features


class Backbone:
    """The layers that images go through up to a last feature map, and what a network needs to know of them.

    Two branches may share one. It is no module itself: whoever owns it registers `layers` as its part `features`, and
    so weights are called `pa.features...` or `shared.features...` by their owner, not by those that use them.

    Attributes:
        num_channels: D of the last feature map.
        merges_at: number of layers up to the map where views meet.
        merge_channels: of that map.
        ends_with_relu: whether feature maps go through a ReLU before they are pooled, as a DenseNet's do.
        runs_when_idle: whether the layers run on zero images too (see `is_idle`).
        recomputes: whether training keeps the maps between the layers only, and computes what is within them a second
            time in the backward pass: less memory, a third more time.
    """

    def __init__(
        self,
        layers: nn.Sequential,
        *,
        num_channels: int,
        merges_at: int | None = None,
        merge_channels: int | None = None,
        ends_with_relu: bool,
        runs_when_idle: bool,
        recomputes: bool = False,
    ) -> None:
        self.recomputes = recomputes
        self.layers = layers
        self.num_channels = num_channels
        self.merges_at = len(layers) if merges_at is None else merges_at
        self.merge_channels = num_channels if merge_channels is None else merge_channels
        self.ends_with_relu = ends_with_relu
        self.runs_when_idle = runs_when_idle
        self._statistics: PooledStatistics | None = None

    def run(self, maps: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
        """Layers `start` to `end`, one after the other."""
        layers = self.layers[start:end]
        if not (self.recomputes and self.layers.training and torch.is_grad_enabled()):
            after: Tensor = layers(maps)
            return after
        # Single layers go together: an activation in place would change the map that was kept before it.
        for _, together in groupby(layers, key=lambda layer: next(layer.children(), None) is None or layer):
            # The reentrant kind needs inputs with gradients, and hides from DDP which parameters a pass has used.
            maps = checkpoint(nn.Sequential(*together), maps, use_reentrant=False)
        return maps

    def is_idle(self, images: Tensor) -> bool:
        """Whether nothing runs on these images, as there are none.

        No layer takes part then, and every parameter keeps grad None; with `runs_when_idle` gradients are zero.
        """
        return images.shape[0] == 0 and not self.runs_when_idle

    def pool_statistics(self) -> PooledStatistics | None:
        """Let batch statistics wait in what is returned, from now on; None for layers that have none to train."""
        if any(isinstance(layer, PooledBatchNorm2d) for layer in self.layers.modules()):
            self._statistics = PooledStatistics(self.layers)
        return self._statistics

    def count(self, images: Tensor) -> None:
        """Take in the batch statistics of the forward pass on these images, which was the layers' last."""
        if self._statistics is not None and self.layers.training and images.shape[0] > 0:
            self._statistics.add(images.shape[0])


def build_backbone(
    name: str,
    *,
    dropout: float,
    norm: Norm,
    merge_after_block: int = 4,
    in_channels: int = 1,
    image_size_px: int = 224,
    runs_when_idle: bool,
    recomputes: bool = False,
) -> Backbone:
    """A whole network of torchvision, or of timm as `timm:NAME`, without its classifier; see `build_features`.

    Raises:
        ValueError: unknown `name`, dropout or merging after block 3 for a network that is no DenseNet.
        UserError: timm is not there, or its network cannot be used.
    """
    features = build_features(name, dropout=dropout, norm=norm, in_channels=in_channels, image_size_px=image_size_px)
    num_channels = _out_channels(features, name=name, in_channels=in_channels)
    merges_at, merge_channels = len(features), num_channels
    if merge_after_block != 4:
        if name not in DENSENETS:
            raise ValueError(f"merge_after_block is {merge_after_block}, but {name} has no dense blocks; use 4")
        merges_at = list(features._modules).index(f"denseblock{merge_after_block}") + 1
        merge_channels = _norm_channels(features, f"transition{merge_after_block}.norm")
    return Backbone(
        features,
        num_channels=num_channels,
        merges_at=merges_at,
        merge_channels=merge_channels,
        ends_with_relu=name in DENSENETS,
        runs_when_idle=runs_when_idle,
        recomputes=recomputes and not _recomputes_by_itself(features),
    )


def first_layers(backbone: Backbone, count: int, *, num_channels: int, ends_with_relu: bool) -> Backbone:
    """A backbone of the first layers of another, for a network that has no use for those that come after."""
    return Backbone(
        # Slicing nn.Sequential would replace the layers' names by numbers, so the layers are taken by name.
        nn.Sequential(OrderedDict(list(backbone.layers.named_children())[:count])),
        num_channels=num_channels,
        ends_with_relu=ends_with_relu,
        runs_when_idle=backbone.runs_when_idle,
        recomputes=backbone.recomputes,
    )


def _recomputes_by_itself(features: nn.Sequential) -> bool:
    """Make a network of timm recompute its own blocks, if it is one and can; a network as a whole saves nothing."""
    return isinstance(features[0], timm_backbone.TimmFeatures) and features[0].recompute_blocks()


def _out_channels(features: nn.Sequential, *, name: str, in_channels: int) -> int:
    if name in DENSENETS:
        return _norm_channels(features, "norm5")
    if name.startswith(timm_backbone.PREFIX):
        return timm_backbone.num_channels(features)
    was_training = features.training
    with torch.no_grad():
        channels = features.eval()(torch.zeros(1, in_channels, 64, 64)).shape[1]
    features.train(was_training)
    return int(channels)


def _norm_channels(features: nn.Sequential, path: str) -> int:
    weight = features.get_submodule(path).weight  # (channels,), in every kind of normalisation
    assert isinstance(weight, Tensor)
    return weight.shape[0]
