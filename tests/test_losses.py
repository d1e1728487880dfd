"""Losses against a slow loop, numbers by hand, and torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from dualview.batch import HeadLogits
from dualview.losses import Criterion, head_loss_sums, reference_pos_weight, study_losses
from dualview.models.loss_weights import LossWeights
from dualview.views import View


def slow_study_loss(logits, labels, mask, pos_weight, normalise="findings"):
    known = [k for k in range(len(logits)) if mask[k]]
    losses = []
    for k in known:
        p = 1 / (1 + math.exp(-logits[k]))
        losses.append(-(pos_weight[k] * labels[k] * math.log(p) + (1 - labels[k]) * math.log(1 - p)))
    return sum(losses) / (len(logits) if normalise == "findings" else max(len(known), 1))


@pytest.mark.parametrize("normalise", ["findings", "known"])
def test_auxloss_equals_a_loop_over_studies(make_batch, normalise):
    kinds = "bplbpb"
    batch = make_batch(kinds, dtype=torch.float64, size=8)
    batch = batch._replace(label_mask=torch.rand(6, 3) > 0.4)
    heads = {name: torch.randn(6, 3, dtype=torch.float64) for name in ("joint", "pa", "lateral")}
    pos_weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    predictions = HeadLogits(
        joint=heads["joint"][batch.rows.both],
        pa=heads["pa"][batch.rows.pa],
        lateral=heads["lateral"][batch.rows.lateral],
        rows=batch.rows.by_head,
    )
    sums = head_loss_sums(
        predictions,
        batch=batch,
        pa_weight=0.3,
        lateral_weight=0.2,
        criterion=Criterion(pos_weight=pos_weight, normalise=normalise),
    )

    weights = {"b": (1, 0.3, 0.2), "p": (0, 1, 0), "l": (0, 0, 1)}
    expected = [0.0, 0.0, 0.0]
    for study, kind in enumerate(kinds):
        for h, head in enumerate(heads):
            loss = slow_study_loss(
                heads[head][study].tolist(), batch.labels[study].tolist(), batch.label_mask[study],
                pos_weight.tolist(), normalise,
            )  # fmt: skip
            expected[h] += weights[kind][h] * loss
    assert sums.log_terms == 0
    assert [float(value) for value in sums[:3]] == pytest.approx(expected, abs=1e-12)
    assert float(sums.total) == pytest.approx(sum(expected), abs=1e-12)


def test_pa_only_is_plain_single_view_training(make_batch):
    """All PA only and all labels known: the sum over N is torch's own mean BCE."""
    batch = make_batch("pppp", size=8)
    logits = torch.randn(4, 3)
    predictions = HeadLogits(joint=logits[:0], pa=logits, lateral=logits[:0], rows=batch.rows.by_head)
    total = head_loss_sums(predictions, batch=batch).total
    torch.testing.assert_close(total / 4, F.binary_cross_entropy_with_logits(logits, batch.labels))


def test_all_both_is_the_papers_joint_plus_03_pa_plus_03_lateral(make_batch):
    batch = make_batch("bbb", size=8)
    joint, pa, lateral = torch.randn(3, 3, 3)
    bce = F.binary_cross_entropy_with_logits
    expected = bce(joint, batch.labels) + 0.3 * bce(pa, batch.labels) + 0.3 * bce(lateral, batch.labels)
    torch.testing.assert_close(
        head_loss_sums(HeadLogits(joint, pa, lateral, batch.rows.by_head), batch=batch).total / 3, expected
    )


def test_unknown_labels_are_never_read():
    logits = torch.randn(2, 3, requires_grad=True)
    labels = torch.tensor([[1.0, float("nan"), 0.0], [float("nan")] * 3])
    mask = torch.tensor([[True, False, True], [False] * 3])
    losses = study_losses(logits, labels=labels, label_mask=mask)
    losses.sum().backward()
    assert losses[1] == 0
    assert logits.grad.isfinite().all()
    assert not logits.grad[~mask].any()
    assert logits.grad[mask].all()


@pytest.mark.parametrize(("normalise", "expected"), [("findings", 1 / 4), ("known", 1 / 2)])
def test_a_label_weighs_what_normalise_says(normalise, expected):
    """Two of four labels known: by findings each counts as those of a study with four, by known twice as much."""
    logits = torch.zeros(2, 4, requires_grad=True)
    mask = torch.tensor([[True, True, False, False], [True] * 4])
    study_losses(
        logits, labels=torch.eye(4)[:2], label_mask=mask, criterion=Criterion(normalise=normalise)
    ).sum().backward()
    assert (2 * logits.grad.abs()).tolist() == [[expected, expected, 0, 0], [1 / 4] * 4]


