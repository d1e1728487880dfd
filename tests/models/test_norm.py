"""Pooled statistics against torch's own BatchNorm and against sums by hand."""

import copy

import torch
from torch import nn

from dualview.models.norm import PooledBatchNorm2d, PooledStatistics, use_norm


def layers() -> nn.Sequential:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 2), nn.BatchNorm2d(5))
    use_norm(net, "batch")
    return net.double()


def test_without_pooling_it_is_torchs_batch_norm():
    ours, theirs = PooledBatchNorm2d(3), nn.BatchNorm2d(3)
    x = torch.rand(4, 3, 5, 5)
    for _ in range(3):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_one_micro_batch_updates_as_torch_does():
    ours, theirs = layers(), copy.deepcopy(layers())
    theirs.load_state_dict(ours.state_dict())
    statistics = PooledStatistics(ours)
    x = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    assert torch.equal(ours(x), theirs(x))
    statistics.add(4)
    statistics.update(4)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_micro_batches_of_unequal_size_pool_to_the_statistics_of_all_rows():
    """Layer 0 sees the raw rows, so its pooled statistics must be those of 1 + 3 + 4 = 8 rows together."""
    net = layers()
    statistics = PooledStatistics(net)
    x = torch.rand(8, 3, 6, 6, dtype=torch.float64) * 5 + 2
    for rows in x.split([1, 3, 4]):
        net(rows)
        statistics.add(len(rows))
    statistics.update(8)
    torch.testing.assert_close(net[0].running_mean, 0.1 * x.mean(dim=(0, 2, 3)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(net[0].running_var, 0.9 + 0.1 * x.var(dim=(0, 2, 3)), rtol=1e-12, atol=1e-12)
    assert net[0].num_batches_tracked == 1


def test_no_rows_no_update_and_nothing_carries_over():
    net = layers()
    statistics = PooledStatistics(net)
    before = copy.deepcopy(net.state_dict())
    statistics.update(0)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net(torch.full((2, 3, 6, 6), torch.inf, dtype=torch.float64))
    statistics.add(2)
    statistics.sums.zero_()
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    net(x)
    statistics.add(2)
    statistics.update(2)
    torch.testing.assert_close(net[0].running_mean, 0.1 * x.mean(dim=(0, 2, 3)))


def test_backward_after_collecting_equals_torchs():
    """Two forward passes with statistics taken in between, then backward: gradients are torch's."""
    ours, theirs = layers(), layers()
    theirs.load_state_dict(ours.state_dict())
    statistics = PooledStatistics(ours)
    one, two = torch.rand(2, 4, 3, 6, 6, dtype=torch.float64)
    for net in (ours, theirs):
        total = net(one).square().sum()
        if net is ours:
            statistics.add(4)
        total = total + net(two).square().sum()
        if net is ours:
            statistics.add(4)
        total.backward()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, reference.grad)


def test_the_other_norms_are_the_librarys():
    """Group normalisation with 32 groups where they fit; frozen values that no forward pass moves."""
    net = nn.Sequential(nn.BatchNorm2d(64), nn.Sequential(nn.BatchNorm2d(48)))
    use_norm(net, "group")
    assert [(layer.num_groups, layer.num_channels) for layer in (net[0], net[1][0])] == [(32, 64), (16, 48)]

    theirs = nn.BatchNorm2d(3)
    theirs.running_mean.uniform_()
    theirs.weight.data.uniform_()
    net = nn.Sequential(copy.deepcopy(theirs))
    use_norm(net, "frozen")
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(net.train()(x), theirs.eval()(x))
    assert not list(net.parameters())


def test_sync_over_one_rank_is_torchs_batch_norm_in_values_gradients_and_statistics():
    theirs = nn.BatchNorm2d(3).double()
    net = nn.Sequential(copy.deepcopy(theirs))
    use_norm(net, "sync")
    net[0].sum_over_ranks = lambda values: values
    statistics = PooledStatistics(net)
    x, y = (torch.rand(4, 3, 5, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    ours, truth = net(x), theirs(y)
    statistics.add(4)
    statistics.update(4)
    torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)
    for result in (ours, truth):
        result.square().mul(torch.arange(5.0)).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(net[0].running_var, theirs.running_var, rtol=1e-12, atol=1e-12)


def test_sync_without_a_row_on_any_rank_moves_nothing():
    net = nn.Sequential(nn.BatchNorm2d(3))
    use_norm(net, "sync")
    net[0].sum_over_ranks = lambda values: values
    statistics = PooledStatistics(net)
    out = net(torch.zeros(0, 3, 4, 4))
    out.sum().backward()
    statistics.update(0)
    assert out.shape == (0, 3, 4, 4)
    assert net[0].weight.grad.eq(0).all()
    assert net[0].running_mean.eq(0).all() and net[0].running_var.eq(1).all()
