"""That the network is torchvision's, and what its heads compute; its contracts are the family's, test_family.py."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from dualview.config import Config
from dualview.losses import head_loss_sums
from dualview.models import build_model
from dualview.models.build import build_configured
from dualview.models.norm import PooledBatchNorm2d


def build(**kwargs):
    return build_model("auxloss", **{"num_findings": 3, "backbone": "densenet_tiny", "seed": 0, **kwargs})


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