def test_pos_weight_by_hand():
    """100 known: 50, 4, 1 and 0 positive give 0.1 x 100 / n = 0.2, 2.5, 10 and none, clamped to [1, 5]."""
    labels = torch.zeros(100, 4)
    labels[:50, 0] = labels[:4, 1] = labels[:1, 2] = 1
    mask = torch.ones(100, 4, dtype=torch.bool)
    assert reference_pos_weight(labels, label_mask=mask).tolist() == [1.0, 2.5, 5.0, 5.0]


def test_pos_weight_counts_known_labels_only():
    """4 positive of 80 known: 0.1 x 80 / 4 = 2; the unknown 20 hold ones that must not count."""
    labels = torch.zeros(100, 1)
    labels[:4] = labels[80:] = 1
    mask = torch.ones(100, 1, dtype=torch.bool)
    mask[80:] = False
    assert reference_pos_weight(labels, label_mask=mask).tolist() == [2.0]


@pytest.mark.parametrize("kind", ["uncertainty", "temperature"])
def test_learned_weights_begin_where_they_are_told(kind):
    assert LossWeights(kind, pa=0.3, lateral=2.0).now() == pytest.approx(
        {"joint": 1, "pa": 0.3, "lateral": 2}, rel=1e-5
    )


def learned(kind, values):
    """Weights and log terms of a complete study at these scalars, and how both move with each, by hand."""
    if kind == "uncertainty":  # w = exp(-s), term s / 2
        weights = [math.exp(-s) for s in values]
        return weights, sum(values) / 2, [-w for w in weights], [0.5] * 3
    squares = [t * t + 1e-4 for t in values]  # w = 1 / (T^2 + 1e-4), term log sqrt(T^2 + 1e-4)
    moves = [-2 * t / v**2 for t, v in zip(values, squares, strict=True)]
    terms = sum(math.log(math.sqrt(v)) for v in squares)
    return [1 / v for v in squares], terms, moves, [t / v for t, v in zip(values, squares, strict=True)]


@pytest.mark.parametrize(
    ("kind", "values"), [("uncertainty", [0.5, -0.2, 1.0]), ("temperature", [1.5, 0.02, -0.7])], ids=str
)
def test_learned_weights_multiply_the_heads_of_complete_studies_alone(make_batch, kind, values):
    """Value and gradient against a loop: a study of one view counts 1, one without a label has no log term."""
    kinds = "bplbb"
    batch = make_batch(kinds, dtype=torch.float64, size=8)
    mask = torch.rand(5, 3) > 0.3
    mask[:, 0] = True
    mask[4] = False
    batch = batch._replace(label_mask=mask, weight=torch.tensor([0.5, 2.0, 1.0, 1.5, 3.0], dtype=torch.float64))
    heads = {name: torch.randn(5, 3, dtype=torch.float64) for name in ("joint", "pa", "lateral")}
    module = LossWeights(kind).double()
    module.values.data = torch.tensor(values, dtype=torch.float64)
    predictions = HeadLogits(
        joint=heads["joint"][batch.rows.both],
        pa=heads["pa"][batch.rows.pa],
        lateral=heads["lateral"][batch.rows.lateral],
        rows=batch.rows.by_head,
        weights=module(),
    )
    sums = head_loss_sums(predictions, batch=batch)
    sums.total.backward()

    weights, terms, weights_move, terms_move = learned(kind, values)
    expected, gradient = 0.0, [0.0] * 3
    for study, of_study in enumerate(kinds):
        if not mask[study].any():
            continue
        own = float(batch.weight[study])
        losses = [
            slow_study_loss(of_head[study].tolist(), batch.labels[study].tolist(), mask[study], [1.0] * 3)
            for of_head in heads.values()
        ]
        if of_study == "b":
            expected += own * (sum(w * loss for w, loss in zip(weights, losses, strict=True)) + terms)
            for h in range(3):
                gradient[h] += own * (weights_move[h] * losses[h] + terms_move[h])
        else:
            expected += own * losses["jpl".index(of_study)]
    assert float(sums.total.detach()) == pytest.approx(expected, rel=1e-12)
    assert float(sums.log_terms.detach()) == pytest.approx(2 * terms, rel=1e-12)  # weights 0.5 + 1.5
    assert module.values.grad.tolist() == pytest.approx(gradient, rel=1e-12)


