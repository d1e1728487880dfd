"""Reading one image file into the network's input, or saying why not."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from dualview.data.images import dicom
from dualview.data.images.picture import TOO_LARGE, Picture, Unclear, quiet_decoders, scaled
from dualview.data.images.png import significant_bits
from dualview.data.images.tiff import read_tiff
from dualview.errors import BadImage, one_line
from dualview.folders import begins_dicom, head_of, picture_format, why_unreadable

Aspect = Literal["center_crop", "pad", "stretch"]
# An image reader takes a path of the study table and returns (1, S, S) float32 in [-1, 1] or stored pixels
# (data/augment.py), or raises BadImage.
ImageReader = Callable[[str], Tensor]

MIN_SIDE_PX = 16
SCALE_OF_MODE = {"L": 255.0, "I;16": 65535.0, "I": 65535.0}  # largest value of the bit depth
KINDS = ("uint8", "uint16", "float16", "bfloat16", "float32", "float64")  # types of pixels in memory
SCALE_OF_DTYPE = {torch.uint8: 255.0, torch.uint16: 65535.0}
FURTHER_PICTURES = "is a JPEG with further pictures after its first, which is read"


@runtime_checkable
class FileReader(Protocol):
    """A reader of images that are files, and can be stored."""

    def __call__(self, path: str) -> Tensor:
        """(1, S, S) float32 in [-1, 1]; raises BadImage."""

    def unit(self, path: str) -> Tensor:
        """(1, S, S) float32 in [0, 1]; raises BadImage."""

    def file(self, path: str) -> Path:
        """Where the image is."""

    def picture(self, path: str) -> Picture:
        """The whole image as it is decoded; raises BadImage."""

    def unit_of(self, path: str, picture: Picture) -> Tensor:
        """The `picture` of this path as `unit` gives it; raises BadImage."""


class FileImages:
    """Reader of DICOM, and of PNG, JPEG, TIFF and whatever else Pillow decodes, by content and not by file name.

    Intensities are scaled by what the file can hold: 8-bit by 255, 16-bit by 65535 (as torchxrayvision;
    the authors divide by 65536), a PNG with sBIT by its significant bits, TIFF by its bits (tiff.py), DICOM by its
    window or bits (dicom.py), then from [0, 1] to [-1, 1]. So files of one picture agree, whatever their kind. Colour
    becomes gray by ITU-R 601 luma. The picture is made square and resized with antialiasing.

    Args:
        root: folder that paths are relative to.
        image_size_px: S.
        aspect: `center_crop` cuts to the central square (the authors' `ImageOps.fit`), `pad` adds black
            margins, `stretch` changes the aspect.
        intensity_max: the stored value that is white (`data.intensity_max`), in gray files that can hold more and
            whose own window or VOI LUT does not say what is.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        image_size_px: int,
        aspect: Aspect = "center_crop",
        intensity_max: float | None = None,
    ) -> None:
        self.root = root or Path()
        self.intensity_max = intensity_max
        self.image_size_px = image_size_px
        self.aspect = aspect

    def __call__(self, path: str) -> Tensor:
        """The image at `path`, relative to the root: (1, S, S) float32 in [-1, 1].

        Raises:
            BadImage: missing, truncated, no image, too large to be safe, smaller than 16 px, several
                frames, or the same value everywhere (a placeholder for a missing view).
        """
        return self.unit(path) * 2 - 1

    def file(self, path: str) -> Path:
        """Where the image at `path` is."""
        return self.root / path

    def unit(self, path: str) -> Tensor:
        """The image at `path` as `__call__` gives it, but in [0, 1]."""
        return self.unit_of(path, self.picture(path))

    def picture(self, path: str) -> Picture:
        """The image at `path` as it is decoded, of its own size."""
        return read_picture(self.file(path), name=path, intensity_max=self.intensity_max)

    def unit_of(self, path: str, picture: Picture) -> Tensor:
        """The `picture` of this path as `unit` gives it."""
        pixels = torch.from_numpy(picture.pixels)
        return square(pixels, name=path, image_size_px=self.image_size_px, aspect=self.aspect)


