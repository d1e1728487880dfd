"""One step with norm=sync: 2 processes of one micro-batch each; one process, both as one batch of torch's norm."""

import sys
from pathlib import Path

import torch
from run_steps import micro_batch
from torch import nn

from dualview.batch import StudyBatch
from dualview.config import Config, DistributedConfig, RunConfig
from dualview.data.dataset import Loaded
from dualview.distributed import start
from dualview.models import build_model
from dualview.models.norm import PooledBatchNorm2d
from dualview.step import agree, count, finish_gradients, forward, update_statistics

KINDS = ("bbp", "ppp")  # the second process has no lateral


def together() -> StudyBatch:
    one, two = (micro_batch(kinds, seed=number) for number, kinds in enumerate(KINDS))
    return StudyBatch.from_views(
        pa=[*one.pa, *two.pa],
        lateral=[*one.lateral, None, None, None, None],
        labels=torch.cat([one.labels, two.labels]),
        label_mask=torch.cat([one.label_mask, two.label_mask]),
        weight=torch.cat([one.weight, two.weight]),
    )


def main(out: Path) -> None:
    config, empty = Config(), DistributedConfig(timeout_seconds=60, idle_branch="empty")
    with start(RunConfig(device="cpu"), distributed=empty) as job:
        model = build_model(
            "auxloss", num_findings=4, backbone="densenet_tiny", norm="sync", idle_branch="empty", seed=0
        )
        model.double().train()
        if job.world_size == 1:
            batch, statistics = together(), {}
            for module in model.modules():
                if isinstance(module, PooledBatchNorm2d):
                    module.__class__ = nn.BatchNorm2d
        else:
            batch = micro_batch(KINDS[job.rank], seed=job.rank)
        wrapped = job.wrap(model)
        if job.world_size > 1:
            statistics = model.pool_statistics(sum_over_ranks=job.differentiable_sum)
        counts = count([Loaded(batch, ())], step=0, job=job)
        losses = forward(wrapped, batch, config=config, pos_weight=None)
        (losses.total * job.world_size / counts.weight).backward()
        norms = finish_gradients(model, counts=counts, clip_norm=None)
        agree(losses.total.detach(), gradient_norm=norms["total"], statistics=statistics, stop=False, job=job)
        update_statistics(statistics, counts=counts)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        if job.is_main:
            torch.save({"gradients": gradients, "state": dict(model.state_dict())}, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
