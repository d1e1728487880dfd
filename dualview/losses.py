"""Losses as sums: ratios are made once, by whoever knows the count over all ranks."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dualview.batch import HeadLogits, StudyBatch
from dualview.views import View

Normalise = Literal["findings", "known"]


class Focusing(NamedTuple):
    """By how much labels that are judged well already count less; all 0 is plain binary cross-entropy.

    A positive of probability p weighs (1 - p)^positive, a negative q^negative, where q = max(p - margin, 0) takes the
    place of p in the negative's loss too. Source: Ridnik et al., "Asymmetric Loss For Multi-Label Classification",
    ICCV 2021, equations 4 to 7; with positive = negative and no margin the focal loss of Lin et al., ICCV 2017.
    """

    positive: float = 0.0
    negative: float = 0.0
    margin: float = 0.0


PLAIN = Focusing()


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """What a logit costs against its label, alike for every head and study."""

    pos_weight: Tensor | None = None  # (K,) weight of the positive term; None: 1
    normalise: Normalise = "findings"  # see `study_losses`
    focusing: Focusing = PLAIN
    label_smoothing: float = 0.0  # s: a label y counts as y (1 - s) + s / 2. Source: Szegedy et al., CVPR 2016
    logit_adjustment: Tensor | None = None  # (K,) added to the logits before all else; None: 0

    def to(self, device: torch.device) -> "Criterion":
        """The same with its tensors on a device."""
        moved = {
            name: tensor.to(device)
            for name in ("pos_weight", "logit_adjustment")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved)

    def odds_factors(self, num_findings: int) -> list[float]:
        """K factors by which the odds that plain cross-entropy learns are above those of the training studies.

        Positives of weight w multiply the odds by w, and what is added to the logits before the loss is missing from
        them after it.
        """
        factors = torch.ones(num_findings, dtype=torch.float64)
        if self.pos_weight is not None:
            factors = factors * self.pos_weight.double().cpu()
        if self.logit_adjustment is not None:
            factors = factors * self.logit_adjustment.double().cpu().neg().exp()
        numbers: list[float] = factors.tolist()
        return numbers


CROSS_ENTROPY = Criterion()


class HeadLosses(NamedTuple):
    """Weighted loss sums over the rows of each head, and beside them; the sum of all is what is minimised."""

    joint: Tensor  # ()
    pa: Tensor  # ()
    lateral: Tensor  # ()
    log_terms: Tensor  # (), log terms of learned weights; 0 without learned weights
    distillation: Tensor  # (), what the joint head teaches the branch heads; 0 without

    @property
    def total(self) -> Tensor:
        return self.joint + self.pa + self.lateral + self.log_terms + self.distillation


def study_losses(
    logits: Tensor,
    *,
    labels: Tensor,
    label_mask: Tensor,
    criterion: Criterion = CROSS_ENTROPY,
) -> Tensor:
    """Loss of each study, summed over its known labels and divided: (N, K) to (N,).

    A study without a known label has loss 0. Unknown labels are not read: they may hold anything.

    Args:
        logits, labels: (N, K).
        label_mask: (N, K) bool, True = known.
        criterion: what a label costs; its `normalise` is what a study's sum is divided by. `findings`: K, so that all
            known labels weigh alike; `known`: its own number of known labels, so that a label weighs more where the
            study has few.
    """
    elements = _label_losses(logits.to(labels.dtype), torch.where(label_mask, labels, 0), criterion=criterion)
    divisor = logits.shape[1] if criterion.normalise == "findings" else label_mask.sum(dim=1).clamp(min=1)
    return torch.where(label_mask, elements, 0).sum(dim=1) / divisor


def _label_losses(logits: Tensor, labels: Tensor, *, criterion: Criterion) -> Tensor:
    """Loss of every label by itself: (N, K) to (N, K)."""
    if criterion.logit_adjustment is not None:
        logits = logits + criterion.logit_adjustment
    if criterion.label_smoothing:
        labels = labels * (1 - criterion.label_smoothing) + criterion.label_smoothing / 2
    if criterion.focusing == PLAIN:
        return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=criterion.pos_weight, reduction="none")
    exponent_of_positive, exponent_of_negative, margin = criterion.focusing
    weight = 1 if criterion.pos_weight is None else criterion.pos_weight
    # -log p and -log(1 - p); powers of p are made of them, as those of a p that has become 0 have no derivative.
    cost_of_positive, cost_of_negative = F.softplus(-logits), F.softplus(logits)
    positive = weight * torch.exp(-exponent_of_positive * cost_of_negative) * cost_of_positive
    if margin:
        shifted = (torch.sigmoid(logits) - margin).clamp(min=torch.finfo(logits.dtype).tiny)
        negative = shifted.pow(exponent_of_negative) * -torch.log1p(-shifted)
    else:
        negative = torch.exp(-exponent_of_negative * cost_of_positive) * cost_of_negative
    return labels * positive + (1 - labels) * negative


def head_loss_sums(
    predictions: HeadLogits,
    *,
    batch: StudyBatch,
    pa_weight: float = 0.3,
    lateral_weight: float = 0.3,
    alone: View | None = None,
    criterion: Criterion = CROSS_ENTROPY,
    distill_weight: float = 0.0,
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
            criterion=criterion,
        )  # (N,)  # fmt: skip
        weights = torch.ones_like(losses).masked_fill(in_joint[at], weight_in_joint)
        return (weights * batch.weight[at] * losses).sum()

    joint, pa, lateral = map(weighted_sum, ("joint", "pa", "lateral"), weights_in_joint)
    distillation = (
        distill_weight * _distillation(predictions, batch=batch) if distill_weight else log_terms.new_zeros(())
    )
    return HeadLosses(joint=joint, pa=pa, lateral=lateral, log_terms=log_terms, distillation=distillation)


def _distillation(predictions: HeadLogits, *, batch: StudyBatch) -> Tensor:
    """How far the branch heads are from the joint head on complete studies, summed over studies and both heads.

    The Kullback-Leibler divergence of each finding, joint against branch, mean over findings; labels are not looked at,
    but for studies without any, which take no part in the loss. The joint head learns nothing by it. Source: Hinton,
    Vinyals & Dean, arXiv:1503.02531, with temperature 1.
    """
    rows = batch.rows
    weights = batch.weight[rows.both] * batch.label_mask[rows.both].any(dim=1)
    teacher = predictions.joint.detach().to(weights.dtype)
    total = weights.new_zeros(())
    for branch in (predictions.pa[rows.both_in_pa], predictions.lateral[rows.both_in_lateral]):
        from_teacher = F.binary_cross_entropy_with_logits(branch.to(weights.dtype), teacher.sigmoid(), reduction="none")
        entropy = F.binary_cross_entropy_with_logits(teacher, teacher.sigmoid(), reduction="none")
        total = total + (weights * (from_teacher - entropy).mean(dim=1)).sum()
    return total


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


def log_odds(labels: Tensor, *, label_mask: Tensor) -> Tensor:
    """log of positives over negatives of each finding, half a study added to both: (S, K) to (K,).

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, for the two classes of each finding; the
    half is Haldane's correction, which keeps a finding without positives finite.
    """
    positive = (label_mask & (labels > 0.5)).sum(dim=0)
    negative = label_mask.sum(dim=0) - positive
    return torch.log((positive + 0.5) / (negative + 0.5))
