"""TIFF and PNG of gray pictures deeper than 8 bits, and files of several pictures."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from dualview.data.images.files import FURTHER_PICTURES, read_picture
from dualview.data.images.picture import ABOVE_INTENSITY_MAX
from dualview.data.images.tiff import SMALLER_PICTURES
from dualview.errors import BadImage
from tests.support.pictures import of_page, write_tiff

RAMP = np.arange(4096).reshape(64, 64).astype(np.uint16)
MIN_IS_WHITE = {"t262": 0}


@pytest.fixture
def read(tmp_path):
    def read(page, *more, big_endian=False, intensity_max=None):
        path = write_tiff(tmp_path / "a.tif", [page, *more], big_endian=big_endian)
        return read_picture(path, name="a.tif", intensity_max=intensity_max)

    return read


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("tags", [{}, MIN_IS_WHITE])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_gray_of_any_depth_order_and_polarity_is_one_picture(read, big_endian, tags, bits):
    stored = (RAMP.astype(int) * (2**bits - 1) // 4095).astype(np.uint16)
    page = of_page(stored, big_endian=big_endian, bits=None if bits == 16 else bits, **tags)
    picture = read(page, big_endian=big_endian)
    expected = stored / (2**bits - 1)
    np.testing.assert_allclose(picture.pixels, 1 - expected if tags else expected, atol=1e-6)


@pytest.mark.parametrize("tags", [{}, MIN_IS_WHITE])
def test_8_bits_of_either_polarity(read, tags):
    stored = (RAMP // 16).astype(np.uint8)
    np.testing.assert_allclose(
        read(of_page(stored, **tags)).pixels, 1 - stored / 255 if tags else stored / 255, atol=1e-6
    )


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_compressed_files_of_another_writer(tmp_path, compression, photometric):
    stored = (RAMP // 16).astype(np.uint8) if compression == "jpeg" else RAMP * 16
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, compression=compression, byteorder=">")
    expected = stored / np.iinfo(stored.dtype).max
    if (compression, photometric) == ("lzw", "miniswhite"):
        with pytest.raises(BadImage, match="deep TIFF compressed by LZW; save it without"):
            read_picture(tmp_path / "a.tif", name="a")
        return
    pixels = read_picture(tmp_path / "a.tif", name="a").pixels
    expected = 1 - expected if photometric == "miniswhite" else expected
    np.testing.assert_allclose(pixels, expected, atol=0.02 if compression == "jpeg" else 1e-6)


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_orientation_is_applied(read, turn):
    turned = {3: np.rot90(RAMP, 2), 6: np.rot90(RAMP), 8: np.rot90(RAMP, -1)}[turn]
    np.testing.assert_allclose(read(of_page(turned * 16, t274=turn)).pixels, RAMP * 16 / 65535, atol=1e-6)


def test_intensity_max_is_white(read):
    np.testing.assert_allclose(read(of_page(RAMP), intensity_max=4095).pixels, RAMP / 4095, atol=1e-6)
    inverted = read(of_page(RAMP, **MIN_IS_WHITE), intensity_max=4095)
    np.testing.assert_allclose(inverted.pixels, 1 - RAMP / 4095, atol=1e-6)
    assert read(of_page(RAMP), intensity_max=4000).remarks == (ABOVE_INTENSITY_MAX,)
    small = read(of_page((RAMP // 16).astype(np.uint8)), intensity_max=4095)
    np.testing.assert_allclose(small.pixels, RAMP // 16 / 255, atol=1e-6)


def test_signed_and_float_values_are_read_where_their_meaning_is_sure(read):
    signed = (RAMP * 8).astype(np.int16)
    np.testing.assert_allclose(read(of_page(signed, t339=2)).pixels, RAMP * 8 / 32767, atol=1e-6)
    unit = (RAMP / 4095).astype(np.float32)
    np.testing.assert_allclose(read(of_page(unit, t339=3)).pixels, unit, atol=1e-6)
    large = RAMP.astype(np.float32)
    np.testing.assert_allclose(read(of_page(large, t339=3), intensity_max=4095).pixels, unit, atol=1e-6)
    for page, reason in (
        (of_page(signed - 9, t339=2), "values from -9"),
        (of_page(large, t339=3), "floats from 0 to 4095"),
        (of_page(unit * np.nan, t339=3), "values from nan"),
        (of_page(RAMP.astype(np.uint32) * 99, t339=1), "at most 16 bits"),
    ):
        with pytest.raises(BadImage, match=reason):
            read(page)


def test_extra_samples_are_no_frames_and_transparency_is_black(tmp_path):
    deep = RAMP * 16
    alpha = np.where(np.arange(64) < 32, 65535, 0).astype(np.uint16) * np.ones((64, 1), np.uint16)
    both = np.stack([deep, alpha], axis=2)
    for kind, expected in (("unspecified", deep / 65535), ("unassalpha", deep / 65535 * (alpha > 0))):
        for planar in ("contig", "separate"):
            pixels = both if planar == "contig" else np.moveaxis(both, 2, 0)
            tifffile.imwrite(
                tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig=planar, extrasamples=[kind]
            )
            np.testing.assert_allclose(read_picture(tmp_path / "a.tif", name="a").pixels, expected, atol=1e-6)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stored", "white"), [(RAMP * 16, 65535), (RAMP, 4095), ((RAMP / 4095).astype(np.float32), None)]
)
def test_deep_colour_becomes_gray_however_its_samples_lie(tmp_path, planar, order, stored, white):
    colours = np.stack([stored, stored[::-1], stored.T], axis=2)
    pixels = colours if planar == "contig" else np.moveaxis(colours, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, byteorder=order)
    expected = colours @ [0.299, 0.587, 0.114] / (white or 1)
    picture = read_picture(tmp_path / "a.tif", name="a", intensity_max=white)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)


# -- files of several pictures -----------------------------------------------------------------------


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("mark", [{"t254": 1}, {"t255": 2}, {"t254": 4}])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_thumbnail_in_a_tiff_is_not_the_picture(read, depth, mark, is_first):
    picture = RAMP * 16 if depth == np.uint16 else (RAMP // 16).astype(np.uint8)
    thumbnail = of_page(np.ascontiguousarray(255 - picture[::2, ::2]), **mark)
    pages = [of_page(picture), thumbnail]
    whole = read(*(pages[::-1] if is_first else pages))
    np.testing.assert_allclose(whole.pixels, picture / np.iinfo(depth).max, atol=1e-6)
    assert whole.remarks == ()


def test_a_smaller_picture_without_a_mark_is_told_and_two_of_a_size_are_refused(read):
    picture = RAMP * 16
    small = of_page(np.ascontiguousarray(picture[::2, ::2]))
    whole = read(of_page(picture), small)
    np.testing.assert_allclose(whole.pixels, picture / 65535, atol=1e-6)
    assert whole.remarks == (SMALLER_PICTURES,)
    for other in (picture[::-1], picture[:, :40]):
        with pytest.raises(BadImage, match="has 2 frames"):
            read(of_page(picture), of_page(np.ascontiguousarray(other)))
    with pytest.raises(BadImage, match="thumbnails only"):
        read(of_page(picture, t254=1), of_page(picture, t254=1))


def test_a_jpeg_with_further_pictures_shows_its_first(tmp_path):
    picture = Image.fromarray((RAMP // 16).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[picture.resize((32, 32))], quality=100)
    picture.save(tmp_path / "b.jpg", quality=100)
    several, one = (read_picture(tmp_path / name, name=name) for name in ("a.jpg", "b.jpg"))
    np.testing.assert_allclose(several.pixels, one.pixels, atol=0.02)
    assert several.remarks == (FURTHER_PICTURES,)
    assert one.remarks == ()
    (tmp_path / "c.jfif").write_bytes((tmp_path / "b.jpg").read_bytes())
    (tmp_path / "c.dcm").write_bytes((tmp_path / "b.jpg").read_bytes())
    for name in ("c.jfif", "c.dcm"):
        np.testing.assert_array_equal(read_picture(tmp_path / name, name=name).pixels, one.pixels)


# -- PNG that says how many bits are used ------------------------------------------------------------


def with_sbit(pixels, bits):
    """A PNG with the chunk sBIT after its header."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    content, chunk = buffer.getvalue(), b"sBIT" + bytes([bits])
    return content[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]


