"""A look at some images of a source: what is odd about them, and whether they are too dark to be true.

12-bit values in files that can hold 16 bits show nothing but black, and nothing in the file says so: white is a
sixteenth of what it should be, and a network trains on it without an error.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dualview.data.images.picture import Picture
from dualview.data.remarks import Remark, count_remarks
from dualview.errors import BadImage
from dualview.views import View

NUM_IMAGES = 32  # number of images that are looked at
BRIGHTEST = 99  # percentile that stands for the brightest pixels; a burnt-in letter or a hot pixel is above it
DARK = 1 / 8  # fraction of white below which the brightest pixels of no usable X-ray stay
CANNOT_BE_READ = "cannot be read as an image"
ENOUGH = 8  # number of images of one view from which on they are judged by themselves
STRIDE = 4  # every fourth row and column of a large picture is looked at
LARGE_PX = 512


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was seen of some images of one source that can be read."""

    views: np.ndarray  # (n,) View of each
    brightest: np.ndarray  # (n,) largest stored values of each image as a fraction of the range; see `_brightest`
    white: np.ndarray  # (n,) stored value that is white; NaN where a window or table of the file decides
    largest: np.ndarray  # (n,) largest stored value; NaN likewise
    remarks: tuple[Remark, ...]  # among them images that cannot be read

    @property
    def is_dark(self) -> np.ndarray:
        """(n,) bool: the brightest pixels stay below an eighth of the range."""
        return self.brightest < DARK

    @property
    def is_too_dark(self) -> bool:
        """Whether most images are dark, or most of one view, as the views may come from two systems."""
        of_view = [self.is_dark[self.views == view] for view in View]
        groups = [self.is_dark, *(dark for dark in of_view if len(dark) >= ENOUGH)]
        return any(dark.sum() * 2 > len(dark) for dark in groups)


def spread_paths(images: tuple[np.ndarray, np.ndarray], *, num_images: int = NUM_IMAGES) -> list[tuple[View, str]]:
    """Views and paths of at most so many images spread over a table, half of each view where there are as many."""
    firsts = [[paths[0] for paths in images[view] if paths] for view in View]
    half = num_images // 2
    left = [max(half, num_images - len(firsts[View.LATERAL])), max(half, num_images - len(firsts[View.PA]))]
    chosen: list[tuple[View, str]] = []
    for view, paths, most in zip(View, firsts, left, strict=True):
        at = np.linspace(0, max(len(paths) - 1, 0), min(most, len(paths))).astype(int)
        chosen += [(view, paths[position]) for position in at]
    return chosen


def look_at(images: list[tuple[View, str]], *, read: Callable[[str], Picture]) -> Sample:
    """Decode these images, given by view and path."""
    seen: list[tuple[float, float, float, float]] = []
    remarks: list[tuple[str, str]] = []
    for view, path in images:
        try:
            picture = read(path)
        except BadImage:
            remarks.append((CANNOT_BE_READ, path))
            continue
        remarks += [(kind, path) for kind in picture.remarks]
        white, largest = (np.nan if value is None else value for value in (picture.white, picture.largest))
        seen.append((view, _brightest(picture), white, largest))
    views, brightest, whites, largests = np.array(seen, float).reshape(-1, 4).T
    return Sample(views=views, brightest=brightest, white=whites, largest=largests, remarks=count_remarks(remarks))


def _brightest(picture: Picture) -> float:
    """The brightest pixels, as a fraction of the range.

    Where 0 is white, it is the darkest ones, as these have the largest stored values: 12 bits in 16 are then almost
    white altogether. Of signed values, and where a window or table decides, it is what the largest are above the
    smallest: there 0 is gray, and here a window too wide may lie on either side.
    """
    step = STRIDE if min(picture.pixels.shape) >= LARGE_PX else 1
    pixels = picture.pixels[::step, ::step]
    if picture.is_padding is not None:
        pixels = pixels[~picture.is_padding[::step, ::step]]
    if not pixels.size:
        return 0.0
    if picture.is_inverted:
        pixels = 1 - pixels
    smallest, largest = np.percentile(pixels, (100 - BRIGHTEST, BRIGHTEST))
    return float(largest - smallest if picture.is_signed or picture.white is None else largest)


def of_sample(remarks: tuple[Remark, ...]) -> list[Remark]:
    """The remarks, saying that not every image has been looked at."""
    return [replace(remark, kind=f"{remark.kind} (in a sample of images)") for remark in remarks]


def darkness(sample: Sample, *, source: str, key: str) -> str | None:
    """What to say of images that are too dark to be true; None where they are not.

    Args:
        source: name of the source.
        key: what the user sets to say which value is white.
    """
    if not sample.is_too_dark:
        return None
    dark = sample.is_dark
    laterals = dark[sample.views == View.LATERAL]
    says = (
        f"{source}: too dark to be true. In {dark.sum()} of {len(dark)} images looked at ({laterals.sum()} of "
        f"{len(laterals)} laterals), the brightest pixels (99th percentile) "
        f"stay below an eighth of the range: {np.median(sample.brightest[dark]):.2g} of it in the median"
    )
    with_white = dark & np.isfinite(sample.white)
    if not with_white.any():
        return (
            f"{says}. What is white is said by windows or tables in the files; look at them with dualview data "
            f"--contact-sheet. If they are right, say so by setting {key}"
        )
    largest, white = sample.largest[with_white].max(), np.median(sample.white[with_white])
    num_bits = round(largest).bit_length()
    if (sample.largest[~dark] >= 2**num_bits).any():
        return (
            f"{says}. Their largest value is {largest:.0f}, and others have larger ones, which {key} would make white: "
            "bring the files to one depth"
        )
    return (
        f"{says}. Their largest value is {largest:.0f}, and {white:.0f} is white because the files can hold it. Set "
        f"{key} to the value that is white: {2**num_bits - 1} if {num_bits} bits are used"
    )
