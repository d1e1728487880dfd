"""dualview: chest X-ray classifiers on PA and lateral views, when many studies have only one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dualview.config import SeveralImages
    from dualview.inference.predictor import Predictor

__version__ = "0.1.0"


def load(
    run: str | Path | Sequence[str | Path],
    *,
    checkpoint: str = "best",
    device: str = "auto",
    several_images_at_test: SeveralImages | None = None,
) -> Predictor:
    """The network of a run directory, ready to be asked: `load(run).predict(pa=..., lateral=...)`.

    Args:
        run: the directory that `dualview train` wrote, or several, whose logits are averaged.
        checkpoint: `best`, `last`, or the number of a step that is there.
        device: `auto` takes a GPU where there is one; else such as `cpu` or `cuda:1`.
        several_images_at_test: what counts of several images of a view: `first`, or `mean` or `max` of the logits;
            None: as the operating points were chosen, without any as in training.

    Raises:
        UserError: no run, no such checkpoint, or a damaged one; several that cannot answer together.
    """
    from dualview.inference import predictor  # noqa: PLC0415 - `import dualview` stays light

    return predictor.load(run, checkpoint=checkpoint, device=device, several_images_at_test=several_images_at_test)
