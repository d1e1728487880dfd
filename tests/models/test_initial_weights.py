"""Initial weights from files, by torchvision's names or dualview's."""

import re

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from dualview.config import Config
from dualview.errors import UserError
from dualview.models import build_model
from dualview.models.build import build_configured
from dualview.models.initial_weights import InitialWeights
from dualview.models.loss_weights import LossWeights


def tiny(**kwargs):
    return build_model("auxloss", num_findings=3, backbone="densenet_tiny", **kwargs)


@pytest.fixture(scope="module")
def densenet121():
    """torchvision's own network: three channels, 1000 classes."""
    return torchvision.models.densenet121()


def test_a_torchvision_network_goes_into_both_branches_with_its_first_layer_summed(tmp_path, densenet121):
    """A gray image through the one-channel network equals the same image as RGB through torchvision's."""
    torch.save(densenet121.state_dict(), tmp_path / "w.pth")
    model = build_model("auxloss", num_findings=3, weights=str(tmp_path / "w.pth")).eval()
    gray = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected = densenet121.eval().features(gray.expand(1, 3, 64, 64))
        for branch in (model.pa, model.lateral):
            torch.testing.assert_close(branch.features(gray), expected, rtol=1e-4, atol=1e-5)


def test_the_names_of_old_torchvision_files_fit(tmp_path, densenet121):
    old = {
        re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", key): value
        for key, value in densenet121.state_dict().items()
    }
    assert any(".norm.1." in key for key in old)
    torch.save(old, tmp_path / "w.pth")
    model = build_model("auxloss", num_findings=3, weights=str(tmp_path / "w.pth"))
    weight = densenet121.features.denseblock2.denselayer3.conv2.weight
    assert torch.equal(model.pa.features.denseblock2.denselayer3.conv2.weight, weight)


def test_imagenet_weights_come_from_the_place_that_the_error_names(tmp_path, densenet121, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        build_model("auxloss", num_findings=3, weights="imagenet")
    place = tmp_path / "checkpoints" / "densenet121-a639ec97.pth"
    assert str(place) in str(caught.value)
    place.parent.mkdir(exist_ok=True)
    torch.save(densenet121.state_dict(), place)
    model = build_model("auxloss", num_findings=3, weights="imagenet")
    assert torch.equal(model.lateral.features.norm5.weight, densenet121.features.norm5.weight)


def no_network(*_args, **_kwargs):
    raise OSError("Name or service not known")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_dualview_network_goes_in_as_it_is(tmp_path, suffix):
    source = tiny(seed=1)
    path = tmp_path / f"w{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    model = tiny(seed=2, weights=str(path))
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_every_mismatch_is_named(tmp_path):
    state = tiny().state_dict()
    state["joint.weight"] = torch.zeros(7, 2)
    state["pa.features.extra"] = torch.zeros(1)
    del state["lateral.head.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as caught:
        tiny(weights=str(tmp_path / "w.safetensors"))
    for part in (
        "joint.weight: (7, 2) in the file, (3, ",
        "pa.features.extra: in the file",
        "lateral.head.bias: missing",
    ):
        assert part in str(caught.value), part


def test_files_that_are_no_state_dict_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(UserError, match="not a plain state dict of tensors"):
        tiny(weights=str(path))
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="must hold a state dict"):
        tiny(weights=str(path))
    path.write_bytes(b"not a file of torch")
    with pytest.raises(UserError, match=r"w\.pt"):
        tiny(weights=str(path))
    broken = tmp_path / "w.safetensors"
    broken.write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        tiny(weights=str(broken))
    with pytest.raises(UserError, match="no such file"):
        tiny(weights=str(tmp_path / "none.pt"))


@pytest.mark.parametrize("by", ["package", "file"])
def test_torchxrayvision_weights_give_on_our_images_what_they_give_on_theirs(tmp_path, monkeypatch, by):
    """Theirs are scaled to [-1024, 1024]; the package loads a local file here instead of fetching one."""
    xrv = pytest.importorskip("torchxrayvision")
    theirs = xrv.models.DenseNet(num_classes=18)
    if by == "package":
        torch.save(theirs, tmp_path / "whole.pt")
        monkeypatch.setattr(xrv.models, "get_weights", lambda *_: str(tmp_path / "whole.pt"))
        name = "densenet121-res224-all"
    else:
        torch.save(theirs.state_dict(), tmp_path / "weights.pt")
        name = str(tmp_path / "weights.pt")
    model = build_model("auxloss", num_findings=3, weights=f"xrv:{name}").eval()
    images = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = theirs.eval().features(images * 1024)
        for branch in (model.pa, model.lateral):
            torch.testing.assert_close(branch.features(images), expected, atol=1e-3, rtol=1e-3)


def test_torchxrayvision_weights_that_are_not_there_are_named():
    pytest.importorskip("torchxrayvision")
    with pytest.raises(UserError, match="xrv:densenet999 cannot be had"):
        build_model("auxloss", num_findings=3, weights="xrv:densenet999")


def test_learned_weights_of_the_loss_stay_with_the_run_that_learned_them(tmp_path):
    """A file with them fits a network without, and a network with them begins where its configuration says."""
    model = tiny(seed=1)
    model.loss = LossWeights("uncertainty", pa=0.9)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    config = {"model": {"backbone": "densenet_tiny"}, "loss": {"learned_weights": "uncertainty"}}
    started = build_configured(
        Config.model_validate(config), num_findings=3, weights=InitialWeights(of_all=str(tmp_path / "w.safetensors"))
    )
    for network in (tiny(weights=str(tmp_path / "w.safetensors")), started):
        assert torch.equal(network.joint.weight, model.joint.weight)
    assert started.loss.now() == pytest.approx({"joint": 1, "pa": 0.3, "lateral": 0.3})
