"""The epoch plan: every study once, balanced mixes, and no dependence on anything but its arguments."""

import subprocess
import sys

import numpy as np
import pytest

from dualview.config import ViewDropoutConfig
from dualview.data.epoch_plan import num_groups, plan_epoch
from dualview.data.view_dropout import drop_views, view_hidden_in
from dualview.training.curriculum import head_trained_alone
from dualview.views import Availability, View


def studies_with(both: int, pa_only: int, lateral_only: int) -> np.ndarray:
    kinds = np.repeat([kind.value for kind in Availability], [both, pa_only, lateral_only]).astype(np.int8)
    return np.random.default_rng(0).permutation(kinds)


COUNTS = [(50, 30, 20), (7, 1, 1), (0, 0, 9), (3, 0, 0), (100, 98, 2), (1, 1, 997), (0, 0, 1), (33, 33, 34)]


@pytest.mark.parametrize("order", ["view_balanced", "shuffled"])
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("size", "per_group"), [(8, 1), (8, 2), (4, 3), (1, 1), (8, 64)])
def test_every_study_comes_exactly_once(order, counts, size, per_group):
    availability = studies_with(*counts)
    plan = plan_epoch(
        availability, seed=1, epoch=2, micro_batch_size=size, micro_batches_per_group=per_group, order=order
    )
    micro_batches = [plan.micro_batch(g, number=m) for g in range(plan.num_groups) for m in range(per_group)]
    assert sorted(np.concatenate(micro_batches)) == list(range(len(availability)))
    assert max(map(len, micro_batches)) <= size
    assert plan.num_groups == num_groups(sum(counts), micro_batch_size=size, micro_batches_per_group=per_group)


@pytest.mark.parametrize("counts", COUNTS)
def test_all_micro_batches_of_a_full_group_have_the_same_mix(counts):
    availability = studies_with(*counts)
    plan = plan_epoch(availability, seed=0, epoch=0, micro_batch_size=8, micro_batches_per_group=4)
    for group in range(plan.num_groups - 2):  # the last two hold what does not divide evenly
        mixes = [np.bincount(availability[plan.micro_batch(group, number=n)], minlength=3) for n in range(4)]
        assert all((mix == mixes[0]).all() for mix in mixes)
        assert mixes[0].sum() == 8


def test_the_mix_follows_the_data_set_within_one_study():
    availability = studies_with(500, 490, 10)
    plan = plan_epoch(availability, seed=0, epoch=0, micro_batch_size=8, micro_batches_per_group=1)
    seen = np.zeros(3)
    for group in range(plan.num_groups - 2):
        seen += np.bincount(availability[plan.micro_batch(group, number=0)], minlength=3)
        assert np.abs(seen - np.array([0.50, 0.49, 0.01]) * 8 * (group + 1)).max() < 2


def test_ranks_times_accumulation_is_all_that_counts():
    """Rank r of R takes micro-batch a * R + r: 4 x 1, 2 x 2 and 1 x 4 visit the same micro-batches."""
    plan = plan_epoch(studies_with(40, 25, 15), seed=3, epoch=1, micro_batch_size=4, micro_batches_per_group=4)

    def visited(ranks: int) -> list[list[int]]:
        accumulation = 4 // ranks
        numbers = [a * ranks + r for a in range(accumulation) for r in range(ranks)]
        return [sorted(plan.micro_batch(g, number=n).tolist()) for g in range(plan.num_groups) for n in numbers]

    assert visited(1) == visited(2) == visited(4)


