"""Grad-CAM by view: against sums written out by hand, and on every network of the family."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dualview.batch import StudyBatch
from dualview.commands.train import train
from dualview.config import Config
from dualview.data.load import load_data
from dualview.data.sources import phantom
from dualview.models import build_model
from dualview.report.gradcam import heat_maps
from dualview.report.pictures import heat_picture, most_confident
from dualview.report.record import read_records
from dualview.run.directory import RunDir
from dualview.run.trained import load_trained
from dualview.views import View

FINDING = 1


def network(name="auxloss", **settings):
    """In eval mode, with statistics and embeddings that are not those of the start."""
    model = build_model(name, num_findings=3, **{"backbone": "densenet_tiny", "seed": 0, **settings})
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.3 * torch.rand_like(parameter)
    return model.eval()


def images():
    return torch.rand(1, 64, 64) * 2 - 1, torch.rand(1, 64, 64) * 2 - 1


def at_merge_point(branch, image):
    """The feature map where the views meet (1, D, h, w), with the embedding that a shared backbone needs."""
    feature_map = branch.backbone.layers[: branch.backbone.merges_at](image[None])
    return feature_map if branch.embedding is None else feature_map + branch.embedding[:, None, None]


def by_hand(feature_map, gradient):
    """Channels weighted by their mean gradient, summed, positive part: (D, h, w) twice to (h, w)."""
    return F.relu((feature_map * gradient.mean(dim=(1, 2), keepdim=True)).sum(dim=0))


@pytest.mark.parametrize("merge_after_block", [3, 4])
@pytest.mark.parametrize("shared_branch", [False, True])
def test_complete_studies_are_explained_by_the_joint_heads_weights(merge_after_block, shared_branch):
    """The joint logit is linear in the pooled maps, so the gradient at each of h w positions is weight / (h w)."""
    model = network(merge_after_block=merge_after_block, shared_branch=shared_branch)
    views = images()
    channels = [model.pa.backbone.merge_channels, model.lateral.backbone.merge_channels]
    strongest = []
    for finding, view in product(range(3), View):
        heat = heat_maps(model, views, finding=finding)[view]
        branch = (model.pa, model.lateral)[view]
        at_merge = F.relu(at_merge_point(branch, views[view]))[0]
        weights = model.joint.weight[finding].split(channels)[view]
        gradient = weights[:, None, None].expand_as(at_merge) / at_merge[0].numel()
        torch.testing.assert_close(heat, by_hand(at_merge, gradient), rtol=1e-4, atol=1e-7)
        strongest.append(float(heat.max()))
    assert max(strongest) > 0


@pytest.mark.parametrize("shared_branch", [False, True])
def test_one_view_is_explained_by_its_own_head_and_the_other_has_no_map(shared_branch):
    model = network(shared_branch=shared_branch)
    pa, lateral = images()
    for views, view in (((pa, None), View.PA), ((None, lateral), View.LATERAL)):
        maps = heat_maps(model, views, finding=FINDING)
        branch = model.pa if view == View.PA else model.lateral
        assert maps[1 - view] is None
        at_merge = at_merge_point(branch, views[view])
        at_end = F.relu(branch.backbone.layers[branch.backbone.merges_at :](at_merge))[0]
        gradient = branch.head.weight[FINDING][:, None, None].expand_as(at_end) / at_end[0].numel()
        torch.testing.assert_close(maps[view], by_hand(at_end, gradient), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dualnet", {"merge_after_block": 4}),
        ("hemis", {}),
        ("attention", {}),
        ("attention", {"shared_branch": True}),
        ("hemis", {"shared_branch": True}),
        ("auxloss", {"backbone": "resnet18", "merge_after_block": 4}),
        ("auxloss", {"backbone": "swin_t", "merge_after_block": 4}),
        ("dualnet", {"backbone": "efficientnet_b0", "merge_after_block": 4}),
    ],
)
def test_every_network_has_maps_and_is_left_as_it_was(name, settings):
    model = network(name, **settings)
    before = copy.deepcopy(model.state_dict())
    pa, lateral = images()
    batch = StudyBatch.from_views(pa=[pa], lateral=[lateral])
    with torch.no_grad():
        logits = model(batch).by_route(batch)
    for views in ((pa, lateral), (pa, None), (None, lateral)):
        maps = heat_maps(model, views, finding=FINDING)
        assert [heat is not None for heat in maps] == [image is not None for image in views]
        for heat in maps:
            assert heat is None or (heat.dim() == 2 and torch.isfinite(heat).all() and (heat >= 0).all())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        assert torch.equal(model(batch).by_route(batch), logits)


@pytest.mark.slow
def test_the_map_of_a_nodule_is_where_the_nodule_is(tmp_path, monkeypatch):
    """Of a phantom's PA image, whose nodule is the one circle drawn; by chance 28 % of maxima would be as near."""
    config = Config.model_validate(
        {
            "run": {"dir": tmp_path / "run", "device": "cpu"},
            "data": {"image_size_px": 64, "num_workers": 0, "phantom": {"num_studies": 1000}},
            "model": {"backbone": "densenet_tiny"},
            "optim": {"learning_rate": 3e-3, "warmup_steps": 20},
            "train": {"max_steps": 400, "eval_every_steps": 200},
            "tracking": {"wandb": "disabled"},
        }
    )
    train(config)
    trained = load_trained(RunDir(tmp_path / "run"), name="last")
    data = load_data(config.data, seed=config.data_seed)
    circles = []
    ellipse = phantom._Canvas.ellipse

    def remembered(canvas, x, y, *, rx, ry, edge=0.12):
        if rx == ry:
            circles.append((float(x), float(y)))
        return ellipse(canvas, x, y, rx=rx, ry=ry, edge=edge)

    monkeypatch.setattr(phantom._Canvas, "ellipse", remembered)
    with_nodule = np.flatnonzero((data.test.labels[:, 0] > 0.5) & data.test.view_mask[:, View.PA])[:40]
    distances = []
    for row in with_nodule:
        circles.clear()
        heat = heat_maps(trained.model, (data.read(data.test.images[View.PA][row][0]), None), finding=0)[View.PA]
        y, x = divmod(int(heat.argmax()), heat.shape[1])
        place = (np.array([x, y]) + 0.5) / np.array([heat.shape[1], heat.shape[0]])
        distances.append(np.linalg.norm(place - circles[0]))
    assert np.mean(np.array(distances) < 0.3) > 0.6