def square(pixels: Tensor, *, name: str, image_size_px: int, aspect: Aspect) -> Tensor:
    """Gray pixels (height, width) float32 in [0, 1], made square and resized: (1, S, S) float32 in [0, 1].

    Raises:
        BadImage: smaller than 16 px, or the same value everywhere; `name` is what it calls the image.
    """
    pixels = pixels[None]
    height, width = pixels.shape[1:]
    if min(height, width) < MIN_SIDE_PX:
        raise BadImage(name, reason=f"is {width}x{height} px; both sides need at least {MIN_SIDE_PX}")
    if pixels.min() == pixels.max():
        raise BadImage(name, reason="has one value everywhere; leave placeholders for missing views out of the table")
    if aspect == "center_crop":
        pixels = functional.center_crop(pixels, [min(height, width)] * 2)
    elif aspect == "pad":
        across, down = max(height - width, 0), max(width - height, 0)
        margins = [across // 2, down // 2, across - across // 2, down - down // 2]  # left, top, right, bottom
        pixels = functional.pad(pixels, margins)
    resized: Tensor = functional.resize(pixels, [image_size_px] * 2, antialias=True)
    return resized.clamp(0, 1)


def to_gray(array: np.ndarray | Tensor, *, intensity_max: float | None = None) -> Tensor:
    """Pixels in memory, of any shape, scaled as those of a file: float32 in [0, 1].

    uint8 is divided by 255 and uint16 by 65535; floats must lie in [0, 1] already. What a value of another
    kind means nobody can know: int16 may be a DICOM's stored values, or those of a 12-bit detector.

    Args:
        intensity_max: the value that is white instead, in kinds that can hold more (`data.intensity_max`).

    Raises:
        ValueError: another kind of number, or floats outside [0, 1] or not finite.
    """
    native = array.dtype if isinstance(array, Tensor) else array.dtype.newbyteorder("=")
    if (kind := str(native).removeprefix("torch.")) not in KINDS:
        raise ValueError(f"pixels are {kind}; give uint8, uint16, or floats in [0, 1] (0 black, 1 white)")
    if isinstance(array, np.ndarray):
        array = torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    pixels = array.detach().cpu()
    if pixels.dtype in SCALE_OF_DTYPE:
        white = SCALE_OF_DTYPE[pixels.dtype]
        white = white if intensity_max is None else min(white, intensity_max)
        return (pixels.float() / white).clamp(max=1)
    if pixels.numel() and not bool((pixels >= 0).all() and (pixels <= 1).all()):  # NaN fails this, too.
        raise ValueError(
            f"pixels are floats from {pixels.min():g} to {pixels.max():g}; floats must lie in [0, 1], 0 black and 1 "
            "white. Divide by the largest value that the detector can give, or hand in uint8 or uint16"
        )
    return pixels.float()


def decode(file: Path, *, name: str) -> np.ndarray:
    """Decoded gray pixels (height, width) float32 in [0, 1], upright; raises as `read_picture` does."""
    return read_picture(file, name=name).pixels


def read_picture(file: Path, *, name: str, intensity_max: float | None = None) -> Picture:
    """The decoded picture of a file, upright.

    Raises:
        BadImage: see `FileImages`; `name` is what it calls the file.
    """
    # A FIFO would be waited for, so what a file is comes first.
    head, reason = (b"", unreadable) if (unreadable := why_unreadable(file)) else head_of(file)
    if reason:
        raise BadImage(name, reason=reason)
    if begins_dicom(head):
        return dicom.decode(file, name=name, intensity_max=intensity_max)
    is_tiff = picture_format(head) == "TIFF"
    try:
        page, remarks, deep = read_tiff(file, intensity_max=intensity_max) if is_tiff else (None, (), None)
        picture = _gray(file, name=name, page=page, intensity_max=intensity_max) if deep is None else deep
        return picture._replace(remarks=picture.remarks + remarks)
    except BadImage:
        raise
    except Unclear as error:
        raise BadImage(name, reason=str(error)) from None
    except UnidentifiedImageError:
        raise BadImage(name, reason="is not an image in a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(name, reason=TOO_LARGE) from None
    except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, struct.error and more.
        raise BadImage(name, reason=f"cannot be decoded ({one_line(error)})") from None


def _gray(file: Path, *, name: str, page: int | None, intensity_max: float | None) -> Picture:
    """The picture that Pillow decodes.

    Args:
        page: of a TIFF, the number of the picture that is meant.
    """
    remarks: tuple[str, ...] = ()
    with quiet_decoders():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            num_frames = getattr(image, "n_frames", 1)
            if page is not None:
                image.seek(page)
            elif image.format == "MPO":  # A JPEG with thumbnails or further pictures: every viewer shows the first.
                remarks = (FURTHER_PICTURES,)
            elif num_frames > 1:
                raise BadImage(name, reason=f"has {num_frames} frames; one is needed")
            image.load()
            gray = _one_channel(ImageOps.exif_transpose(image), name=name)
            stored, white = np.asarray(gray), SCALE_OF_MODE[gray.mode]
            bits = significant_bits(file, stored=stored) if image.format == "PNG" else None
    white = white if bits is None else 2.0**bits - 1
    return scaled(stored, white=white, intensity_max=intensity_max, remarks=remarks)


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
        image = image.convert("RGBA")
        # Transparent pixels show the black below them.
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image).convert("L")
    if image.mode in ("1", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB"):
        return image.convert("RGB").convert("L")
    raise BadImage(name, reason=f"has pixels of a kind that is not understood (Pillow mode {image.mode})")
