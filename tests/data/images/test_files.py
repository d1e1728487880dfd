"""Image files: what is read agrees with the picture, what is not readable says why."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from dualview.data.images.files import BadImage, FileImages
from dualview.folders import begins_dicom


@pytest.fixture
def gradient():
    """40 x 60 picture whose 8-bit value is 4 x column + row."""
    return (4 * np.arange(60)[None, :] + np.arange(40)[:, None]).clip(0, 255).astype(np.uint8)


@pytest.fixture
def read(tmp_path):
    return FileImages(tmp_path, image_size_px=40)


def save(image, path, **kwargs):
    Image.fromarray(image).save(path, **kwargs)


def test_the_central_square_scaled_to_minus_one_and_one(tmp_path, read, gradient):
    save(gradient, tmp_path / "a.png")
    expected = gradient[:, 10:50] / 255 * 2 - 1  # already 40 px, so nothing is resized
    np.testing.assert_allclose(read("a.png")[0].numpy(), expected, atol=1e-6)


def test_8_and_16_bit_and_rgb_and_rgba_and_palette_agree(tmp_path, read, gradient):
    save(gradient, tmp_path / "8.png")
    save(gradient.astype(np.uint16) * 257, tmp_path / "16.png")
    save(np.stack([gradient] * 3, axis=2), tmp_path / "rgb.png")
    Image.fromarray(gradient).convert("RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(gradient).convert("P").save(tmp_path / "p.png")
    save(gradient, tmp_path / "tiff.tif")
    for name in ("16.png", "rgb.png", "rgba.png", "p.png", "tiff.tif"):
        torch.testing.assert_close(read(name), read("8.png"), atol=0.009, rtol=0, msg=name)  # luma rounds


def test_16_bit_keeps_its_depth(tmp_path, read):
    """Values that differ only below 8 bits stay apart."""
    pixels = (np.arange(1600).reshape(40, 40) + 30_000).astype(np.uint16)
    save(pixels, tmp_path / "16.png")
    np.testing.assert_allclose(read("16.png")[0].numpy(), pixels / 65535 * 2 - 1, atol=1e-6)


def test_transparent_pixels_are_black(tmp_path, read):
    pixels = np.full((40, 40, 4), 200, np.uint8)
    pixels[:20, :, 3] = 0
    pixels[20:, :, 3] = 255
    save(pixels, tmp_path / "a.png")
    image = read("a.png")[0]
    assert (image[:20] == -1).all()
    assert torch.allclose(image[20:], torch.tensor(200 / 255 * 2 - 1))


def test_a_png_that_is_a_jpeg_is_read_by_content(tmp_path, read, gradient):
    save(gradient, tmp_path / "a.png", format="JPEG", quality=100)
    save(gradient, tmp_path / "b.png")
    torch.testing.assert_close(read("a.png"), read("b.png"), atol=0.05, rtol=0)


def test_resizing_averages_instead_of_skipping(tmp_path):
    """A fine checkerboard shrunk eightfold is gray, not black or white."""
    board = (np.indices((320, 320)).sum(axis=0) % 2 * 255).astype(np.uint8)
    save(board, tmp_path / "a.png")
    assert FileImages(tmp_path, image_size_px=40)("a.png").abs().max() < 0.1


def test_exif_orientation_is_applied(tmp_path, read, gradient):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save(gradient, tmp_path / "a.png", exif=exif)
    save(gradient[::-1, ::-1], tmp_path / "b.png")
    torch.testing.assert_close(read("a.png"), read("b.png"))


def bad_files(folder, gradient):
    save(gradient, folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    save(gradient, folder / "whole.jpg")
    jpeg = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    save(gradient[:1, :1], folder / "1x1.png")
    save(np.zeros((40, 40), np.uint8), folder / "black.png")
    frames = [Image.fromarray(gradient), Image.fromarray(gradient[::-1])]
    frames[0].save(folder / "frames.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(gradient.astype(np.float32)).save(folder / "float.tif")
    (folder / "folder.png").mkdir()
    return {
        "missing.png": "no such file",
        "truncated.png": "cannot be decoded",
        "truncated.jpg": "cannot be decoded",
        "empty.png": "is empty (0 bytes)",
        "text.png": "not an image",
        "1x1.png": "1x1 px; both sides need at least 16",
        "black.png": "one value everywhere",
        "frames.tif": "has 2 frames",
        "float.tif": "floats from 0 to 255",
        "folder.png": "is a folder, not a file",
    }


def test_every_bad_file_is_refused_with_its_reason(tmp_path, read, gradient):
    for name, reason in bad_files(tmp_path, gradient).items():
        with pytest.raises(BadImage) as caught:
            read(name)
        assert reason in caught.value.reason, name
        assert caught.value.path == name


def test_a_decompression_bomb_is_refused(tmp_path, read, gradient, monkeypatch):
    save(gradient, tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImage, match="unsafe"):
        read("a.png")


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40), (41, 80)])
def test_aspect_crops_pads_or_stretches(tmp_path, height, width):
    """A white picture with one black border column or row, so that what was cut or added can be seen."""
    pixels = np.full((height, width), 255, np.uint8)
    pixels[0, 0] = 0
    save(pixels, tmp_path / "a.png")

    def share_of_white(aspect):
        return float((FileImages(tmp_path, image_size_px=64, aspect=aspect)("a.png") > 0.9).float().mean())

    assert share_of_white("center_crop") == pytest.approx(1, abs=0.01)
    assert share_of_white("pad") == pytest.approx(min(height, width) / max(height, width), abs=0.04)
    assert share_of_white("stretch") == pytest.approx(1, abs=0.01)


def test_a_dicom_file_is_known_by_its_content(tmp_path, gradient):
    """pydicom's own files, those without a preamble too; and no picture, text or short file is taken for one."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    without_preamble = [
        folder / name for name in ("ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm", "rtstruct.dcm")
    ]
    assert not any(file.read_bytes()[128:132] == b"DICM" for file in without_preamble)
    assert all(begins_dicom(file.read_bytes()) for file in [*without_preamble, folder / "MR_small.dcm"])
    for name in ("a.png", "a.jpg", "a.tif", "a.bmp", "a.gif", "a.webp"):
        save(gradient, tmp_path / name)
        (tmp_path / "a.dcm").write_bytes((tmp_path / name).read_bytes())
        assert not begins_dicom((tmp_path / "a.dcm").read_bytes()), name
    (tmp_path / "text.dcm").write_text("patient,study\n" * 20)
    (tmp_path / "zeros.dcm").write_bytes(bytes(200))
    (tmp_path / "short.dcm").write_bytes(b"\x08\x00\x05\x00CS")
    assert not any(begins_dicom((tmp_path / name).read_bytes()) for name in ("text.dcm", "zeros.dcm", "short.dcm"))
