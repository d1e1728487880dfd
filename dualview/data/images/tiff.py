"""TIFF: which of several pictures is meant, and those deeper than 8 bits, which Pillow reads wrongly or not at all.

Pillow shows 16-bit MinIsWhite inverted, scales 12 bits as 16, and refuses both in big-endian files; of 16-bit RGB in
planes it makes noise. Source: TIFF 6.0;
NewSubfileType (254), SubfileType (255), PhotometricInterpretation (262), Orientation (274), SampleFormat (339).
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from dualview.data.images.dicom_stored import LUMA
from dualview.data.images.picture import MOST_PIXELS, TOO_LARGE, Picture, Unclear, quiet_decoders, scaled

SUBFILE_TYPE, REDUCED = 255, 2
MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
NUM_COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3}
ASSOCIATED_ALPHA, ALPHA = 1, 2  # values of ExtraSamples (338)
UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773  # values of Compression (259)
MOST_PAGES = 16  # number of pages; a picture in ever smaller sizes has fewer
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}
"""Orientation -> what makes the picture upright."""

SMALLER_PICTURES = "has smaller pictures beside its own, taken for thumbnails"


def read_tiff(file: Path, *, intensity_max: float | None) -> tuple[int, tuple[str, ...], Picture | None]:
    """The number of the page that is the picture, remarks, and the picture; None where Pillow reads it rightly.

    Raises:
        Unclear: several pictures, or values of which nobody can know what is white.
        Exception: whatever tifffile raises at broken files.
    """
    with quiet_decoders(), tifffile.TiffFile(file) as tiff:
        # A broken file may have pages without end.
        first = itertools.islice(iter(tiff.pages), MOST_PAGES + 1)
        pages = [page for page in first if isinstance(page, tifffile.TiffPage)]
        if len(pages) > MOST_PAGES:
            raise Unclear(f"has more than {MOST_PAGES} frames; one is needed")
        page, remarks = _meant(pages)
        if page.imagewidth * page.imagelength * page.samplesperpixel > MOST_PIXELS:
            raise Unclear(TOO_LARGE)
        num_colours = NUM_COLOURS.get(page.photometric)
        is_understood = page.samplesperpixel - len(page.extrasamples) == num_colours
        has_usual_samples = page.samplesperpixel == 1 or page.photometric == RGB
        is_plain = has_usual_samples and page.bitspersample <= 8 and page.sampleformat == 1
        number = pages.index(page)
        if not is_understood or is_plain:
            return number, remarks, None
        samples = _samples(page, file=file, number=number)
        return number, remarks, _deep(page, samples=samples, intensity_max=intensity_max)


def _meant(pages: list[tifffile.TiffPage]) -> tuple[tifffile.TiffPage, tuple[str, ...]]:
    """The one page that is no thumbnail, and remarks.

    Raises:
        Unclear: there is none, or there are several.
    """
    if not pages:
        raise Unclear("has no picture")
    full = [
        page
        for page in pages
        if not page.subfiletype & 0b101 and page.tags.valueof(SUBFILE_TYPE) != REDUCED  # reduced, mask
    ]
    if not full:
        if len(pages) > 1 or pages[0].subifds:
            raise Unclear("has thumbnails only")
        full = pages
    largest = max(full, key=lambda page: page.imagewidth * page.imagelength)
    others = [page for page in full if page is not largest]
    if any(2 * page.imagewidth > largest.imagewidth or 2 * page.imagelength > largest.imagelength for page in others):
        raise Unclear(f"has {len(full)} frames; one is needed")
    return largest, (SMALLER_PICTURES,) if others else ()


def _samples(page: tifffile.TiffPage, *, file: Path, number: int) -> np.ndarray:
    """The stored values of a page, by tifffile; those of LZW by libtiff, which Pillow holds.

    The LZW decoder that tifffile uses writes beyond its memory where a file is damaged.

    Raises:
        Unclear: a compression that no decoder here reads safely.
    """
    if page.compression in (UNCOMPRESSED, DEFLATE, OLD_DEFLATE, PACKBITS):
        samples: np.ndarray = page.asarray(maxworkers=1)
        return samples
    if page.compression == LZW and page.samplesperpixel == 1 and page.bitspersample == 16 and page.sampleformat == 1:
        try:
            with Image.open(file) as image:
                image.seek(number)
                return np.asarray(image).astype(np.uint16)
        except UnidentifiedImageError:
            pass  # Big-endian MinIsWhite is not known to Pillow.
    compression = getattr(page.compression, "name", page.compression)
    raise Unclear(f"is a deep TIFF compressed by {compression}; save it without compression, or by deflate")


def _deep(page: tifffile.TiffPage, *, samples: np.ndarray, intensity_max: float | None) -> Picture:
    """The picture of a page of gray or RGB, of its stored values.

    Raises:
        Unclear: signed values below 0, floats outside [0, 1], or values beyond 16 bits.
    """
    num_colours = NUM_COLOURS[page.photometric]
    if page.samplesperpixel == 1:
        samples = samples[None]
    elif page.planarconfig != 2:
        samples = np.moveaxis(samples, -1, 0)
    stored, extra = samples[:num_colours], samples[num_colours:]
    if stored.ndim != 3:
        raise Unclear(f"is of shape {stored.shape[1:]}")
    alpha = extra[0] / np.iinfo(samples.dtype).max if len(extra) and page.extrasamples[0] == ALPHA else None
    low, high = stored.min(), stored.max()
    if stored.dtype.kind not in "uif" or not low >= 0 or not np.isfinite(high):
        raise Unclear(f"has values from {low} to {high}, and nothing says which of them is black")
    if stored.dtype.kind == "f":
        white = 1.0 if intensity_max is None else max(float(high), intensity_max)
        if high > 1 and intensity_max is None:
            raise Unclear(
                f"has floats from {low:g} to {high:g}; they must lie in [0, 1], or data.intensity_max must say "
                "which value is white"
            )
    elif page.bitspersample > 16:
        if high > 65535:
            raise Unclear(f"has values from {low} to {high}; at most 16 bits are understood")
        white = 65535.0
    else:
        white = 2.0 ** (page.bitspersample - (stored.dtype.kind == "i")) - 1
    picture = scaled(
        stored[0] if num_colours == 1 else np.tensordot(LUMA, stored.astype(np.float32), axes=1),
        white=white,
        intensity_max=intensity_max,
        is_inverted=page.photometric == MIN_IS_WHITE,
    )
    pixels = picture.pixels if alpha is None else picture.pixels * alpha.astype(np.float32)
    turn = UPRIGHT.get(int(page.tags.valueof(274) or 1), np.asarray)
    return picture._replace(pixels=np.ascontiguousarray(turn(pixels)))
