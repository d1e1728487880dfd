"""Weights of others: on our images in [-1, 1] they give what they gave on theirs, wherever they are from.

The files are made here, with random weights, in the layouts of torchvision, timm, transformers and the hub.
"""

import json
import logging

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from dualview.config import Config, ModelConfig
from dualview.errors import UserError
from dualview.models import build_model
from dualview.models.build import build_configured
from dualview.models.initial_weights import InitialWeights, configured_weights, load_weights
from tests.support.runs import write_untrained_run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRAY = torch.rand(2, 1, 70, 70, generator=torch.Generator().manual_seed(5))  # in [0, 1]


def normalised(gray, mean=MEAN, std=STD):
    """Colour images as torchvision's networks take them."""
    return (gray.expand(-1, 3, -1, -1) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def with_statistics(network, images):
    """A network in evaluation mode whose batch statistics are those of real images."""
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(images)
    return network.eval()


@pytest.mark.parametrize("backbone", ["densenet121", "resnet18", "convnext_tiny", "swin_t"])
def test_imagenet_weights_meet_images_as_they_know_them(monkeypatch, backbone):
    """torchvision's network on normalised colours, ours on gray in [-1, 1]: equal to the last row of a padded map."""
    theirs = with_statistics(torchvision.models.get_model(backbone, weights=None), normalised(GRAY))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_args, **_kwargs: theirs.state_dict())
    ours = build_model("single", num_findings=2, backbone=backbone, weights="imagenet").eval()
    caught = []
    last = theirs.layer4 if backbone.startswith("resnet") else getattr(theirs, "permute", theirs.features)
    last.register_forward_hook(lambda _module, _inputs, output: caught.append(output.clone()))
    with torch.no_grad():
        theirs(normalised(GRAY))
        torch.testing.assert_close(ours.pa.features(2 * GRAY - 1), caught[0], rtol=1e-4, atol=1e-4)
    assert ours.weight_sources[0].licence.startswith("BSD-3-Clause")


def test_what_was_folded_in_travels_in_a_checkpoint(tmp_path):
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    source = build_model("single", num_findings=2, backbone="resnet18")
    load_weights(source, weights=str(tmp_path / "w.pt"), backbone="resnet18", mean=MEAN, std=STD)
    copy = build_model("single", num_findings=2, backbone="resnet18")
    assert "pa.features.conv1.shift" not in copy.state_dict()
    copy.load_state_dict(source.state_dict())
    with torch.no_grad():
        assert torch.equal(copy.eval().pa.features(GRAY), source.eval().pa.features(GRAY))
    copy.load_state_dict(build_model("single", num_findings=2, backbone="resnet18").state_dict())
    assert copy.pa.features.conv1.shift is None


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.25]), (list(MEAN), list(STD))])
def test_a_mean_of_ones_own_is_folded_in(tmp_path, mean, std):
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    config = Config.model_validate({"model": {
        "name": "single", "backbone": "resnet18", "weights": str(tmp_path / "w.pt"), "weights_mean": mean,
        "weights_std": std,
    }})  # fmt: skip
    weights = configured_weights(config.model, findings=("A", "B"))
    ours = build_configured(config, num_findings=2, weights=weights).eval()
    z = normalised(GRAY, mean=mean, std=std)
    with torch.no_grad():
        expected = torch.nn.Sequential(*list(theirs.children())[:-2])(z)
        torch.testing.assert_close(ours.pa.features(2 * GRAY - 1), expected, rtol=1e-4, atol=1e-5)


def test_a_mean_that_does_not_fit_the_channels_is_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pt")
    model = build_model("single", num_findings=2, backbone="resnet18")
    with pytest.raises(UserError, match="do not belong to its 3 channels"):
        load_weights(model, weights=str(tmp_path / "w.pt"), backbone="resnet18", mean=(0.5, 0.5), std=(0.2, 0.2))


# -- timm, transformers, the hub -----------------------------------------------------------------------


