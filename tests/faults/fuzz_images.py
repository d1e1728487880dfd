"""Feed the image readers mutated PNG, JPEG, TIFF and DICOM bytes; each must give an image or a clean refusal.

    python -m tests.faults.fuzz_images FOLDER --cases 5000 --seed 0

A mutant is a small whole file with bytes flipped, overwritten by extreme numbers, cut, repeated or left out. What
ends the program is a fault: another exception than BadImage, a crash of a decoder, a mutant that takes more than
10 seconds, or one that needs more than 2 GiB beyond what the program has. `FOLDER/mutant` is then the culprit.
Prints one JSON object.
"""

import argparse
import json
import random
import re
import resource
import signal
import sys
import tempfile
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import tifffile
import torch
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from dualview.data.images.files import FileImages
from dualview.errors import BadImage

sys.path.insert(0, str(Path(__file__).parents[2]))  # It runs as a program of its own.
from tests.support.pictures import lookup_table, palette, write_dicom

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
MORE_MEMORY_BYTES = 2 * 2**30
SECONDS_EACH = 10
EXTREMES = [bytes.fromhex(text) for text in ("00", "ff", "ffff", "7fffffff", "ffffff7f", "ffffffff", "00000000")]


def whole_files() -> dict[str, bytes]:
    """Small valid files of every kind."""
    ramp = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint16) * 800
    files = {}
    for name, picture, kind in (
        ("png8", Image.fromarray((ramp >> 8).astype(np.uint8)), "PNG"),
        ("png16", Image.fromarray(ramp), "PNG"),
        ("jpeg", Image.fromarray((ramp >> 8).astype(np.uint8)), "JPEG"),
        ("jpeg_colour", Image.fromarray(np.stack([(ramp >> 8).astype(np.uint8)] * 3, axis=2)), "JPEG"),
    ):
        buffer = BytesIO()
        picture.save(buffer, format=kind)
        files[name] = buffer.getvalue()
    for name in ("MR_small", "MR_small_jpeg_ls_lossless", "MR_small_bigendian", "SC_rgb_jpeg", "JPGExtended"):
        files[name] = (PYDICOM_FILES / f"{name}.dcm").read_bytes()
    for name, options in (
        ("tiff12", {"bitspersample": 12}),
        ("tiff_white", {"photometric": "miniswhite", "byteorder": ">"}),
        ("tiff_lzw", {"compression": "lzw"}),
    ):
        buffer = BytesIO()
        tifffile.imwrite(buffer, ramp >> 4, **options)
        files[name] = buffer.getvalue()
    table, entries = [lookup_table(-100, np.arange(500), bits=16)], np.arange(300)
    window = {"WindowCenter": [0, 200], "WindowWidth": [0, 300], "PixelPaddingValue": 3}
    colours = palette(entries, entries[::-1], entries, bits=16)
    for name, tags in (
        ("voi_lut", {"VOILUTSequence": table, **window}),
        ("modality_lut", {"ModalityLUTSequence": table, **window}),
        ("palette", {"photometric": "PALETTE COLOR", **colours}),
    ):
        with tempfile.TemporaryDirectory() as folder:
            files[name] = write_dicom(Path(folder) / "whole", ramp >> 7, **tags).read_bytes()
    for name, syntax in (("rle", RLELossless), ("jpeg2000", JPEG2000Lossless)):
        data = pydicom.dcmread(PYDICOM_FILES / "MR_small.dcm")
        data.compress(syntax)
        buffer = BytesIO()
        data.save_as(buffer)
        files[name] = buffer.getvalue()
    return files


def mutated(whole: bytes, generator: random.Random) -> bytes:
    """`whole` with one to four faults; the beginning, where the headers are, is hit more often."""
    mutant = bytearray(whole)
    for _ in range(generator.randint(1, 4)):
        if not mutant:
            break
        at = int(len(mutant) * generator.random() ** generator.choice((1, 1, 3)))
        kind = generator.randrange(6)
        if kind == 0:
            mutant[at] ^= 1 << generator.randrange(8)
        elif kind == 1:
            extreme = generator.choice(EXTREMES)
            mutant[at : at + len(extreme)] = extreme
        elif kind == 2:
            mutant[at : at + generator.randint(1, 16)] = generator.randbytes(generator.randint(1, 16))
        elif kind == 3:
            del mutant[at : at + generator.randint(1, 64)]
        elif kind == 4:
            mutant[at:at] = mutant[at : at + generator.randint(1, 64)]
        elif generator.random() < 0.3:
            del mutant[at:]
    return bytes(mutant)


def out_of_time(_number: int, _frame: object) -> None:
    raise TimeoutError(f"a mutant took more than {SECONDS_EACH} s")


def memory_bytes(field: str) -> int:
    """A figure of this process from /proc, such as VmSize."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def main(folder: Path, *, cases: int, seed: int) -> dict[str, int]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pydicom.config.logger.setLevel("CRITICAL")
    generator = random.Random(seed)  # noqa: S311
    files = whole_files()
    read = FileImages(folder, image_size_px=32)
    for whole in files.values():
        (folder / "mutant").write_bytes(whole)
        read("mutant")  # what is whole is read
    before = memory_bytes("VmRSS")
    limit = memory_bytes("VmSize") + MORE_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, out_of_time)
    counts = {"images": 0, "refusals": 0}
    for _ in range(cases):
        (folder / "mutant").write_bytes(mutated(files[generator.choice(list(files))], generator))
        signal.alarm(SECONDS_EACH)
        refusal = None
        try:
            image = read("mutant")
        except BadImage as error:
            refusal = error.reason
        finally:
            signal.alarm(0)
        if refusal is None:
            assert image.shape == (1, 32, 32) and image.isfinite().all() and image.abs().max() <= 1
        else:
            assert refusal and "took more than" not in refusal, refusal
        counts["images" if refusal is None else "refusals"] += 1
    return {**counts, "more_mib": (memory_bytes("VmHWM") - before) // 2**20}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.folder, cases=arguments.cases, seed=arguments.seed)))
    sys.exit(0)
