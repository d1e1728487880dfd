"""Every member of the family keeps the contracts of routing, and has the parameters of the authors' networks."""

import typing

import pytest
import torch
import torch.nn.functional as F
import torchvision

from dualview.batch import StudyBatch
from dualview.config import OptimConfig
from dualview.config.sections import TorchvisionBackbone
from dualview.config.uses import NETWORKS
from dualview.losses import head_loss_sums
from dualview.models import build_model
from dualview.models.backbone import BACKBONES, OTHERS
from dualview.models.initial_weights import load_weights
from dualview.training.optim import build_optimizer

TWO_VIEWS = tuple(name for name, use in NETWORKS.items() if not use.needs_all_views)
TAKES = {**dict.fromkeys(TWO_VIEWS, "bpl"), "single": "bp", "stacked": "b"}  # availabilities, `single` seeing PA
MIXES = ("bbpl", "bpp", "lbpb", "ppp", "lll", "b", "p", "l")
MERGED_LATE = {"merge_after_block": 4}


def build(name, **kwargs):
    return build_model(name, **{"num_findings": 3, "backbone": "densenet_tiny", "seed": 0, **kwargs})


def fitting(name, kinds):
    return "".join(kind for kind in kinds if kind in TAKES[name])


def cases():
    """Every network with every mix that it takes; auxloss also merged behind its last block."""
    built = [*((name, {}) for name in NETWORKS), ("auxloss", MERGED_LATE)]
    return [
        pytest.param(name, changes, kinds, id="-".join([name, *map(str, changes.values()), kinds]))
        for name, changes in built
        for kinds in dict.fromkeys(fitting(name, mix) for mix in MIXES)
        if kinds
    ]


def asked_one_by_one(model, batch):
    """Logits (B, K): the network on each study alone."""
    answers = []
    for row in range(batch.num_studies):
        one = StudyBatch.from_views(
            pa=[batch.pa[batch.rows.pa == row][0] if batch.view_mask[row, 0] else None],
            lateral=[batch.lateral[batch.rows.lateral == row][0] if batch.view_mask[row, 1] else None],
        )
        answers.append(model(one).by_route(one)[0])
    return torch.stack(answers)


@pytest.mark.parametrize(
    ("name", "merge_after_block", "expected"),
    [
        ("auxloss", 3, 14_157_504),  # block 3 has 1024 channels too
        ("auxloss", 4, 14_157_504),
        ("dualnet", 4, 14_157_504 - 131_200),  # the authors' two branch classifiers, which never train
        ("hemis", 4, 12_899_392),
        ("stacked", 4, 7_016_320),
        ("single", 4, 7_013_184),
    ],
)
def test_parameters_are_those_of_the_authors_networks(name, merge_after_block, expected):
    """At 64 findings and one channel, counted on the authors' code."""
    model = build(name, num_findings=64, backbone="densenet121", merge_after_block=merge_after_block)
    assert model.num_parameters == expected