@pytest.mark.parametrize("kind", ["uncertainty", "temperature"])
def test_the_best_weight_of_a_head_is_half_its_inverse_loss(kind):
    """d/dv (L / v + log(v) / 2) = 0 at v = 2 L, for losses 0.1, 0.5 and 2 found by gradient descent."""
    losses = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    module = LossWeights(kind).double()
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        *weights, log_terms = module()
        total = (torch.stack(weights) * losses).sum() + log_terms
        total.backward()
        return total

    optimizer.step(closure)
    assert list(module.now().values()) == pytest.approx([5.0, 1.0, 0.25], rel=1e-4)


def test_a_temperature_that_steps_over_zero_stays_finite():
    """At T = 0 and beyond it: weights are at most 1e4, and gradients lead away from 0 on either side."""
    module = LossWeights("temperature")
    module.values.data = torch.tensor([1e-3, 0.0, -1e-3])
    *weights, log_terms = module()
    assert all(9e3 < float(weight) <= 1e4 * (1 + 1e-6) for weight in weights)
    (0.5 * sum(weights) + log_terms).backward()
    gradients = module.values.grad.tolist()
    assert gradients[0] < 0 == gradients[1] < gradients[2]


@pytest.mark.parametrize(("alone", "head"), [(View.PA, "pa"), (View.LATERAL, "lateral")])
def test_a_head_trained_alone_has_the_whole_loss_of_complete_studies(make_batch, alone, head):
    """AuxLoss-CL: complete studies count once through that head; single views are untouched."""
    batch = make_batch("bpl")
    logits = {name: torch.randn(rows, 3) for name, rows in (("joint", 1), ("pa", 2), ("lateral", 2))}
    sums = head_loss_sums(HeadLogits(**logits, rows=batch.rows.by_head), batch=batch, alone=alone)
    of_all = head_loss_sums(HeadLogits(**logits, rows=batch.rows.by_head), batch=batch, pa_weight=1, lateral_weight=1)
    assert sums.joint == 0
    torch.testing.assert_close(getattr(sums, head), getattr(of_all, head))
    other = "lateral" if head == "pa" else "pa"
    single = study_losses(logits[other][1:], labels=batch.labels[[2 if other == "lateral" else 1]],
                          label_mask=batch.label_mask[:1])  # fmt: skip
    torch.testing.assert_close(getattr(sums, other), single.sum())


def test_the_joint_head_teaches_the_branch_heads_on_complete_studies_and_learns_nothing_by_it(make_batch):
    """torch's divergence of Bernoulli distributions, study by study; partial and unlabelled studies take no part."""
    batch = make_batch("bpblb", dtype=torch.float64)
    batch = batch._replace(
        weight=torch.tensor([1.0, 1, 2, 1, 1], dtype=torch.float64),
        label_mask=torch.tensor([[True, False, True]] * 4 + [[False] * 3]),
    )
    heads = {name: torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for name in ("joint", "pa", "lateral")}
    rows = batch.rows
    predictions = HeadLogits(
        joint=heads["joint"][rows.both], pa=heads["pa"][rows.pa], lateral=heads["lateral"][rows.lateral],
        rows=rows.by_head,
    )  # fmt: skip
    taught = head_loss_sums(predictions, batch=batch, distill_weight=0.7).distillation
    expected = 0.0
    for study, weight in ((0, 1), (2, 2)):
        teacher = torch.distributions.Bernoulli(logits=heads["joint"][study])
        for view in ("pa", "lateral"):
            student = torch.distributions.Bernoulli(logits=heads[view][study])
            expected += 0.7 * weight * torch.distributions.kl_divergence(teacher, student).mean()
    torch.testing.assert_close(taught, expected)
    gradients = torch.autograd.grad(taught, list(heads.values()), allow_unused=True)
    assert gradients[0] is None
    assert gradients[1][0].any() and not gradients[1][1].any() and not gradients[1][4].any()
    assert head_loss_sums(predictions, batch=batch).distillation == 0


def test_equal_heads_have_nothing_to_learn_from_each_other(make_batch):
    batch = make_batch("bb", dtype=torch.float64)
    logits = torch.randn(2, 3, dtype=torch.float64)
    predictions = HeadLogits(logits, logits, logits, batch.rows.by_head)
    assert abs(head_loss_sums(predictions, batch=batch, distill_weight=1).distillation) < 1e-15
