"""Operating thresholds: chosen on one set of studies, applied to another."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from sklearn.metrics import roc_curve

from dualview.errors import UserError


@dataclass(frozen=True)
class ThresholdRule:
    """How a threshold is chosen: highest Youden index, or at least this sensitivity or specificity."""

    kind: Literal["youden", "sensitivity", "specificity"]
    target: float | None = None

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """`youden`, `sensitivity=0.9` or `specificity=0.9`.

        Raises:
            UserError: anything else.
        """
        kind, _, target = text.partition("=")
        try:
            if kind == "youden" and not target:
                return cls("youden")
            if kind in ("sensitivity", "specificity") and 0 < float(target) <= 1:
                return cls(kind, float(target))  # type: ignore[arg-type]
        except ValueError:
            pass
        raise UserError(f"threshold rule '{text}': write youden, sensitivity=0.9 or specificity=0.9 (above 0, up to 1)")

    def __str__(self) -> str:
        return self.kind if self.target is None else f"{self.kind}={self.target:g}"


YOUDEN = ThresholdRule("youden")


class RocPoint(NamedTuple):
    """A point of a ROC curve: positive is what reaches the threshold."""

    threshold: float
    sensitivity: float
    specificity: float


def choose(scores: np.ndarray, *, positive: np.ndarray, rule: ThresholdRule) -> RocPoint | None:
    """The operating point of (N,) scores by a rule; None where a class is missing.

    `youden`: sensitivity + specificity is largest (Youden, Cancer 1950); of several the one with the highest
    threshold. `sensitivity`: the highest threshold that reaches the target, so specificity is largest. `specificity`:
    the lowest threshold that keeps it, so sensitivity is largest.
    """
    if not positive.any() or positive.all():
        return None
    false_rate, sensitivity, thresholds = roc_curve(positive, scores, drop_intermediate=False)
    specificity = 1 - false_rate
    if rule.kind == "youden":
        at = int(np.argmax(sensitivity + specificity))
    elif rule.kind == "sensitivity":
        assert rule.target is not None
        at = int(np.argmax(sensitivity >= rule.target - 1e-12))
    else:
        assert rule.target is not None
        at = int(np.flatnonzero(specificity >= rule.target - 1e-12)[-1])
    # scikit-learn's first threshold is infinite, as nothing reaches it; a new probability may still be above this one.
    threshold = float((scores.max() + 1) / 2) if np.isinf(thresholds[at]) else float(thresholds[at])
    return RocPoint(threshold, float(sensitivity[at]), float(specificity[at]))