def timm():
    return pytest.importorskip("timm", reason="timm is not installed (extra dualview[timm])")


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_files_of_timm_with_the_mean_that_timm_knows(tmp_path, name, caplog):
    images = torch.rand(2, 1, 224, 224)
    theirs = timm().create_model(name)
    mean, std = theirs.pretrained_cfg["mean"], theirs.pretrained_cfg["std"]
    theirs = with_statistics(theirs, normalised(images, mean, std))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    with caplog.at_level(logging.INFO):
        ours = build_model(
            "single", num_findings=2, backbone=f"timm:{name}", weights=str(tmp_path / "model.safetensors")
        )
    assert "taken as trained with timm's mean" in caplog.text
    assert "the heads start anew" in caplog.text
    with torch.no_grad():
        expected = theirs.forward_features(normalised(images, mean, std))
        if expected.dim() == 3:
            expected = expected[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
        torch.testing.assert_close(ours.eval().pa.features(2 * images - 1), expected, rtol=1e-3, atol=1e-4)


def test_positions_are_interpolated_by_timm_for_another_image_size(tmp_path):
    theirs = timm().create_model("vit_tiny_patch16_224")
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = build_model(
        "single", num_findings=2, backbone="timm:vit_tiny_patch16_224", image_size_px=96,
        weights=str(tmp_path / "w.safetensors"),
    )  # fmt: skip
    positions = ours.pa.features.timm.network.pos_embed
    assert positions.shape == (1, 1 + 36, 192)
    assert torch.equal(positions[:, 0], theirs.pos_embed[:, 0])
    expected = timm().layers.resample_abs_pos_embed(theirs.pos_embed, [6, 6])
    torch.testing.assert_close(positions, expected)


def dinov2_of_transformers(theirs, *, depth=12):
    """The weights of timm's network under the names of transformers' `Dinov2Model`, by hand."""
    state, ours = theirs.state_dict(), {}
    ours["embeddings.cls_token"], ours["embeddings.position_embeddings"] = state["cls_token"], state["pos_embed"]
    ours["embeddings.mask_token"] = torch.zeros(1, 384)
    for kind in ("weight", "bias"):
        ours[f"embeddings.patch_embeddings.projection.{kind}"] = state[f"patch_embed.proj.{kind}"]
        ours[f"layernorm.{kind}"] = state[f"norm.{kind}"]
        for block in range(depth):
            at, of = f"encoder.layer.{block}", f"blocks.{block}"
            query, key, value = state[f"{of}.attn.qkv.{kind}"].chunk(3)
            ours[f"{at}.attention.attention.query.{kind}"] = query.clone()
            ours[f"{at}.attention.attention.key.{kind}"] = key.clone()
            ours[f"{at}.attention.attention.value.{kind}"] = value.clone()
            ours[f"{at}.attention.output.dense.{kind}"] = state[f"{of}.attn.proj.{kind}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                ours[f"{at}.{name}.{kind}"] = state[f"{of}.{name}.{kind}"]
    for block in range(depth):
        for number in (1, 2):
            ours[f"encoder.layer.{block}.layer_scale{number}.lambda1"] = state[f"blocks.{block}.ls{number}.gamma"]
    return ours


def in_a_hub(folder, state, *, mean=(0.5307,) * 3, std=(0.2583,) * 3, **config):
    """A snapshot as huggingface_hub keeps it; RAD-DINO's mean and standard deviation. Gives the cache's folder."""
    snapshot = folder / "models--org--dino" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (folder / "models--org--dino" / "refs").mkdir()
    (folder / "models--org--dino" / "refs" / "main").write_text("0123abcd")
    save_file(state, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"model_type": "dinov2", **config}))
    (snapshot / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    return snapshot


def test_a_dinov2_of_transformers_as_rad_dino_from_the_cache_of_the_hub(tmp_path, monkeypatch):
    """Also with the folder itself, and the file in it. What transformers' own network gives was compared once."""
    theirs = timm().create_model("vit_small_patch14_dinov2", img_size=70, num_classes=0).eval()
    snapshot = in_a_hub(tmp_path, dinov2_of_transformers(theirs), license="mit")
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with torch.no_grad():
        expected = theirs.forward_features(normalised(GRAY, (0.5307,) * 3, (0.2583,) * 3))[:, 1:]
    for weights in ("hf:org/dino", "hf:org/dino@main", str(snapshot), str(snapshot / "model.safetensors")):
        ours = build_model(
            "single", num_findings=2, backbone="timm:vit_small_patch14_dinov2", image_size_px=70, weights=weights
        ).eval()  # fmt: skip
        with torch.no_grad():
            tokens = ours.pa.features(2 * GRAY - 1).flatten(2).transpose(1, 2)
        torch.testing.assert_close(tokens, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="hf:org/other cannot be had"):
        load_weights(ours, weights="hf:org/other", backbone="timm:vit_small_patch14_dinov2")


def test_weights_of_timm_that_are_not_there_are_named(monkeypatch):
    def no_network(*_args, **_kwargs):
        raise OSError("Name or service not known")

    backbone = "timm:resnet10t"
    model = build_model("single", num_findings=2, backbone=backbone, image_size_px=64)
    monkeypatch.setattr(timm(), "create_model", no_network)
    with pytest.raises(UserError, match=r"name one of resnet10t\.c3_in1k|cannot be had"):
        load_weights(model, weights="timm", backbone=backbone)
    with pytest.raises(UserError, match=r"model\.weights timm is for model.backbone timm:NAME"):
        load_weights(model, weights="timm", backbone="resnet18")
    with pytest.raises(UserError, match=r"torchvision has none for model\.backbone timm:resnet10t; use timm"):
        load_weights(model, weights="imagenet", backbone=backbone)


# -- views of their own, and runs ----------------------------------------------------------------------


def test_each_view_can_have_its_own(tmp_path):
    networks = [torchvision.models.resnet18() for _ in range(3)]
    for number, network in enumerate(networks):
        torch.save(network.state_dict(), tmp_path / f"{number}.pt")
    model = build_model("auxloss", num_findings=2, backbone="resnet18", merge_after_block=4)
    InitialWeights(of_all=str(tmp_path / "0.pt"), of_lateral=str(tmp_path / "1.pt")).load(model, backbone="resnet18")
    assert torch.equal(model.pa.features.layer2[0].conv1.weight, networks[0].layer2[0].conv1.weight)
    assert torch.equal(model.lateral.features.layer2[0].conv1.weight, networks[1].layer2[0].conv1.weight)
    before = model.pa.features.layer1[0].conv1.weight.clone()
    sources = InitialWeights(of_lateral=str(tmp_path / "2.pt")).load(model, backbone="resnet18")
    assert torch.equal(model.pa.features.layer1[0].conv1.weight, before)
    assert torch.equal(model.lateral.features.layer1[0].conv1.weight, networks[2].layer1[0].conv1.weight)
    assert [(source.parts, source.source) for source in sources] == [("lateral", "2.pt")]


@pytest.mark.parametrize("of_lateral", ["backbone.pt", "network.pt"])
def test_weights_made_for_our_images_replace_some_with_a_mean(tmp_path, of_lateral):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "backbone.pt")
    other = build_model("auxloss", num_findings=2, backbone="resnet18", merge_after_block=4, seed=7)
    torch.save(other.state_dict(), tmp_path / "network.pt")
    model = build_model("auxloss", num_findings=2, backbone="resnet18", merge_after_block=4)
    load_weights(model, weights=str(tmp_path / "backbone.pt"), backbone="resnet18", mean=MEAN, std=STD)
    InitialWeights(of_lateral=str(tmp_path / of_lateral)).load(model, backbone="resnet18")
    assert model.pa.features.conv1.shift is not None
    assert model.lateral.features.conv1.shift is None


