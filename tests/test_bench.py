"""The routing bench: what it times really is the same computation, and its ratios are those of its seconds."""

import json

import pytest
import torch
from typer.testing import CliRunner

from dualview.bench.routing import _HandWrittenAuxLoss
from dualview.cli import app
from dualview.models import build_model


def test_the_hand_written_network_computes_what_the_routed_one_computes(make_batch):
    """Same weights, eval mode: a study with both views gets the same logits from every head."""
    by_hand = _HandWrittenAuxLoss().eval()
    routed = build_model("auxloss", num_findings=14).eval()
    for view in ("pa", "lateral"):
        theirs, ours = getattr(by_hand, view), getattr(routed, view)
        features = {**dict(theirs.stem.named_children()), **dict(theirs.tail.named_children())}
        ours.features.load_state_dict(_state(features))
        ours.head.load_state_dict(theirs.classifier.state_dict())
    routed.joint.load_state_dict(by_hand.joint.state_dict())
    batch = make_batch("bb", num_findings=14)
    with torch.no_grad():
        for ours, theirs in zip(routed(batch), by_hand(batch.pa, batch.lateral), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def _state(layers):
    return {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}


def test_json_is_one_object_whose_ratios_follow_from_its_seconds():
    result = CliRunner().invoke(app, ["bench", "routing", "--json", "--rounds", "1", "--image-size-px", "64"])
    assert result.exit_code == 0, result.output
    bench = json.loads(result.output)
    seconds = bench["seconds_per_step"]
    assert bench["speedup_over_zero_image"] == pytest.approx(seconds["zero_image"] / seconds["routed"])
    assert bench["speedup_over_loop"] == pytest.approx(seconds["loop"] / seconds["routed"])
    assert bench["fraction_of_plain"] == pytest.approx((12 / seconds["routed"]) / (8 / seconds["plain"]))
    assert bench["images_per_step"]["routed"] == 4 * 2 + 3 + 1
