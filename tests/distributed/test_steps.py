"""The same steps on 1, 2, 3 and 4 processes: one-process results on the same micro-batches are the truth."""

from itertools import pairwise

import pytest
import torch

from dualview.config.uses import NETWORKS
from dualview.models.loss_weights import LossWeights
from tests.distributed.run_steps import STEPS, run_epochs, run_evaluation, run_frozen_steps, run_given_steps
from tests.distributed.run_sync_norm import run_sync_norm


@pytest.fixture(scope="module")
def computed(on_ranks, tmp_path_factory):
    """What a function of run_steps.py computes on N processes with the options given; each computed once."""
    done = {}

    def compute(num_processes: int, function=run_given_steps, **options):
        key = (num_processes, function, *options.items())
        if key not in done:
            out = tmp_path_factory.mktemp("steps") / "results.pt"
            if num_processes == 1:
                function(out, **options)
            else:
                on_ranks(num_processes, function, out, **options)
            done[key] = torch.load(out, weights_only=True)
        return done[key]

    return compute


def relative_difference(ours, truth) -> float:
    """L2 over the whole gradient."""
    assert ours.keys() == truth.keys()
    nothing = torch.zeros(1, dtype=torch.float64)  # single and stacked have steps without any study for them
    flat = [
        torch.cat([nothing, *(g.flatten() for g in gradients.values() if g is not None)]) for gradients in (ours, truth)
    ]
    return float((flat[0] - flat[1]).norm() / flat[1].norm().clamp(min=1e-300))


def assert_same_steps(ours, truth, steps):
    for number, step in enumerate(steps):
        idle = [{n for n, g in results[step]["gradients"].items() if g is None} for results in (ours, truth)]
        assert idle[0] == idle[1], step
        # later steps start from parameters that differ by rounding
        tolerance = 1e-12 if number == 0 else 1e-9
        assert relative_difference(ours[step]["gradients"], truth[step]["gradients"]) <= tolerance, step
        for name, value in ours[step]["state"].items():
            assert (value - truth[step]["state"][name]).abs().max() <= 1e-8, (step, name)
        assert ours[step]["studies"] == truth[step]["studies"]
        assert ours[step]["labelled"] == truth[step]["labelled"]


@pytest.mark.parametrize("num_processes", [2, 4])
@pytest.mark.parametrize("idle_branch", ["skip", "empty"])
def test_gradients_parameters_and_statistics_are_those_of_one_process(computed, num_processes, idle_branch):
    """C5, with dropout, unknown labels, accumulation under no_sync, and the AdamW steps that follow from each other."""
    assert_same_steps(computed(num_processes, idle_branch=idle_branch), computed(1), STEPS)


def test_the_same_with_two_densenet121(computed):
    """In a step whose first micro-batches have no lateral, and in one where none has, after the first moved them."""
    options = {"backbone": "densenet121", "steps": (next(iter(STEPS)), "no lateral anywhere")}
    assert_same_steps(computed(2, **options), computed(1, **options), options["steps"])


@pytest.mark.parametrize("idle_branch", ["skip", "empty"])
@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"auxloss"}))
def test_every_member_of_the_family_trains_alike_on_two_processes(computed, network, idle_branch):
    """With `empty` DDP expects a gradient of every parameter on every rank, so that no part may be left out."""
    ours = computed(2, network=network, idle_branch=idle_branch)
    assert_same_steps(ours, computed(1, network=network), STEPS)


@pytest.mark.parametrize("network", ["auxloss", "hemis"])
def test_a_shared_backbone_trains_alike_on_two_processes(computed, network):
    options = {"network": network, "shared_branch": True}
    assert_same_steps(computed(2, **options), computed(1, **options), STEPS)


