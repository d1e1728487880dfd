"""Training-time augmentation of one image."""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from dualview.config import AugmentConfig


def augment(image: Tensor, *, config: AugmentConfig, generator: np.random.Generator) -> Tensor:
    """Rotate, shift and add noise to an image (1, S, S) in [-1, 1]; the result stays in [-1, 1].

    What comes into the picture from outside is black. No flip: the heart is on the left. Source of
    rotation and noise: the authors' `dataset.py`.
    """
    angle = generator.uniform(-config.rotation_degrees, config.rotation_degrees)
    reach = config.translation_fraction * image.shape[-1]
    shift = generator.uniform(-reach, reach, size=2)
    if angle or shift.any():
        # On [0, 2], where the zeros that come in are black; torchvision's own `fill` leaves a bright seam.
        moved: Tensor = functional.affine(
            image + 1,
            angle=angle,
            translate=[float(offset) for offset in shift],
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        image = moved - 1
    if config.noise_std:
        noise = generator.standard_normal(image.shape, dtype=np.float32)
        image = image + config.noise_std * torch.from_numpy(noise)
    return image.clamp(-1, 1)