@pytest.mark.parametrize(
    ("stored", "bits", "expected"),
    [
        (RAMP, 12, RAMP / 4095),  # on the right, as writers from detectors leave them
        (RAMP << 4, 12, (RAMP << 4) / 65535),  # on the left, as the standard says
        ((RAMP.astype(int) * 65535 // 4095).astype(np.uint16), 12, RAMP / 4095),
        (RAMP // 4 << 4, 12, (RAMP // 4 << 4) / 65535),
        (RAMP, 16, RAMP / 65535),
        (RAMP, 10, RAMP / 65535),  # exceeded
        ((RAMP // 64).astype(np.uint8), 6, RAMP // 64 / 63),
    ],
)
def test_significant_bits_decide_what_is_white(tmp_path, stored, bits, expected):
    (tmp_path / "a.png").write_bytes(with_sbit(stored, bits))
    np.testing.assert_allclose(read_picture(tmp_path / "a.png", name="a").pixels, expected, atol=2e-5)


@pytest.mark.parametrize("bits", [12, 16])
def test_significant_bits_say_nothing_of_values_that_pillow_has_cut_to_8_bits(tmp_path, bits):
    """Gray of 16 bits with transparency."""
    rows = np.stack([RAMP << 4, np.full_like(RAMP, 65535)], axis=2).astype(">u2")
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 16, 4, 0, 0, 0)), (b"sBIT", bytes([bits, 16])),
              (b"IDAT", zlib.compress(content)), (b"IEND", b"")]  # fmt: skip
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                   for kind, data in chunks)
    )  # fmt: skip
    np.testing.assert_allclose(read_picture(tmp_path / "a.png", name="a").pixels, RAMP / 4095, atol=1 / 255)


def test_a_known_intensity_max_stands_above_the_depth_of_the_file(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    dark = read_picture(tmp_path / "a.png", name="a")
    assert dark.white == 65535 and dark.pixels.max() < 0.07
    np.testing.assert_allclose(
        read_picture(tmp_path / "a.png", name="a", intensity_max=4095).pixels, RAMP / 4095, atol=1e-6
    )
