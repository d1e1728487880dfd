"""Losses as sums: ratios are made once, by whoever knows the count over all ranks."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.batch import HeadLogits, StudyBatch
from dualview.views import View

Normalise = Literal["findings", "known"]


class HeadLosses(NamedTuple):
    """Weighted loss sums over the rows of each head, and of log terms; their sum is what is minimised."""

    joint: Tensor  # ()
    pa: Tensor  # ()
    lateral: Tensor  # ()
    log_terms: Tensor  # (), log terms of learned weights; 0 without learned weights

    @property
    def total(self) -> Tensor:
        return self.joint + self.pa + self.lateral + self.log_terms


def study_losses(
    logits: Tensor,
    *,
    labels: Tensor,
    label_mask: Tensor,
    pos_weight: Tensor | None = None,
    normalise: Normalise = "findings",
) -> Tensor:
    """Binary cross-entropy of each study, summed over its known labels and divided: (N, K) to (N,).

    A study without a known label has loss 0. Unknown labels are not read: they may hold anything.

    Args:
        logits, labels: (N, K).
        label_mask: (N, K) bool, True = known.
        pos_weight: (K,) weight of the positive term, as in torch's `binary_cross_entropy_with_logits`.
        normalise: what a study's sum is divided by. `findings`: K, so that all known labels weigh alike; `known`: its
            own number of known labels, so that a label weighs more where the study has few.
    """
    known_labels = torch.where(label_mask, labels, 0)
    elements = F.binary_cross_entropy_with_logits(
        logits.to(labels.dtype), known_labels, pos_weight=pos_weight, reduction="none"
    )
    divisor = logits.shape[1] if normalise == "findings" else label_mask.sum(dim=1).clamp(min=1)
    return torch.where(label_mask, elements, 0).sum(dim=1) / divisor


def head_loss_sums(
    predictions: HeadLogits,
    *,
    batch: StudyBatch,
    pa_weight: float = 0.3,
    lateral_weight: float = 0.3,
    alone: View | None = None,
    pos_weight: Tensor | None = None,
    normalise: Normalise = "findings",
) -> HeadLosses:
    """Loss sums of a micro-batch.

    Every study counts once through the head of its route; one that the joint head has seen also through
    its branch heads, where there are any, with weights 0.3 (source: the authors' `--loss-weights 0.3
    0.3`); all times the study's own weight. The caller divides by the summed weights of the studies of the
    whole step that have a known label (C5). With `alone`, those studies train that branch head only, with
    weight 1 (AuxLoss-CL; source: the authors' `train.py`). Learned weights, where the predictions bring them,
    take the place of the given ones; a study of one view keeps weight 1, or the network could ignore it for a
    lower loss. Their log terms count once per complete study with a known label, so that the sum over
    micro-batches and ranks is still one sum over studies.
    """
    rows = predictions.rows
    in_joint = batch.weight.new_zeros(batch.num_studies, dtype=torch.bool).index_fill(0, rows.joint, True)
    log_terms = batch.weight.new_zeros(())
    weights_in_joint: tuple[float | Tensor, ...] = (1.0, pa_weight, lateral_weight)
    if alone is not None:
        weights_in_joint = (0.0, float(alone == View.PA), float(alone == View.LATERAL))
    elif predictions.weights is not None:
        weights_in_joint, per_study = predictions.weights[:3], predictions.weights.log_terms
        log_terms = per_study * batch.weight[in_joint & batch.label_mask.any(dim=1)].sum()

    def weighted_sum(head: str, weight_in_joint: float | Tensor) -> Tensor:
        at = getattr(rows, head)
        losses = study_losses(
            getattr(predictions, head), labels=batch.labels[at], label_mask=batch.label_mask[at],
            pos_weight=pos_weight, normalise=normalise,
        )  # (N,)  # fmt: skip
        weights = torch.ones_like(losses).masked_fill(in_joint[at], weight_in_joint)
        return (weights * batch.weight[at] * losses).sum()

    joint, pa, lateral = map(weighted_sum, ("joint", "pa", "lateral"), weights_in_joint)
    return HeadLosses(joint=joint, pa=pa, lateral=lateral, log_terms=log_terms)


def reference_pos_weight(labels: Tensor, *, label_mask: Tensor, maximum: float = 5.0) -> Tensor:
    """pos_weight (K,) = clamp(0.1 N / n, 1, maximum): N known and n positive studies of a finding.

    Source: the authors' `train.py`; counted here on the training split only. A finding without a
    positive study takes the maximum.

    Args:
        labels: (S, K) of the training split, 0 or 1.
        label_mask: (S, K) bool, True = known.
    """
    known = label_mask.sum(dim=0)
    positive = (label_mask & (labels > 0.5)).sum(dim=0)
    return (0.1 * known / positive.clamp(min=1)).where(positive > 0, torch.tensor(maximum)).clamp(1.0, maximum)
