"""Contracts C1 to C4 of routing, and that the network is torchvision's."""

import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision

from dualview.batch import StudyBatch
from dualview.config import Config
from dualview.losses import head_loss_sums
from dualview.models import build_model
from dualview.models.build import build_configured
from dualview.models.norm import PooledBatchNorm2d

MIXES = ["bbbbpppl", "bpl", "ppp", "lll", "bb", "lbp"]


def build(**kwargs):
    return build_model("auxloss", **{"num_findings": 3, "backbone": "densenet_tiny", "seed": 0, **kwargs})


def only(batch: StudyBatch, study: int) -> StudyBatch:
    """One study of a batch, on its own."""

    def image(images, rows):
        return images[rows.tolist().index(study)] if study in rows.tolist() else None

    return StudyBatch.from_views(
        pa=[image(batch.pa, batch.rows.pa)],
        lateral=[image(batch.lateral, batch.rows.lateral)],
        labels=batch.labels[study : study + 1],
    )


@pytest.mark.parametrize("merge_after_block", [3, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("kinds", MIXES)
def test_c1_routed_equals_a_loop_over_studies(make_batch, kinds, dtype, tolerance, merge_after_block):
    model = build(merge_after_block=merge_after_block).to(dtype).eval()
    batch = make_batch(kinds, dtype=dtype)
    routed = model(batch).by_route(batch)
    looped = torch.cat([model(single).by_route(single) for single in (only(batch, i) for i in range(len(kinds)))])
    assert (routed - looped).abs().max() <= tolerance


def test_c1_with_densenet121(make_batch):
    model = build(backbone="densenet121").eval()
    batch = make_batch("bpl")
    with torch.no_grad():
        routed = model(batch).by_route(batch)
        looped = torch.cat([model(single).by_route(single) for single in (only(batch, i) for i in range(3))])
    assert (routed - looped).abs().max() <= 1e-5


@pytest.mark.parametrize("kinds", ["bpl", "ppp", "lbp"])
def test_c2_pixels_of_absent_views_do_not_matter(kinds):
    """The same studies with zeros and with NaN where no image is: everything is bit-equal."""
    view_mask = torch.tensor([[kind in "bp", kind in "bl"] for kind in kinds])
    images = torch.rand(len(kinds), 2, 1, 64, 64)
    results = []
    for absent in (0.0, float("nan")):
        filled = torch.where(view_mask[:, :, None, None, None], images, absent)
        batch = StudyBatch.from_dense(filled, view_mask=view_mask, labels=torch.ones(len(kinds), 3))
        model = build().train()
        predictions = model(batch)
        head_loss_sums(predictions, batch=batch).total.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append(({"logits": predictions.by_route(batch)}, gradients, dict(model.named_buffers())))
    for zeros, nans in zip(*results, strict=True):
        assert zeros.keys() == nans.keys()
        for name, value in zeros.items():
            assert value.isfinite().all()
            assert torch.equal(value, nans[name]), name


@pytest.mark.parametrize("merge_after_block", [3, 4])
@pytest.mark.parametrize("kinds", MIXES)
def test_c3_each_existing_image_goes_through_its_branch_once(make_batch, kinds, merge_after_block):
    model = build(merge_after_block=merge_after_block)
    seen = {"pa": [], "lateral": []}
    for view, layer in itertools.product(seen, ("conv0", "denseblock4")):
        branch = getattr(model, view)
        branch.features.get_submodule(layer).register_forward_hook(
            lambda _module, inputs, _output, view=view: seen[view].append(inputs[0].shape[0])
        )
    model(make_batch(kinds))
    for view, letters in (("pa", "bp"), ("lateral", "bl")):
        present = sum(kind in letters for kind in kinds)
        assert seen[view] == ([present, present] if present else [])  # once in the stem, once in the tail


@pytest.mark.parametrize(("kinds", "silent"), [("ppp", "lateral"), ("lll", "pa")])
def test_an_absent_view_gets_no_gradient(make_batch, kinds, silent):
    model = build().train()
    batch = make_batch(kinds)
    head_loss_sums(model(batch), batch=batch).total.backward()
    for name, parameter in model.named_parameters():
        if name.startswith((silent, "joint")):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name


def test_both_views_reach_every_parameter(make_batch):
    model = build().train()
    batch = make_batch("b")
    head_loss_sums(model(batch), batch=batch).total.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("optimizer_class", [torch.optim.AdamW, torch.optim.Adam])
def test_c4_an_idle_branch_stays_still(make_batch, optimizer_class):
    """After a step that gave it momentum, a step without laterals leaves the branch bit-equal."""
    model = build().train()
    optimizer = optimizer_class(model.parameters(), lr=1e-2, weight_decay=0.1)

    def step(kinds):
        batch = make_batch(kinds)
        head_loss_sums(model(batch), batch=batch).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step("bl")
    before = {name: value.clone() for name, value in model.lateral.state_dict().items()}
    moments = [optimizer.state[p]["exp_avg"].clone() for p in model.lateral.parameters()]
    moved = model.pa.head.weight.clone()
    step("pp")
    assert all(torch.equal(value, before[name]) for name, value in model.lateral.state_dict().items())
    assert all(
        torch.equal(optimizer.state[p]["exp_avg"], old)
        for p, old in zip(model.lateral.parameters(), moments, strict=True)
    )
    assert not torch.equal(model.pa.head.weight, moved)


def test_a_batch_without_any_study_can_be_backpropagated(make_batch):
    """A rank with an empty micro-batch must take part in the gradient exchange."""
    model = build().train()
    batch = StudyBatch.from_views(pa=[], lateral=[], labels=torch.zeros(0, 3), image_shape=(1, 64, 64))
    total = head_loss_sums(model(batch), batch=batch).total
    total.backward()
    assert total == 0
    assert not model.joint.weight.grad.any()


@pytest.mark.parametrize("merge_after_block", [3, 4])
def test_parameters_are_those_of_the_authors(merge_after_block):
    """14,157,504 at 64 findings, one channel: counted on the authors' code. Block 3 has 1024 channels too."""
    model = build(num_findings=64, backbone="densenet121", merge_after_block=merge_after_block)
    assert model.num_parameters == 14_157_504


@pytest.mark.parametrize("name", ["densenet121", "densenet169"])
def test_a_branch_computes_what_torchvision_computes(name):
    """Same weights, same image: the branch equals torchvision's DenseNet although it pools before convolving."""
    theirs = torchvision.models.get_model(name, weights=None, num_classes=5)
    theirs.features.conv0 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    model = build(num_findings=5, backbone=name)
    model.pa.features.load_state_dict(theirs.features.state_dict())
    model.pa.head.load_state_dict(theirs.classifier.state_dict())
    images = torch.rand(2, 1, 64, 64)
    for mode in (True, False):  # training statistics, then running ones
        torch.testing.assert_close(
            model.pa.train(mode)(images).logits, theirs.train(mode)(images), rtol=1e-4, atol=1e-4
        )


def test_joint_logits_by_hand(make_batch):
    """Joint head = linear on ReLU and mean of the concatenated block-3 maps, computed layer by layer."""
    model = build().eval()
    batch = make_batch("b")

    def block3(branch, x):
        for name, layer in branch.features.named_children():
            x = layer(x)
            if name == "denseblock3":
                return F.relu(x).mean(dim=(2, 3))

    expected = model.joint(torch.cat([block3(model.pa, batch.pa), block3(model.lateral, batch.lateral)], dim=1))
    torch.testing.assert_close(model(batch).joint, expected)


def test_the_seed_decides_the_weights_and_leaves_the_global_generator():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = build(seed=1), build(seed=1), build(seed=2)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.joint.weight, two.joint.weight)
    assert not torch.equal(one.joint.weight, other.joint.weight)


def test_dropout_is_torchvisions():
    model = build(dropout=0.3)
    rates = {m.drop_rate for m in model.modules() if hasattr(m, "drop_rate")}
    assert rates == {0.3}


def test_every_norm_can_pool():
    norms = [m for m in build().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, PooledBatchNorm2d) for norm in norms)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet"}, "unknown model 'resnet'"),
        ({"backbone": "vgg"}, "unknown backbone 'vgg'; there are densenet121"),
        ({"merge_after_block": 2}, "must be 3 or 4"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_model(**{"name": "auxloss", "num_findings": 1, "backbone": "densenet_tiny", **arguments})


def test_learned_weights_come_along_in_training_where_there_is_a_complete_study(make_batch):
    config = {"model": {"backbone": "densenet_tiny"}, "loss": {"learned_weights": "temperature", "pa_weight": 0.5}}
    model = build_configured(Config.model_validate(config), num_findings=3).train()
    assert model.loss_weights.now() == pytest.approx({"joint": 1, "pa": 0.5, "lateral": 0.3})
    assert model(make_batch("pb")).weights.pa.item() == pytest.approx(0.5)
    assert model(make_batch("pl")).weights is None  # DDP would wait for a gradient that does not come
    assert model.eval()(make_batch("bp")).weights is None
    others = dict(model.named_parameters())
    assert all(torch.equal(value, others[key]) for key, value in build(seed=0).named_parameters())