def test_hemis_map_is_the_gradient_weighted_sum():
    """By autograd on the branch's output, which enters mean and variance."""
    model = network("hemis")
    views = images()
    kept = []
    hook = model.pa.register_forward_hook(lambda _, __, output: kept.append(output))
    batch = StudyBatch.from_views(pa=[views[0]], lateral=[views[1]])
    logit = model(batch).by_route(batch)[0, FINDING]
    hook.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    expected = by_hand(kept[0][0].detach(), gradient[0])
    torch.testing.assert_close(heat_maps(model, views, finding=FINDING)[View.PA], expected, rtol=1e-4, atol=1e-7)


def test_networks_of_one_branch():
    pa, lateral = images()
    maps = heat_maps(network("single", view="lateral"), (pa, lateral), finding=FINDING)
    assert maps[View.PA] is None and maps[View.LATERAL] is not None
    assert heat_maps(network("single", view="lateral"), (pa, None), finding=FINDING) == (None, None)
    stacked = network("stacked")
    maps = heat_maps(stacked, (pa, lateral), finding=FINDING)
    assert torch.equal(maps[View.PA], maps[View.LATERAL])
    assert heat_maps(stacked, (pa, None), finding=FINDING) == (None, None)


def test_no_evidence_is_clear_and_the_most_is_opaque():
    pixels = np.asarray(heat_picture(np.array([[0.0, 1.0]])))
    assert pixels[0, 0, 3] == 0
    assert pixels[0, 1, 3] > 150


def test_right_and_wrong_answers_are_chosen_by_their_distance_from_the_threshold(made_up_run):
    record = read_records([made_up_run])[0]
    rows = most_confident(record, k=0, number=4)
    assert len(rows) == len(set(rows)) == 8
    positive = record.predictions.labels[rows, 0] > 0.5
    thresholds = np.array([record.points.routes[route]["Nodule"].threshold for route in record.points.routes])
    called = record.probabilities("route")[rows, 0] >= thresholds[record.predictions.availability[rows]]
    assert (called == positive).tolist() == [True] * 4 + [False] * 4
    assert positive.tolist() == [True, True, False, False] * 2
