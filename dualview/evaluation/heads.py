"""The heads of one network side by side: a joint head that learned less than a branch makes a view look harmful."""

import numpy as np

from dualview.evaluation.document import HeadAurocs
from dualview.evaluation.metrics import finding_metrics
from dualview.evaluation.prediction_table import PredictionTable
from dualview.views import View

JOINT = "joint"


def head_aurocs(complete: PredictionTable) -> dict[str, HeadAurocs] | None:
    """AUROC of the joint head, of each branch's head and of their mean, by finding; None without all three heads.

    Args:
        complete: studies with both views.
    """
    heads = {head: complete.logits[head] for head in (JOINT, *(view.key for view in View))}
    seen = np.all([np.isfinite(logits) for logits in heads.values()], axis=0)  # (S, K)
    if not seen.any():
        return None
    heads["vote"] = np.mean(list(heads.values()), axis=0)
    known = complete.label_mask & seen
    return {
        finding: HeadAurocs(
            **{
                head: finding_metrics(
                    np.where(known[:, k], logits[:, k], 0), positive=complete.positive[:, k], known=known[:, k]
                ).auroc
                for head, logits in heads.items()
            }
        )
        for k, finding in enumerate(complete.findings)
    }
