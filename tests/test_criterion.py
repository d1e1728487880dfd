"""What a label costs: torchvision's focal loss, the paper's asymmetric loss by a loop, cross-entropy, shifts."""

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torchvision.ops import sigmoid_focal_loss

from dualview.config import LossConfig
from dualview.losses import Criterion, Focusing, log_odds, study_losses
from dualview.training.learner import build_criterion

LOGITS = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
LABELS = (torch.rand(40, 3, generator=torch.Generator().manual_seed(2)) > 0.6).double()
KNOWN = torch.rand(40, 3, generator=torch.Generator().manual_seed(3)) > 0.3


def losses(**settings) -> torch.Tensor:
    return study_losses(LOGITS, labels=LABELS, label_mask=KNOWN, criterion=build_criterion(LossConfig(**settings)))


@pytest.mark.parametrize("gamma", [0.5, 1, 2, 5])
def test_the_focal_loss_is_torchvisions(gamma):
    elements = sigmoid_focal_loss(LOGITS, LABELS, alpha=-1, gamma=gamma)
    expected = torch.where(KNOWN, elements, 0).sum(dim=1) / 3
    torch.testing.assert_close(losses(name="focal", focal_gamma=gamma, pos_weight="none"), expected)


def slow_asymmetric(logit: float, label: float, *, positive: float, negative: float, margin: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    shifted = max(p - margin, 0)
    return -label * (1 - p) ** positive * math.log(p) - (1 - label) * shifted**negative * math.log(1 - shifted)


@pytest.mark.parametrize("gammas", [(1.0, 4.0), (0.0, 2.0), (0.5, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_asymmetric_loss_is_the_papers(gammas, margin, smoothing):
    ours = losses(
        name="asymmetric", asymmetric_gammas=gammas, asymmetric_margin=margin, label_smoothing=smoothing,
        pos_weight="none",
    )  # fmt: skip
    for study in range(len(LOGITS)):
        expected = sum(
            slow_asymmetric(
                LOGITS[study, k].item(), LABELS[study, k].item() * (1 - smoothing) + smoothing / 2,
                positive=gammas[0], negative=gammas[1], margin=margin,
            )
            for k in range(3) if KNOWN[study, k]
        )  # fmt: skip
        assert ours[study].item() == pytest.approx(expected / 3, rel=1e-9, abs=1e-15)


def test_the_asymmetric_loss_is_timms():
    timm_losses = pytest.importorskip("timm.loss", reason="timm is not installed (extra dualview[timm])")
    theirs = timm_losses.AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=1, clip=0.05, reduction="sum")
    theirs = theirs(LOGITS, LABELS)
    ours = study_losses(
        LOGITS, labels=LABELS, label_mask=torch.ones_like(KNOWN), criterion=Criterion(focusing=Focusing(1, 4, 0.05))
    )
    torch.testing.assert_close(ours.sum() * 3, theirs.double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "focusing", [Focusing(0.5, 0.5), Focusing(2, 2), Focusing(0.5, 0.5, 0.05), Focusing(1, 4, 1.0)]
)
def test_sure_logits_have_finite_losses_and_gradients(dtype, focusing):
    logits = torch.tensor([[-300.0, 300.0], [300.0, -300.0], [0.0, -3.0]], dtype=dtype, requires_grad=True)
    labels = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]], dtype=dtype)
    total = study_losses(
        logits, labels=labels, label_mask=torch.ones(3, 2, dtype=torch.bool), criterion=Criterion(focusing=focusing)
    ).sum()
    total.backward()
    assert total.isfinite()
    assert logits.grad.isfinite().all()


def test_smoothed_labels_are_torchs_soft_labels():
    elements = F.binary_cross_entropy_with_logits(LOGITS, LABELS * 0.8 + 0.1, reduction="none")
    torch.testing.assert_close(
        losses(label_smoothing=0.2, pos_weight="none"), torch.where(KNOWN, elements, 0).sum(dim=1) / 3
    )


def test_what_is_added_to_the_logits_is_undone_by_the_factors_of_the_odds():
    """The logit that is best for a prevalence, with weights and adjustment, is off by exactly log(factor)."""
    labels = torch.zeros(1000, 2, dtype=torch.float64)
    labels[:50, 0], labels[:300, 1] = 1, 1
    known = torch.ones(1000, 2, dtype=torch.bool)
    adjustment = 0.7 * log_odds(labels, label_mask=known)
    criterion = Criterion(pos_weight=torch.tensor([2.0, 1.0]), logit_adjustment=adjustment)
    bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([bias], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        loss = study_losses(bias.expand(1000, 2), labels=labels, label_mask=known, criterion=criterion).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    log_factors = torch.tensor(criterion.odds_factors(2), dtype=torch.float64).log()
    probabilities = (bias.detach() - log_factors).sigmoid()
    torch.testing.assert_close(probabilities, torch.tensor([0.05, 0.3], dtype=torch.float64), atol=1e-6, rtol=0)


def test_log_odds_count_known_labels_and_stay_finite():
    labels = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    known = torch.tensor([[True, True], [True, True], [False, True]])
    assert log_odds(labels, label_mask=known).tolist() == pytest.approx([0.0, math.log(0.5 / 3.5)])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "focal"}, "set loss.pos_weight=none"),
        ({"focal_gamma": 3.0}, "focal_gamma would not be used: loss.name is bce"),
        ({"name": "focal", "pos_weight": "none", "asymmetric_margin": 0.1}, "asymmetric_margin would not be used"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        LossConfig(**settings)