@pytest.mark.parametrize(("name", "changes", "kinds"), cases())
def test_c1_routed_equals_a_loop_over_studies(make_batch, name, changes, kinds):
    model = build(name, **changes).double().eval()
    batch = make_batch(kinds, dtype=torch.float64)
    with torch.no_grad():
        routed = model(batch).by_route(batch)
        torch.testing.assert_close(routed, asked_one_by_one(model, batch), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "changes", [{}, MERGED_LATE, {"backbone": "densenet121"}], ids=["", "merged late", "densenet121"]
)
@pytest.mark.parametrize("kinds", ["bbpl", "lbpb"])
def test_c1_holds_in_single_precision(make_batch, changes, kinds):
    model = build("auxloss", **changes).eval()
    batch = make_batch(kinds)
    with torch.no_grad():
        routed = model(batch).by_route(batch)
        torch.testing.assert_close(routed, asked_one_by_one(model, batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kinds", ["bpl", "ppp", "lbp"])
@pytest.mark.parametrize("name", TWO_VIEWS)
def test_c2_pixels_of_absent_views_do_not_matter(name, kinds):
    """The same studies with zeros and with NaN where no image is: everything is bit-equal."""
    view_mask = torch.tensor([[kind in "bp", kind in "bl"] for kind in kinds])
    images = torch.rand(len(kinds), 2, 1, 64, 64)
    results = []
    for absent in (0.0, float("nan")):
        filled = torch.where(view_mask[:, :, None, None, None], images, absent)
        batch = StudyBatch.from_dense(filled, view_mask=view_mask, labels=torch.ones(len(kinds), 3))
        model = build(name).train()
        predictions = model(batch)
        head_loss_sums(predictions, batch=batch).total.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append(({"logits": predictions.by_route(batch)}, gradients, dict(model.named_buffers())))
    for zeros, nans in zip(*results, strict=True):
        assert zeros.keys() == nans.keys()
        for key, value in zeros.items():
            assert value.isfinite().all()
            assert torch.equal(value, nans[key]), key


@pytest.mark.parametrize(("name", "changes", "kinds"), cases())
def test_c3_each_image_goes_through_its_branch_once(make_batch, name, changes, kinds):
    """Through the stem, and through the last block where the branch has one of its own."""
    model = build(name, **changes)
    seen = {}
    for part in ("pa", "lateral"):
        features = getattr(getattr(model, part, None), "features", None)
        for layer in ("conv0", "denseblock4"):
            if hasattr(features, layer):
                calls = seen[part, layer] = []
                getattr(features, layer).register_forward_hook(
                    lambda _module, inputs, _output, calls=calls: calls.append(inputs[0].shape[0])
                )
    if name == "auxloss":
        assert len(seen) == 4
    model(make_batch(kinds))
    for (part, _layer), calls in seen.items():
        present = sum(kind in {"pa": "bp", "lateral": "bl"}[part] for kind in kinds)
        assert calls == ([present] if present else [])


@pytest.mark.parametrize("optimizer_name", ["adamw", "adam"])
@pytest.mark.parametrize("name", TWO_VIEWS)
def test_c4_an_idle_branch_stays_still(make_batch, name, optimizer_name):
    """After a step that gave it momentum, a step without laterals leaves the branch bit-equal."""
    model = build(name).train()
    optimizer = build_optimizer(model, OptimConfig(name=optimizer_name, learning_rate=1e-2, weight_decay=0.1))

    def step(kinds):
        batch = make_batch(kinds)
        head_loss_sums(model(batch), batch=batch).total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def state_of(branch):
        moments = [optimizer.state[parameter]["exp_avg"] for parameter in branch.parameters()]
        return [value.clone() for value in (*branch.state_dict().values(), *moments)]

    step("bl")
    lateral, weights = state_of(model.lateral), [parameter.clone() for parameter in model.pa.parameters()]
    step("pp")
    assert all(map(torch.equal, state_of(model.lateral), lateral))
    assert not any(map(torch.equal, model.pa.parameters(), weights))


@pytest.mark.parametrize("name", tuple(NETWORKS))
def test_an_empty_batch_can_be_backpropagated(name):
    """A rank with an empty micro-batch must take part in the gradient exchange."""
    model = build(name).train()
    batch = StudyBatch.from_views(pa=[], lateral=[], labels=torch.zeros(0, 3), image_shape=(1, 64, 64))
    total = head_loss_sums(model(batch), batch=batch).total
    total.backward()
    assert total == 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", tuple(NETWORKS))
def test_every_parameter_is_trained_by_complete_studies(make_batch, name):
    model = build(name).train()
    batch = make_batch("bb")
    head_loss_sums(model(batch), batch=batch).total.backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


# -- what each computes ------------------------------------------------------------------------------


def test_dualnet_is_auxloss_joint_head_on_complete_studies(make_batch):
    """Same weights, both views: the same joint logits; one view: the joint head on zeros for the absent half."""
    auxloss, dualnet = build("auxloss", merge_after_block=4).eval(), build("dualnet", merge_after_block=4).eval()
    dualnet.load_state_dict({key: v for key, v in auxloss.state_dict().items() if key in dualnet.state_dict()})
    batch = make_batch("bp")
    ours, theirs = dualnet(batch), auxloss(batch)
    torch.testing.assert_close(ours.joint[:1], theirs.joint)
    half = F.relu(auxloss.pa.features(batch.pa[1:])).mean(dim=(2, 3))
    expected = dualnet.joint(torch.cat([half, torch.zeros_like(half)], dim=1))
    torch.testing.assert_close(ours.joint[1:], expected)


def test_hemis_takes_mean_and_unbiased_variance_over_the_views_that_exist(make_batch):
    model = build("hemis").eval()
    batch = make_batch("bpl")
    maps = [model.pa.features(batch.pa), model.lateral.features(batch.lateral)]
    stacked = torch.stack([maps[0][0], maps[1][0]])
    expected = [
        torch.cat([stacked.mean(dim=0), stacked.var(dim=0)]),
        torch.cat([maps[0][1], torch.zeros_like(maps[0][1])]),
        torch.cat([maps[1][1], torch.zeros_like(maps[1][1])]),
    ]
    torch.testing.assert_close(model(batch).joint, model.joint(torch.stack(expected)))


def test_single_is_one_torchvision_network_and_blind_to_the_other_view(make_batch):
    for view, index in (("pa", 0), ("lateral", 1)):
        model = build("single", view=view, backbone="densenet121").eval()
        theirs = torchvision.models.densenet121(num_classes=3)
        theirs.features.conv0 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        branch = getattr(model, view)
        theirs.features.load_state_dict(branch.features.state_dict())
        theirs.classifier.load_state_dict(branch.head.state_dict())
        batch = make_batch("bb")
        images = (batch.pa, batch.lateral)[index]
        torch.testing.assert_close(model(batch).by_route(batch), theirs.eval()(images), atol=1e-4, rtol=1e-4)


def test_stacked_sees_pa_as_the_first_channel(make_batch):
    model = build("stacked").eval()
    batch = make_batch("pb")
    expected = model.joint(torch.cat([batch.pa[1:], batch.lateral], dim=1)).logits
    predictions = model(batch)
    torch.testing.assert_close(predictions.joint, expected)
    assert len(predictions.pa) == len(predictions.lateral) == 0


def test_attention_without_the_absent_view_is_attention_over_the_present_tokens(make_batch):
    """Masked tokens are as if they were not there: the encoder on the tokens of the one view alone."""
    model = build("attention").double().train()  # in train mode, where torch's fused kernels are not used
    batch = make_batch("p", dtype=torch.float64)
    with torch.no_grad():
        tokens = model.pa(batch.pa)
        alone = torch.cat([model.joint.class_token.expand(1, 1, -1), tokens], dim=1)
        expected = model.joint.head(model.joint.encoder(alone)[:, 0])
        torch.testing.assert_close(model(batch).joint, expected, atol=1e-12, rtol=0)


# -- other backbones ---------------------------------------------------------------------------------


def test_the_configuration_knows_the_backbones_there_are():
    assert set(typing.get_args(TorchvisionBackbone)) == set(BACKBONES)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "efficientnet_b0", "swin_t"])
