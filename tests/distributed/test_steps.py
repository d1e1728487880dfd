"""The same steps on 1, 2 and 4 processes: one-process results on the same micro-batches are the truth."""

from pathlib import Path

import pytest
import torch
from run_steps import STEPS
from run_steps import main as run_steps

SCRIPT = Path(__file__).with_name("run_steps.py")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    torch.set_num_threads(1)  # as in the launched processes
    out = tmp_path_factory.mktemp("steps") / "one.pt"
    run_steps(out)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module", params=[2, 4], ids=["2 processes", "4 processes"])
def results(request, launch, tmp_path_factory):
    out = tmp_path_factory.mktemp("steps") / "several.pt"
    launch(request.param, SCRIPT, out)
    return torch.load(out, weights_only=True)


@pytest.mark.parametrize("step", STEPS)
def test_gradients_are_those_of_one_process(one_process, results, step):
    ours, truth = results[step]["gradients"], one_process[step]["gradients"]
    assert {n for n, g in ours.items() if g is None} == {n for n, g in truth.items() if g is None}
    flat = [torch.cat([g.flatten() for g in gradients.values() if g is not None]) for gradients in (ours, truth)]
    tolerance = 1e-12 if step == "mixed" else 1e-9  # later steps start from parameters that differ by rounding
    assert (flat[0] - flat[1]).norm() / flat[1].norm() <= tolerance


@pytest.mark.parametrize("step", STEPS)
def test_parameters_and_statistics_are_those_of_one_process(one_process, results, step):
    for name, value in results[step]["state"].items():
        assert (value - one_process[step]["state"][name]).abs().max() <= 1e-8, name


def test_evaluation_is_bit_equal_and_counts_every_study_once(one_process, results):
    for num_studies in (10, 1):
        ours, truth = results[f"evaluation of {num_studies}"], one_process[f"evaluation of {num_studies}"]
        assert ours["head_mask"][:, 0].all()
        assert torch.equal(ours["head_mask"], truth["head_mask"])
        assert torch.equal(ours["logits"], truth["logits"])


@pytest.mark.parametrize(("step", "idle"), [("no lateral anywhere", "lateral."), ("no PA anywhere", "pa.")])
def test_a_branch_idle_on_every_rank_stays_bit_equal(results, step, idle):
    """Weights, buffers and optimizer state, after steps that gave the branch momentum."""
    before = results[list(STEPS)[list(STEPS).index(step) - 1]]
    for kind in ("state", "moments"):
        branch = {name: value for name, value in results[step][kind].items() if name.startswith(idle)}
        assert branch
        assert all(torch.equal(value, before[kind][name]) for name, value in branch.items())


def test_labelled_studies_are_counted_over_all_ranks(results):
    for name, kinds in STEPS.items():
        assert results[name]["labelled"] == sum(kind.islower() for kind in "".join(kinds))
