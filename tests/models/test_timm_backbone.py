"""timm's networks: the maps are timm's own, every parameter learns, what cannot be used is refused with a reason."""

import pytest
import torch

from dualview.batch import StudyBatch
from dualview.errors import UserError
from dualview.models import build_model
from dualview.models.norm import PooledBatchNorm2d

timm = pytest.importorskip("timm", reason="timm is not installed (extra dualview[timm])")

SMALL = ["convnext_atto", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet10t", "efficientnet_b0",
         "vit_tiny_patch16_dinov3_qkvb" if timm.is_model("vit_tiny_patch16_dinov3_qkvb") else "eva02_tiny_patch14_224",
         "mobilenetv3_small_050"]  # fmt: skip


def single(name, *, size=112, **settings):
    return build_model("single", num_findings=2, backbone=f"timm:{name}", image_size_px=size, seed=0, **settings)


@pytest.mark.parametrize("name", SMALL)
def test_the_map_is_timms_and_every_parameter_learns(name):
    """The same weights in a network that timm made for 1 channel and this size; tokens as a map, row by row."""
    model = single(name)
    features = model.pa.features.timm
    try:
        theirs = timm.create_model(name, num_classes=0, in_chans=1, img_size=112)
    except TypeError:
        theirs = timm.create_model(name, num_classes=0, in_chans=1)
    missing = theirs.load_state_dict(features.network.state_dict(), strict=False).missing_keys
    assert all(key.startswith(("conv_head", "norm_head", "fc_norm", "head")) for key in missing)
    images = torch.randn(2, 1, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, expected = model.eval().pa.features(images), theirs.eval().forward_features(images)
    if expected.dim() == 3:
        patches = expected[:, theirs.num_prefix_tokens :]
        side = int(patches.shape[1] ** 0.5)
        for row in range(side):
            torch.testing.assert_close(ours[:, :, row].transpose(1, 2), patches[:, row * side : (row + 1) * side])
    else:
        channels_last = expected.shape[-1] == theirs.num_features
        torch.testing.assert_close(ours, expected.permute(0, 3, 1, 2) if channels_last else expected)

    batch = StudyBatch.from_views(pa=list(images), lateral=[None, None])
    model.train()(batch).by_route(batch).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_no_image_gives_a_graph_with_gradients_of_zero(name):
    """What `distributed.idle_branch: empty` needs, also of networks that cannot divide no rows into windows."""
    model = single(name, idle_branch="empty").train()
    model.pool_statistics()
    batch = StudyBatch.from_views(pa=[None], lateral=[torch.zeros(1, 112, 112)])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.pa(batch.pa).logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("norm", ["batch", "group", "frozen", "sync"])
def test_normalisation_goes_on_with_timms_activation(norm):
    """timm's BatchNormAct2d normalises, drops and activates: all four kinds of ours do too."""
    model = single("resnet10t", norm=norm, idle_branch="empty")
    norms = [layer for layer in model.modules() if isinstance(layer, timm.layers.BatchNormAct2d)]
    assert not norms
    efficient = single("efficientnet_b0", norm=norm, idle_branch="empty").eval()
    first = efficient.pa.features.timm.network.bn1
    outputs = first(torch.randn(2, first.weight.shape[0], 4, 4))
    assert isinstance(first.act, torch.nn.SiLU)
    assert outputs.min() >= -0.2785  # The least value of x sigmoid(x).
    assert norm != "batch" or isinstance(first, PooledBatchNorm2d)


@pytest.mark.parametrize("name", ["auxloss", "dualnet", "attention", "single", "stacked"])
@pytest.mark.parametrize("backbone", ["timm:convnext_atto", "timm:vit_tiny_patch16_224"])
def test_members_of_the_family_take_them(make_batch, name, backbone):
    model = build_model(name, num_findings=3, backbone=backbone, merge_after_block=4, image_size_px=64, seed=0)
    batch = make_batch("bb", size=64)
    assert model(batch).by_route(batch).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("convnext_ato", 64, "has no network convnext_ato; near it are convnext_atto"),
        ("levit_128s", 224, "BatchNorm1d keeps statistics that are not pooled over ranks"),
        ("vit_tiny_patch16_224", 65, "patches are of 16 px, and would not cover the image; give 64 or 80"),
        ("pit_ti_224", 224, "neither a map nor one token per patch"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(name, size, says):
    with pytest.raises(UserError, match=says):
        single(name, size=size)


def test_a_densenet_is_needed_where_dense_blocks_are_shared():
    with pytest.raises(ValueError, match="hemis shares a dense block"):
        build_model("hemis", num_findings=2, backbone="timm:densenet121")
    with pytest.raises(ValueError, match="has no dense blocks; use 4"):
        build_model("auxloss", num_findings=2, backbone="timm:resnet10t", image_size_px=64)