@pytest.mark.parametrize(
    ("kind", "idle_branch"), [("uncertainty", "skip"), ("temperature", "skip"), ("uncertainty", "empty")]
)
def test_learned_weights_of_the_loss_are_those_of_one_process(computed, kind, idle_branch):
    """C5 of the three scalars themselves: ranks without a complete study, complete ones under no_sync or unlabelled.

    And C4: where no complete study is on any rank, neither they nor their moments move, by weight decay either.
    """
    ours = computed(2, learned_weights=kind, idle_branch=idle_branch)
    truth = computed(1, learned_weights=kind)
    assert_same_steps(ours, truth, STEPS)
    before = None
    for number, (step, kinds) in enumerate(STEPS.items()):
        gradient, expected = ours[step]["gradients"]["loss.values"], truth[step]["gradients"]["loss.values"]
        value, moment = ours[step]["state"]["loss.values"], ours[step]["moments"]["loss.values"]
        if "b" in "".join(kinds):
            assert ((gradient - expected).norm() / expected.norm()) <= (1e-12 if number == 0 else 1e-9), step
            assert before is None or (value != before[0]).all()
        else:
            assert gradient is None
            assert torch.equal(value, before[0]) and torch.equal(moment, before[1])
        before = value, moment
    first = ours[next(iter(STEPS))]
    start = LossWeights(kind).double().values.detach()
    moved = start - 1e-2 * first["gradients"]["loss.values"].sign()  # Adam's first step, and no decay
    torch.testing.assert_close(first["state"]["loss.values"], moved, rtol=0, atol=1e-7)


def test_the_average_of_the_weights_is_that_of_one_process_and_idle_parts_of_it_stay(computed):
    """C5 and C4 of `train.ema_decay`, and of `loss.distill_weight` beside it.

    Each step's average is d times the last plus 1 - d times the weights.
    """
    ours, truth = (computed(n, ema_decay=0.5, distill_weight=0.5) for n in (2, 1))
    assert_same_steps(ours, truth, STEPS)
    updates, before = dict.fromkeys(("pa", "lateral", "joint"), 0), None
    for step, kinds in STEPS.items():
        averages, weights = ours[step]["evaluated"], ours[step]["state"]
        labelled = "".join(kind for kind in "".join(kinds) if kind.islower())
        moved = {"pa": set(labelled) & set("pb"), "lateral": set(labelled) & set("lb"), "joint": "b" in labelled}
        for name, average in averages.items():
            assert (average - truth[step]["evaluated"][name]).abs().max() <= 1e-8, (step, name)
            part = name.partition(".")[0]
            if before is None:
                continue
            if not moved[part]:
                assert torch.equal(average, before[name]), (step, name)
            elif average.is_floating_point():
                decay = min(0.5, (1 + updates[part]) / (10 + updates[part]))
                torch.testing.assert_close(average, decay * before[name] + (1 - decay) * weights[name])
        updates = {part: count + bool(moved[part]) for part, count in updates.items()}
        before = averages


@pytest.mark.parametrize("freeze", [2, "backbone"])
def test_frozen_layers_stay_until_they_thaw_on_any_number_of_processes(computed, freeze):
    """Weights, decay and batch statistics of frozen layers; all else learns; after `freeze_steps` they learn too."""
    options = {"freeze": (("freeze", freeze), ("freeze_steps", 3), ("weights", "given")), "backbone": "densenet_tiny"}
    ours, truth = (computed(n, function=run_frozen_steps, **options) for n in (2, 1))
    assert_same_steps(ours, truth, STEPS)
    frozen = ("conv0", "norm0", "denseblock1", "transition1", "denseblock2", "transition2")
    if freeze == "backbone":
        frozen = ("",)
    states = [ours[step]["state"] for step in STEPS]
    names = [name for name in states[0] if any(f".features.{layer}" in name for layer in frozen)]
    assert any("running_mean" in name for name in names) and any("conv" in name for name in names)
    for earlier, later in pairwise(states[:3]):
        assert all(torch.equal(earlier[name], later[name]) for name in names)
    assert not torch.equal(states[0]["joint.weight"], states[2]["joint.weight"])
    thawed = [name for name in names if name.startswith("pa.") and not name.endswith("num_batches_tracked")]
    assert not any(torch.equal(states[2][name], states[-1][name]) for name in thawed)


