"""Writes the table in docs/training.md of which of timm's families can be a backbone, from small networks of each.

python docs/generate/timm_families.py

Every network is made for 224 px with random weights and takes one step's forward and backward pass. It takes about ten
minutes on one core.
"""

from pathlib import Path

import torch

from dualview.batch import StudyBatch
from dualview.errors import UserError, first_line
from dualview.models import build_model

PAGE = Path(__file__).parents[1] / "training.md"
BEGIN, END = "<!-- docs/generate/timm_families.py -->\n", "<!-- end -->\n"
SIZE_PX = 224
NETWORKS = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split()


def tried(name: str) -> str | None:
    """None where a network takes a step and every parameter gets a gradient; else why it cannot be used."""
    try:
        model = build_model("single", num_findings=2, backbone=f"timm:{name}", image_size_px=SIZE_PX, seed=0).train()
    except UserError as error:
        return first_line(error).partition(": ")[2] or first_line(error).partition(", ")[2]
    model.pool_statistics()
    images = torch.rand(2, 1, SIZE_PX, SIZE_PX)
    batch = StudyBatch.from_views(pa=list(images), lateral=[None, None])
    model(batch).by_route(batch).sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    return f"{len(without)} parameters have no gradient, such as {without[0]}" if without else None


def table() -> str:
    """What works in one sentence, what does not row by row."""
    reasons = {name: tried(name) for name in NETWORKS}
    work = [f"`{name}`" for name, reason in reasons.items() if reason is None]
    rows = [f"| `{name}` | {reason} |" for name, reason in reasons.items() if reason is not None]
    return (
        f"{len(work)} of {len(NETWORKS)} work: {', '.join(work)}.\n\n| does not | because |\n|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")
