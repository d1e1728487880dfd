"""Draws docs/phantom.png: six phantom studies, both views, absent views drawn as absent.

python docs/generate/phantom.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dualview.config import PhantomConfig
from dualview.data.sources.phantom import FINDINGS, draw
from dualview.views import View

SIZE, GAP, HEAD = 160, 8, 34
STUDIES = 6


def main() -> None:
    table, read = draw(PhantomConfig(num_studies=40), seed=1, image_size_px=SIZE)
    one_of_each = [int(np.flatnonzero(table.availability == kind)[n]) for kind in (0, 1, 2) for n in (1, 3)]
    picture = Image.new("L", (GAP + STUDIES * (SIZE + GAP), 2 * HEAD + 2 * (SIZE + GAP)), 255)
    pen = ImageDraw.Draw(picture)
    for column, study in enumerate(one_of_each):
        x = GAP + column * (SIZE + GAP)
        positive = [finding for finding, label in zip(FINDINGS, table.labels[study], strict=True) if label]
        for line, text in enumerate(positive or ["no finding"]):
            pen.text((x, 2 + 14 * line), text, fill=0)
        for view in View:
            y = 2 * HEAD + view * (SIZE + GAP)
            if paths := table.images[view][study]:
                pixels = (read(paths[0])[0].numpy() + 1) * 127.5
                picture.paste(Image.fromarray(pixels.astype(np.uint8)), (x, y))
            else:
                pen.rectangle((x, y, x + SIZE - 1, y + SIZE - 1), outline=150, fill=240)
                pen.text((x + 40, y + SIZE // 2 - 6), f"no {view.name.lower()} view", fill=110)
    picture.save(Path(__file__).parents[1] / "phantom.png", optimize=True)


if __name__ == "__main__":
    main()