@pytest.mark.parametrize("backbone", ["timm:resnet10t", "timm:vit_tiny_patch16_224"])
@pytest.mark.parametrize("idle_branch", ["skip", "empty"])
def test_networks_of_timm_train_alike_on_two_processes(computed, backbone, idle_branch):
    options = {"backbone": backbone, "merge_after_block": 4, "steps": tuple(STEPS)[:3]}
    ours, truth = computed(2, idle_branch=idle_branch, **options), computed(1, **options)
    assert_same_steps(ours, truth, options["steps"])


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_other_norms_do_not_depend_on_the_number_of_processes(computed, norm):
    assert_same_steps(computed(2, norm=norm), computed(1, norm=norm), STEPS)


@pytest.mark.parametrize(
    ("num_processes", "micro_batches", "studies"), [(2, 2, 9), (3, 3, 20), (4, 4, 14), (2, 4, 5)], ids=str
)
def test_epochs_with_view_dropout_augmentation_and_ragged_ends(computed, num_processes, micro_batches, studies):
    """9 studies on 2 ranks, R = 3 with a ragged end, ranks without any study in the last step."""
    options = {"function": run_epochs, "num_studies": studies, "micro_batches": micro_batches}
    ours, truth = computed(num_processes, **options), computed(1, **options)
    steps = list(truth)
    assert_same_steps(ours, truth, steps)
    per_epoch = len(steps) // 2
    for epoch in range(2):  # every study once
        seen = [study for step in steps[epoch * per_epoch :][:per_epoch] for study in ours[step]["studies"]]
        assert sorted(map(int, seen)) == list(range(studies))


def test_sync_norm_on_two_processes_is_batch_norm_on_both_micro_batches_together(computed):
    """Two processes of one micro-batch each; the truth is torch's BatchNorm on the six studies as one."""
    ours, truth = (computed(num_processes, run_sync_norm) for num_processes in (2, 1))
    assert relative_difference(ours["gradients"], truth["gradients"]) <= 1e-12
    for name, value in ours["state"].items():
        torch.testing.assert_close(value, truth["state"][name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_evaluation_is_bit_equal_and_counts_every_study_once(computed, num_processes):
    """C6, with fewer studies than ranks too."""
    for num_studies in (10, 1):
        ours, truth = (computed(n, run_evaluation, num_studies=num_studies) for n in (num_processes, 1))
        assert ours["head_mask"][:, 0].all()
        assert torch.equal(ours["head_mask"], truth["head_mask"])
        assert torch.equal(ours["logits"], truth["logits"])


@pytest.mark.parametrize("idle_branch", ["skip", "empty"])
@pytest.mark.parametrize("num_processes", [2, 4])
@pytest.mark.parametrize(("step", "idle"), [("no lateral anywhere", "lateral."), ("no PA anywhere", "pa.")])
def test_a_branch_idle_on_every_rank_stays_bit_equal(computed, num_processes, idle_branch, step, idle):
    """C4: weights, buffers and optimizer state, after steps that gave the branch momentum."""
    results = computed(num_processes, idle_branch=idle_branch)
    before = results[list(STEPS)[list(STEPS).index(step) - 1]]
    for kind in ("state", "moments"):
        branch = {name: value for name, value in results[step][kind].items() if name.startswith(idle)}
        assert branch
        assert all(torch.equal(value, before[kind][name]) for name, value in branch.items())


def test_labelled_studies_are_counted_over_all_ranks(computed):
    for name, kinds in STEPS.items():
        assert computed(2, idle_branch="skip")[name]["labelled"] == sum(kind.islower() for kind in "".join(kinds))
