"""The heads of one network side by side: a joint head that learned less than a branch makes a view look harmful."""

from dataclasses import replace

import numpy as np

from dualview.evaluation.document import Estimate, HeadAurocs
from dualview.evaluation.looks import EvaluationSettings, auroc_gain_estimate
from dualview.evaluation.metrics import finding_metrics
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.class_patients import class_patients_of_each
from dualview.views import View

JOINT = "joint"
BRANCHES = tuple(view.key for view in View)


def head_aurocs(complete: PredictionTable, *, settings: EvaluationSettings) -> dict[str, HeadAurocs] | None:
    """AUROC of the joint head, of each branch's head and of their mean, by finding; None without all three heads.

    The difference of the joint head and the better branch head has an interval that holds for all judged findings and
    both branch heads (Bonferroni), since the better of the two stands high by chance as well.

    Args:
        complete: studies with both views.
    """
    heads = {head: complete.logits[head] for head in (JOINT, *BRANCHES)}
    seen = np.all([np.isfinite(logits) for logits in heads.values()], axis=0)  # (S, K)
    if not seen.any():
        return None
    heads["vote"] = np.mean(list(heads.values()), axis=0)
    known = complete.label_mask & seen
    patients = class_patients_of_each(complete.patient_ids.astype(str), positive=complete.positive, known=known)
    judged = [of_classes.can_be_judged for of_classes in patients]
    num_compared = max(sum(judged), 1) * len(BRANCHES)
    together = replace(settings, confidence=1 - (1 - settings.confidence) / num_compared)
    found = {}
    for k, finding in enumerate(complete.findings):
        use = known[:, k]
        aurocs = {
            head: finding_metrics(np.where(use, logits[:, k], 0), positive=complete.positive[:, k], known=use).auroc
            for head, logits in heads.items()
        }
        scores = {head: logits[use, k] for head, logits in heads.items()}
        rows = {"positive": complete.positive[use, k], "patients": complete.patient_ids[use].astype(str)}
        shortfall = _shortfall(aurocs, scores, **rows, is_judged=judged[k], settings=together)
        found[finding] = HeadAurocs(**aurocs, shortfall=shortfall)
    return found


def _shortfall(
    aurocs: dict[str, float | None],
    scores: dict[str, np.ndarray],
    *,
    positive: np.ndarray,
    patients: np.ndarray,
    is_judged: bool,
    settings: EvaluationSettings,
) -> Estimate:
    """Joint head minus the better branch head, with its interval where the finding is judged."""
    joint, better = aurocs[JOINT], max(BRANCHES, key=lambda branch: aurocs[branch] or 0.0)
    best = aurocs[better]
    if joint is None or best is None:
        return Estimate(value=None, low=None, high=None)
    if not is_judged:
        return Estimate(value=joint - best, low=None, high=None)
    both = np.stack([scores[JOINT], scores[better]])
    return auroc_gain_estimate((joint, best), both, positive=positive, patients=patients, settings=settings)
