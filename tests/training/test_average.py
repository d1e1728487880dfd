"""The average of the weights: by hand for one weight, statistics too, and what training evaluates and keeps."""

import pytest
import torch

from dualview.models.build import build_model
from dualview.training.average import WeightAverage


def tiny():
    return build_model("auxloss", num_findings=2, backbone="densenet_tiny", seed=0)


def test_a_weight_and_a_running_mean_are_averaged_by_hand_and_other_parts_stay():
    model = tiny()
    average = WeightAverage(model, decay=0.2)
    of = {
        "pa.head.weight": model.pa.head.weight,
        "pa.features.norm0.running_mean": model.pa.features.norm0.running_mean,
    }
    start = {name: tensor.detach().clone() for name, tensor in of.items()}
    lateral = model.lateral.head.weight.detach().clone()
    for value in (1.0, 3.0, 7.0):
        with torch.no_grad():
            for tensor in (*of.values(), model.lateral.head.weight):
                tensor.fill_(value)
        average.update(model, parts={"pa"})
    # The decays are 1 / 10, 2 / 11 and then 0.2, which is below 3 / 12.
    for name, first in start.items():
        expected = 0.2 * (2 / 11 * (0.1 * first + 0.9 * 1.0) + 9 / 11 * 3.0) + 0.8 * 7.0
        torch.testing.assert_close(average.model.state_dict()[name], expected)
    assert torch.equal(average.model.lateral.head.weight, lateral)
    assert average.num_updates == {"pa": 3, "lateral": 0, "joint": 0}


def test_whole_numbers_are_taken_over():
    model = tiny()
    average = WeightAverage(model, decay=0.9)
    model.pa.features.norm0.num_batches_tracked.fill_(5)
    average.update(model, parts={"pa", "joint"})
    assert average.model.pa.features.norm0.num_batches_tracked.item() == 5


@pytest.mark.parametrize("shared", [False, True])
def test_the_average_is_a_network_of_its_own(shared):
    model = build_model("auxloss", num_findings=2, backbone="densenet_tiny", seed=0, shared_branch=shared)
    average = WeightAverage(model, decay=0.9)
    ours = {tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()}
    theirs = {tensor.data_ptr() for tensor in average.model.state_dict().values() if tensor.numel()}
    assert not ours & theirs
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    with torch.no_grad():
        next(average.model.parameters()).zero_()
    assert next(model.parameters()).any()