def test_a_mean_for_a_network_of_ours_is_refused(tmp_path):
    model = build_model("auxloss", num_findings=2, backbone="densenet_tiny")
    torch.save(model.state_dict(), tmp_path / "network.pt")
    with pytest.raises(UserError, match=r"model.weights_mean is given, and network.pt holds a network of dualview"):
        InitialWeights(of_all=str(tmp_path / "network.pt"), mean=[0.5], std=[0.25]).load(
            model, backbone="densenet_tiny"
        )


@pytest.mark.parametrize("findings", [("Cardiomegaly", "Effusion", "Nodule"), ("Edema", "Fracture", "Mass")])
def test_a_run_gives_its_branches_and_its_heads_where_the_findings_are_its_own(tmp_path, findings):
    run = write_untrained_run(tmp_path / "run", "auxloss", findings=("Cardiomegaly", "Effusion", "Nodule"))
    best = run / "checkpoints" / "best"
    model = build_model("auxloss", num_findings=3, backbone="densenet_tiny", seed=9)
    heads = {key: value.clone() for key, value in model.state_dict().items() if "head" in key or "joint" in key}
    InitialWeights(of_all=str(run), findings=findings).load(model, backbone="densenet_tiny")
    theirs = load_file(best / "model.safetensors")
    is_same = findings == ("Cardiomegaly", "Effusion", "Nodule")
    for key, value in model.state_dict().items():
        expected = theirs[key] if is_same or key not in heads else heads[key]
        assert torch.equal(value, expected), key


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights_mean": [0.5]}, "weights_mean and weights_std belong together"),
        ({"name": "single", "weights_pa": "w.pt"}, "weights_pa need two branches"),
        ({"shared_branch": True, "weights_lateral": "w.pt"}, "weights_lateral need two branches"),
        ({"freeze": "backbone"}, "random layers would stay random"),
        ({"freeze": "backbone", "weights_pa": "w.pt"}, "weights_lateral is null"),
        ({"weights_mean": [0.5], "weights_std": [0.5]}, "and weights is null"),
        ({"freeze_steps": 10}, "freeze is none: leave it out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        ModelConfig(**settings)
