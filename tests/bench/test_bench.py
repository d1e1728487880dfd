"""The routing bench times the same computation thrice; the schedule bench counts what a slow loop counts."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dualview.bench import data, schedule
from dualview.bench.routing import _HandWrittenAuxLoss
from dualview.cli import app
from dualview.data.epoch_plan import plan_epoch
from dualview.models import build_model
from dualview.views import Availability


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
        for ours, theirs in zip(
            routed(batch)[:3], by_hand(batch.pa, batch.lateral, rows=batch.rows.by_head)[:3], strict=True
        ):
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


def bench_schedule(*arguments: str):
    result = CliRunner().invoke(app, ["bench", "schedule", "--json", *arguments])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    return {(row["ranks"], row["order"]): row for row in rows}


def test_the_schedule_bench_counts_what_a_loop_over_micro_batches_counts():
    availability = schedule.studies_of_mix((0.5, 0.3, 0.2), num_studies=137)
    for row in schedule.measure(availability=availability, ranks=[3], micro_batch_size=4, seed=5):
        plan = plan_epoch(availability, seed=5, epoch=0, micro_batch_size=4, micro_batches_per_group=3, order=row.order)
        stragglers, idle = [], 0
        for step in range(plan.num_groups):
            images = []
            for rank in range(3):
                kinds = availability[plan.micro_batch(step, number=rank)]
                images.append(sum(2 if kind == Availability.BOTH else 1 for kind in kinds))
                idle += not any(kind != Availability.PA_ONLY for kind in kinds)
            stragglers.append(max(images) / np.mean(images))
        assert row.straggler == pytest.approx(np.mean(stragglers))
        assert row.idle_lateral == pytest.approx(idle / (3 * plan.num_groups))


def test_balanced_ranks_do_equal_work_where_shuffled_ones_wait():
    """To reach: at most 1.01, and 1.00 in every full step, against 1.33 at R = 1,024 with 50/49/1."""
    rows = bench_schedule("--mix", "50/49/1", "--ranks", "8", "1024")
    for ranks in (8, 1024):
        assert rows[ranks, "view_balanced"]["straggler"] <= 1.01
        assert rows[ranks, "view_balanced"]["straggler_full_steps"] == 1
    assert rows[1024, "shuffled"]["straggler"] == pytest.approx(1.33, abs=0.01)
    # at 51 % of studies with a lateral, 8 of 8 studies have none with probability 0.49 ** 8
    assert rows[1024, "shuffled"]["idle_lateral"] == pytest.approx(0.49**8, rel=0.1)


@pytest.mark.parametrize("mix", ["50/49", "a/b/c", "-1/50/51", "0/0/0", "nan/1/1"])
def test_a_mix_that_is_none_is_refused(mix):
    result = CliRunner().invoke(app, ["bench", "schedule", f"--mix={mix}"])
    assert result.exit_code == 1
    assert "shares of both/PA only/lateral only, such as 50/49/1" in " ".join(result.output.split())


def test_no_rank_at_all_is_refused():
    result = CliRunner().invoke(app, ["bench", "schedule", "--ranks", "8", "0"])
    assert result.exit_code == 1
    assert "--ranks has 0; each number of ranks is at least 1" in " ".join(result.output.split())


def test_data_bench_measures_every_way_on_the_same_files(monkeypatch):
    monkeypatch.setattr(data, "measure", partial(data.measure, num_studies=32, steps=2))
    command = ["bench", "data", "--json", "--rounds", "1", "--image-size-px", "64", "--file-size-px", "128"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    speeds = ("store_plain", "store_augmented", "files_plain", "torchxrayvision", "augment_on_device")
    assert all(found[name] is None or found[name] > 0 for name in speeds)
    assert found["store_augmented_against_files"] == found["store_augmented"] / found["files_plain"]
    assert found["store_plain"] > found["files_plain"]
    assert 0 <= found["wait_fraction"] < 1
