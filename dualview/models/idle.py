"""What stands for layers that cannot run on no rows, where DDP needs every parameter in the graph of every rank."""

import torch
from torch import Tensor, nn


def nothing_of(module: nn.Module) -> Tensor:
    """0, made of every parameter of a module: each has a gradient of zero."""
    return 0 * torch.stack([parameter.sum() for parameter in module.parameters()]).sum()
