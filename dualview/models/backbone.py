"""torchvision's networks as feature maps of one-channel images; DenseNets divided where the views meet."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from dualview.models.norm import Norm, use_norm

# 38 thousand parameters: for tests and demonstrations, not a network anyone has published.
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


def build_features(name: str, *, dropout: float, norm: Norm = "batch", in_channels: int = 1) -> nn.Sequential:
    """The layers of a torchvision network up to its last feature map (N, D, h, w), with random weights.

    For a DenseNet: same modules, names and values as torchvision's `DenseNet.features`, so that its weights fit, with
    three changes: the input channels; the normalisation asked for (norm.py); and
    the average pooling of each transition before its 1x1 convolution instead of after. Both are
    linear and act on different axes, so the result is the same and the convolution does a quarter of
    the work. Other networks are as torchvision builds them, but for input channels and normalisation;
    their layers keep the names of torchvision's weights.

    Raises:
        ValueError: unknown `name`, or dropout for a network that is no DenseNet.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone '{name}'; there are {', '.join(BACKBONES)}")
    if name not in DENSENETS:
        if dropout:
            raise ValueError(f"dropout is {dropout:g}, but only DenseNets have it after each layer; use 0 with {name}")
        return _other_features(name, norm=norm, in_channels=in_channels)
    features: nn.Sequential = DENSENETS[name](drop_rate=dropout).features
    num_channels = features.get_submodule("norm0").num_features
    assert isinstance(num_channels, int)
    features.conv0 = nn.Conv2d(in_channels, num_channels, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(features.conv0.weight)  # as torchvision initialises its own
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
        if name.startswith("swin"):  # channels last until here
            kept |= {"norm": layers["norm"], "permute": layers["permute"]}
    features = nn.Sequential(kept)
    path, first = next((path, layer) for path, layer in features.named_modules() if isinstance(layer, nn.Conv2d))
    own = nn.Conv2d(in_channels, first.out_channels, kernel_size=1, bias=first.bias is not None)
    for setting in ("kernel_size", "stride", "padding", "_reversed_padding_repeated_twice"):
        setattr(own, setting, getattr(first, setting))
    own.weight = nn.Parameter(torch.empty(first.out_channels, in_channels, *first.kernel_size))
    nn.init.kaiming_normal_(own.weight)
    features.set_submodule(path, own)
    use_norm(features, norm)
    return features


def ends_with_relu(name: str) -> bool:
    """Whether the feature map goes through a ReLU before it is pooled, as a DenseNet's does."""
    return name in DENSENETS


def out_channels(features: nn.Sequential, *, backbone: str, in_channels: int = 1) -> int:
    """Channels D of the last feature map."""
    if backbone in DENSENETS:
        return merge_channels(features, merge_after_block=4)
    was_training = features.training
    with torch.no_grad():
        channels = features.eval()(torch.zeros(1, in_channels, 64, 64)).shape[1]
    features.train(was_training)
    return int(channels)


def first_layers(features: nn.Sequential, count: int) -> nn.Sequential:
    """The first layers under their own names, which a slice would replace by numbers."""
    return nn.Sequential(OrderedDict(list(features.named_children())[:count]))


def split_point(features: nn.Sequential, *, backbone: str, merge_after_block: int) -> int:
    """Number of layers up to the merge point: after dense block 3, or at the very end for 4.

    Raises:
        ValueError: block 3 of a network without dense blocks.
    """
    names = [name for name, _ in features.named_children()]
    if merge_after_block == 4:
        return len(names)
    if backbone not in DENSENETS:
        raise ValueError(f"merge_after_block is {merge_after_block}, but {backbone} has no dense blocks; use 4")
    return names.index(f"denseblock{merge_after_block}") + 1


def merge_channels(features: nn.Sequential, *, merge_after_block: int) -> int:
    """Channels of the feature map at the merge point."""
    following = "norm5" if merge_after_block == 4 else f"transition{merge_after_block}.norm"
    weight = features.get_submodule(following).weight  # one per channel, in every kind of normalisation
    assert isinstance(weight, Tensor)
    return weight.shape[0]