@pytest.mark.parametrize("name", ["auxloss", "attention", "single", "stacked", "dualnet"])
def test_other_backbones_train_every_branch(make_batch, name, backbone):
    model = build(name, backbone=backbone, merge_after_block=4).train()
    batch = make_batch("bb")
    head_loss_sums(model(batch), batch=batch).total.backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_tiny", "efficientnet_b0", "swin_t"])
def test_a_branch_is_torchvisions_feature_map_and_takes_its_weights(tmp_path, backbone):
    """A three-channel torchvision network on a gray image, and our branch with its weights."""
    theirs = torchvision.models.get_model(backbone, weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    model = build("single", backbone=backbone)
    load_weights(model, weights=str(tmp_path / "weights.pt"), backbone=backbone)
    model.eval()
    caught = []
    last = theirs.layer4 if backbone.startswith("resnet") else getattr(theirs, "permute", theirs.features)
    last.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        theirs(image.expand(1, 3, 64, 64))
        torch.testing.assert_close(model.pa.features(image), caught[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["hemis", "stacked", "dualnet", "attention", "auxloss"])
def test_backbone_weights_reach_every_branch_as_far_as_it_goes(tmp_path, name):
    theirs = torchvision.models.densenet121()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    model = build(name, backbone="densenet121")
    load_weights(model, weights=str(tmp_path / "weights.pt"), backbone="densenet121")
    for part in ("pa", "lateral") if name != "stacked" else ("joint",):
        features = getattr(model, part).features
        expected = theirs.features.denseblock2.denselayer1.conv1.weight
        assert torch.equal(features.denseblock2.denselayer1.conv1.weight, expected)
        summed = features.conv0.weight.sum(dim=1)
        torch.testing.assert_close(summed, theirs.features.conv0.weight.sum(dim=1), atol=1e-5, rtol=1e-4)


def test_hemis_needs_dense_blocks_and_so_does_merging_after_one():
    with pytest.raises(ValueError, match="hemis shares a dense block"):
        build("hemis", backbone="resnet18")
    with pytest.raises(ValueError, match="has no dense blocks; use 4"):
        build("auxloss", backbone="resnet18")
    with pytest.raises(ValueError, match="only DenseNets have it"):
        build("single", backbone=OTHERS[0], dropout=0.1)


# -- one backbone for both views ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_a_shared_backbone_is_counted_once_and_trained_by_either_view(make_batch, name):
    own = build(name).num_parameters
    model = build(name, shared_branch=True).train()
    backbone = sum(parameter.numel() for parameter in model.shared.parameters())
    embeddings = model.pa.embedding.numel() + model.lateral.embedding.numel()
    assert model.num_parameters == own - backbone + embeddings
    for kinds, silent in (("pp", "lateral."), ("ll", "pa.")):
        model.zero_grad(set_to_none=True)
        batch = make_batch(kinds)
        head_loss_sums(model(batch), batch=batch).total.backward()
        assert all(p.grad is not None for p in model.shared.parameters())
        assert all(p.grad is None for key, p in model.named_parameters() if key.startswith(silent))


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_a_shared_backbone_tells_the_views_apart_by_their_embedding_alone(make_batch, name):
    model = build(name, shared_branch=True).double().eval()
    for part in ("head", "to_token", "view"):
        if getattr(model.pa, part, None) is not None:  # equal but for the embedding of the backbone
            ours, theirs = getattr(model.lateral, part), getattr(model.pa, part)
            ours.data.copy_(theirs.data) if part == "view" else ours.load_state_dict(theirs.state_dict())
    if name == "dualnet":
        half = model.joint.in_features // 2
        model.joint.weight.data[:, half:] = model.joint.weight.data[:, :half]
    image = torch.rand(1, 64, 64, dtype=torch.float64)

    def logits(**views):
        batch = StudyBatch.from_views(**{"pa": [None], "lateral": [None], **views})
        return model(batch).by_route(batch)

    with torch.no_grad():
        assert not torch.allclose(logits(pa=[image]), logits(lateral=[image]), atol=1e-9)
        model.lateral.embedding.copy_(model.pa.embedding)
        torch.testing.assert_close(logits(pa=[image]), logits(lateral=[image]), atol=1e-12, rtol=0)


def test_networks_of_one_branch_have_nothing_to_share():
    with pytest.raises(ValueError, match="needs two branches"):
        build("single", shared_branch=True)
