"""Pictures of studies, both views side by side, to see what the network sees; and of images with doubtful views."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dualview.data.augment import to_input
from dualview.data.dataset import read_first
from dualview.data.images.files import ImageReader
from dualview.data.table import StudyTable
from dualview.views import View

GAP, CAPTION = 8, 18
SUSPECT_CAPTION_WIDTH = 140
BACKGROUND, LINES, TEXT = 24, 70, 220


def draw(
    path: Path, *, table: StudyTable, read: ImageReader, image_size_px: int, num_studies: int, seed: int,
    columns: int = 3,
) -> None:  # fmt: skip
    """Write a PNG of `num_studies` studies drawn from the table: PA left, lateral right, no identifiers.

    An absent view is a hatched field that says so; a view that cannot be read says why. Under each
    study stand its positive findings.
    """
    rows = np.random.default_rng(seed).permutation(len(table))[:num_studies]
    cell_width, cell_height = 2 * image_size_px + GAP, image_size_px + 2 * CAPTION
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    sheet = Image.new("L", (columns * (cell_width + 2 * GAP), lines * (cell_height + 2 * GAP)), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    positive = table.positive
    for position, row in enumerate(rows):
        line, column = divmod(position, columns)
        x, y = column * (cell_width + 2 * GAP) + GAP, line * (cell_height + 2 * GAP) + GAP
        for view in View:
            left = x + view * (image_size_px + GAP)
            pen.text((left, y), view.title, fill=TEXT, font=font)
            _draw_view(sheet, (left, y + CAPTION), table.images[view][row], read=read, size=image_size_px, view=view)
        there = [name for name, is_there in zip(table.findings, positive[row], strict=True) if is_there]
        caption = ", ".join(there) or ("no positive finding" if table.label_mask[row].any() else "unlabelled")
        longest = int(cell_width / 6.5)
        caption = caption if len(caption) <= longest else caption[: longest - 3] + "..."
        pen.text((x, y + CAPTION + image_size_px + 3), caption, fill=TEXT, font=font)
    sheet.save(path)


def draw_suspects(
    path: Path, *, suspects: Iterable[tuple[str, str, float]], read: ImageReader, image_size_px: int, columns: int = 6
) -> None:
    """Write a PNG of (path, view in the table, its probability), in this order, without identifiers.

    Under each image stand its number, which is that of the list, the view and the probability.
    """
    rows = list(suspects)
    columns = min(columns, len(rows))
    width, height = max(image_size_px, SUSPECT_CAPTION_WIDTH) + 2 * GAP, image_size_px + CAPTION + GAP
    sheet = Image.new("L", (columns * width, -(-len(rows) // columns) * height + GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for position, (image, view, probability) in enumerate(rows):
        line, column = divmod(position, columns)
        x, y = column * width + GAP, line * height + GAP
        sheet.paste(_as_picture(read(image)), (x, y))
        caption = f"{position + 1}   {view}?   p = {probability:.3f}"
        pen.text((x, y + image_size_px + 2), caption, fill=TEXT, font=font)
    sheet.save(path)


def study_picture(images: tuple[Tensor | None, Tensor | None], *, size: int) -> Image.Image:
    """One study as it was read, PA left, lateral right; an absent view is a hatched field that says so."""
    picture = Image.new("L", (2 * size + GAP, size), BACKGROUND)
    for view in View:
        corner, image = (view * (size + GAP), 0), images[view]
        if image is None:
            _draw_absent(picture, corner, size=size, says=f"{view.title}\nabsent")
        else:
            picture.paste(_as_picture(image), corner)
    return picture


def _draw_view(
    sheet: Image.Image, corner: tuple[int, int], paths: tuple[str, ...], *, read: ImageReader, size: int, view: View
) -> None:
    says = f"{view.title}\nabsent"
    if paths:
        first = read_first(paths, read=read)
        if first.image is not None:
            sheet.paste(_as_picture(first.image), corner)
            return
        says = f"cannot be read:\n{first.bad[0][1][:60]}"
    _draw_absent(sheet, corner, size=size, says=says)


def _as_picture(image: Tensor) -> Image.Image:
    pixels = (to_input(image[None])[0, 0].numpy() + 1) * 127.5
    return Image.fromarray(pixels.round().astype(np.uint8))


def _draw_absent(sheet: Image.Image, corner: tuple[int, int], *, size: int, says: str) -> None:
    pen = ImageDraw.Draw(sheet)
    x, y = corner
    field = Image.new("L", (size, size), BACKGROUND)
    hatch = ImageDraw.Draw(field)
    for offset in range(-size, size, 16):
        hatch.line((offset, 0, offset + size, size), fill=LINES)
    sheet.paste(field, corner)
    pen.rectangle((x, y, x + size - 1, y + size - 1), outline=LINES)
    font = ImageFont.load_default(14)
    box = pen.multiline_textbbox((0, 0), says, font=font)
    left, top = x + (size - box[2]) / 2, y + (size - box[3]) / 2
    pen.rectangle((left - 6, top - 4, left + box[2] + 6, top + box[3] + 6), fill=BACKGROUND)
    pen.multiline_text((left, top), says, fill=TEXT, font=font, align="center")
