"""Made-up hospitals: folders of noise with a table of whose image is whose."""

from pathlib import Path

import numpy as np
from PIL import Image

VIEWS = {"b": ("PA", "L"), "p": ("PA",), "l": ("L",)}


def write_hospital(
    root: Path, kinds: str, *, findings: tuple[str, ...] = ("A",), size_px: int = 70, dtype: type = np.uint8
) -> Path:
    """One patient with one study per letter of `kinds` (b both views, p PA only, l lateral only).

    Study n is the PNGs nPA.png and nL.png of noise of its own, and a row per image in metadata.csv, where finding f
    is bit f of n: the first is present in every second study, the second in every second pair. Returns `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    rows = [",".join(("patient", "study", "view", "path", *findings))]
    for study, kind in enumerate(kinds):
        labels = [str(study >> number & 1) for number in range(len(findings))]
        for view in VIEWS[kind]:
            generator = np.random.default_rng([study, len(view)])
            noise = generator.integers(0, np.iinfo(dtype).max + 1, (size_px, size_px), dtype=dtype)
            Image.fromarray(noise).save(root / f"{study}{view}.png")
            rows.append(",".join((f"p{study}", str(study), view, f"{study}{view}.png", *labels)))
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root
