"""Reading one image file into the network's input, or saying why not."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

MIN_SIDE_PX = 16
SCALE_OF_MODE = {"L": 255.0, "I;16": 65535.0, "I": 65535.0}  # largest value of the bit depth


class BadImage(Exception):
    """An image that cannot be used; `path` is as in the study table, `reason` fits into a sentence."""

    def __init__(self, path: str, *, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class FileImages:
    """Reader of PNG, JPEG, TIFF and whatever else Pillow decodes, by content and not by file name.

    Intensities are scaled by bit depth alone: 8-bit by 255, 16-bit by 65535 (as torchxrayvision; the
    authors divide by 65536), then from [0, 1] to [-1, 1]. So an 8-bit and a 16-bit file of one picture
    agree. Colour becomes gray by ITU-R 601 luma. The picture is cropped to its central square and
    resized with antialiasing (the authors' `ImageOps.fit`).
    """

    def __init__(self, root: Path | None, *, image_size_px: int) -> None:
        self.root = root or Path()
        self.image_size_px = image_size_px

    def __call__(self, path: str) -> Tensor:
        """The image at `path`, relative to the root: (1, S, S) float32 in [-1, 1].

        Raises:
            BadImage: missing, truncated, no image, too large to be safe, smaller than 16 px, several
                frames, or the same value everywhere (a placeholder for a missing view).
        """
        pixels = torch.from_numpy(_gray(self.root / path, name=path))[None]  # (1, height, width) in [0, 1]
        height, width = pixels.shape[1:]
        if min(height, width) < MIN_SIDE_PX:
            raise BadImage(path, reason=f"is {width}x{height} px; both sides need at least {MIN_SIDE_PX}")
        if pixels.min() == pixels.max():
            raise BadImage(
                path, reason="has one value everywhere; leave placeholders for missing views out of the table"
            )
        square = functional.center_crop(pixels, [min(height, width)] * 2)
        resized = functional.resize(square, [self.image_size_px] * 2, antialias=True)
        result: Tensor = resized.clamp(0, 1) * 2 - 1
        return result


def _gray(file: Path, *, name: str) -> np.ndarray:
    """Decoded gray pixels (height, width) float32 in [0, 1], upright."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                num_frames = getattr(image, "n_frames", 1)
                if num_frames > 1:
                    raise BadImage(name, reason=f"has {num_frames} frames; one is needed")
                image.load()
                upright = ImageOps.exif_transpose(image)
                gray = _one_channel(upright, name=name)
                return np.asarray(gray, dtype=np.float32) / SCALE_OF_MODE[gray.mode]
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(name, reason="no such file") from None
    except UnidentifiedImageError:
        raise BadImage(name, reason="is not an image in a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(name, reason="has far too many pixels for an X-ray and is refused as unsafe") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise BadImage(name, reason=f"cannot be decoded ({error or type(error).__name__})") from None


def _one_channel(image: Image.Image, *, name: str) -> Image.Image:
    """The image in mode L (8 bit), I;16 or I (16 bit)."""
    if image.mode in ("L", "I;16"):
        return image
    if image.mode.startswith("I;16"):
        return image.convert("I")
    if image.mode == "I":
        low, high = image.getextrema()
        assert isinstance(low, int | float) and isinstance(high, int | float)
        if low < 0 or high > 65535:
            raise BadImage(name, reason=f"has values from {low} to {high}; 8 or 16 bits are understood")
        return image
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")  # transparent pixels come out black
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image).convert("L")
    if image.mode in ("1", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"):
        return image.convert("RGB").convert("L")
    raise BadImage(name, reason=f"has pixels of a kind that is not understood (Pillow mode {image.mode})")