def test_epochs_and_seeds_differ_and_repeat():
    availability = studies_with(50, 30, 20)

    def order(seed: int, epoch: int) -> list[int]:
        return plan_epoch(
            availability, seed=seed, epoch=epoch, micro_batch_size=8, micro_batches_per_group=1
        ).studies.tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_a_rank_holds_its_own_micro_batches_and_no_others(world_size):
    plan = plan_epoch(studies_with(40, 25, 16), seed=3, epoch=1, micro_batch_size=4, micro_batches_per_group=6)
    for rank in range(world_size):
        part = plan.of_rank(rank, world_size=world_size)
        assert part.num_groups == plan.num_groups
        held = []
        for group in range(plan.num_groups):
            for accumulation in range(6 // world_size):
                ours = part.micro_batch(group, number=accumulation)
                np.testing.assert_array_equal(ours, plan.micro_batch(group, number=accumulation * world_size + rank))
                held += ours.tolist()
        assert sorted(held) == sorted(part.studies)
    with pytest.raises(ValueError, match="6 micro-batches per group do not divide among 4 ranks"):
        plan.of_rank(0, world_size=4)


def test_view_dropout_hides_either_view_of_that_fraction_of_complete_studies():
    availability = studies_with(20_000, 5_000, 1_000)
    left = drop_views(availability, seed=0, epoch=3, p_pa=0.1, p_lateral=0.2)
    complete = availability == Availability.BOTH
    assert (left[~complete] == availability[~complete]).all()
    shares = np.bincount(left[complete], minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.012)  # four standard deviations
    np.testing.assert_array_equal(left, drop_views(availability, seed=0, epoch=3, p_pa=0.1, p_lateral=0.2))
    assert (left != drop_views(availability, seed=0, epoch=4, p_pa=0.1, p_lateral=0.2)).any()
    assert (left != drop_views(availability, seed=1, epoch=3, p_pa=0.1, p_lateral=0.2)).any()
    np.testing.assert_array_equal(drop_views(availability, seed=0, epoch=3, p_pa=0, p_lateral=0), availability)


MEASURED = """
import re, sys, time
from pathlib import Path
import numpy as np
from dualview.data.epoch_plan import plan_epoch
availability = np.random.default_rng(0).choice(3, size=10_000_000, p=[0.5, 0.49, 0.01]).astype(np.int8)
started = time.process_time()
plan = plan_epoch(availability, seed=0, epoch=0, micro_batch_size=8, micro_batches_per_group=1024)
mine = plan.of_rank(1023, world_size=1024)
seconds = time.process_time() - started
most_kib = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(seconds, most_kib / 2**20, "torch" in sys.modules)
"""


def test_ten_million_studies_are_planned_for_1024_ranks_within_10_s_and_2_gib_without_torch():
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    seconds, gib, has_torch = done.stdout.split()
    assert float(seconds) < 10
    assert float(gib) < 2
    assert has_torch == "False"


def test_view_dropout_rises_linearly_and_each_view_has_its_own_probability():
    ramp = ViewDropoutConfig(p_pa=0.2, p_lateral=0.4, ramp_epochs=4)
    assert [ramp.at(epoch) for epoch in (0, 2, 4, 9)] == [(0, 0), (0.1, 0.2), (0.2, 0.4), (0.2, 0.4)]
    left = drop_views(np.zeros(20_000, np.int8), seed=0, epoch=0, p_pa=0.2, p_lateral=0.4)
    shares = np.bincount(left) / len(left)
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.2], atol=0.01)  # both, PA only, lateral only
    with pytest.raises(ValueError, match="at most 1"):
        ViewDropoutConfig(p_pa=0.6, p_lateral=0.6)


def test_a_whole_step_hides_one_view_or_none_at_its_probabilities():
    drawn = [view_hidden_in(step, seed=0, p_pa=0.2, p_lateral=0.4) for step in range(5000)]
    shares = [drawn.count(view) / 5000 for view in (View.PA, View.LATERAL, None)]
    np.testing.assert_allclose(shares, [0.2, 0.4, 0.4], atol=0.03)
    assert drawn == [view_hidden_in(step, seed=0, p_pa=0.2, p_lateral=0.4) for step in range(5000)]


def test_a_head_is_trained_alone_in_that_fraction_of_steps():
    drawn = [head_trained_alone(step, seed=0, probability=0.4) for step in range(5000)]
    shares = [drawn.count(view) / 5000 for view in (View.PA, View.LATERAL, None)]
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.6], atol=0.03)
    assert {head_trained_alone(step, seed=0, probability=0) for step in range(100)} == {None}
