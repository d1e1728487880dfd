"""One step with norm=sync: 2 processes of one micro-batch each; one process, both as one batch of torch's norm."""

from pathlib import Path

import torch
from torch import nn

from dualview.batch import StudyBatch
from dualview.config import Config, DistributedConfig, RunConfig
from dualview.data.dataset import Loaded
from dualview.distributed import start
from dualview.models import build_model
from dualview.models.norm import PooledBatchNorm2d
from dualview.training.learner import build_learner
from dualview.training.step import count, take_step
from tests.distributed.run_steps import micro_batch

CONFIG = Config.model_validate({"optim": {"learning_rate": 1e-3}, "train": {"channels_last": False}})
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


def run_sync_norm(out: Path) -> None:
    config, empty = CONFIG, DistributedConfig(timeout_seconds=60, idle_branch="empty")
    with start(RunConfig(device="cpu"), distributed=empty) as job:
        model = build_model(
            "auxloss", num_findings=4, backbone="densenet_tiny", norm="sync", idle_branch="empty", seed=0
        )
        model.double().train()
        if job.world_size == 1:
            batch = together()
            for module in model.modules():
                if isinstance(module, PooledBatchNorm2d):
                    module.__class__ = nn.BatchNorm2d
        else:
            batch = micro_batch(KINDS[job.rank], seed=job.rank)
        learner = build_learner(model, config=config, job=job)
        gradients: dict[str, torch.Tensor | None] = {}
        learner.optimizer.register_step_pre_hook(
            lambda *_: gradients.update({name: parameter.grad for name, parameter in model.named_parameters()})
        )
        group = [Loaded(batch, ())]
        take_step(learner, group, counts=count(group, step=0, job=job), step=0, job=job)
        if job.is_main:
            torch.save({"gradients": gradients, "state": dict(model.state_dict())}, out)
