"""Optimizer steps on given micro-batches; right for any number of processes.

    python run_steps.py OUT            one process
    accelerate launch ... run_steps.py OUT

Rank r of R takes micro-batch a * R + r in accumulation step a, so every R that divides the number of
micro-batches computes the same steps. Writes what the steps computed to OUT, from the main process.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from dualview.batch import StudyBatch
from dualview.config import Config, DistributedConfig, RunConfig
from dualview.data.dataset import Loaded, StudyDataset
from dualview.data.phantom import draw
from dualview.distributed import start
from dualview.evaluate import predict_split
from dualview.models import build_model
from dualview.optim import build_optimizer
from dualview.run_directory import BadImages
from dualview.step import count, finish_gradients, forward, seed_dropout, update_statistics

# Each step: 4 micro-batches of studies; b both, p PA only, l lateral only; a capital has no known label.
STEPS = {
    "mixed": ["bbp", "lbb", "pl", "bpl"],
    "micro-batches 0 and 2, all of rank 0 of 2, have no lateral": ["ppp", "bbl", "pp", "lbb"],
    "micro-batch 1 has no known label": ["bp", "BPL", "lb", "p"],
    "micro-batch 3 is empty": ["bl", "p", "bb", ""],
    "no lateral anywhere": ["ppp", "p", "pp", "pP"],
    "no PA anywhere": ["l", "ll", "lL", "l"],
}


def micro_batch(kinds: str, *, seed: int) -> StudyBatch:
    """Random float64 studies; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(max(len(kinds), 1), 2, 1, 64, 64, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (max(len(kinds), 1), 4), generator=generator).double()
    known = torch.rand(max(len(kinds), 1), 4, generator=generator) > 0.2
    if not kinds:
        return StudyBatch.from_views(pa=[], lateral=[], labels=labels[:0], image_shape=(1, 64, 64))._replace(
            pa=images[:0, 0], lateral=images[:0, 1]
        )
    known[:, 0] |= ~known.any(dim=1)
    known[[kind.isupper() for kind in kinds]] = False
    view_mask = torch.tensor([[kind in "bp", kind in "bl"] for kind in kinds.lower()])
    return StudyBatch.from_dense(images, view_mask=view_mask, labels=labels, label_mask=known)


def main(out: Path) -> None:
    config = Config.model_validate({"optim": {"learning_rate": 1e-2, "weight_decay": 0.1}})
    results: dict[str, dict[str, torch.Tensor | None]] = {}
    with start(RunConfig(device="cpu"), distributed=DistributedConfig(timeout_seconds=30)) as job:
        model = build_model("auxloss", num_findings=4, backbone="densenet_tiny", dropout=0.2, seed=0).double().train()
        wrapped = job.wrap(model)
        statistics = model.pool_statistics()
        optimizer = build_optimizer(model, config.optim)
        for step, (name, kinds) in enumerate(STEPS.items()):
            numbers = range(job.rank, len(kinds), job.world_size)
            group = [Loaded(micro_batch(kinds[number], seed=10 * step + number), ()) for number in numbers]
            counts = count(group, job=job)
            for number, (batch, _) in zip(numbers, group, strict=True):
                seed_dropout(0, step=step, micro_batch=number)
                with job.no_sync(wrapped, when=number != numbers[-1]):
                    losses = forward(wrapped, batch, config=config, pos_weight=None)
                    (losses.total * job.world_size / counts.labelled).backward()
            finish_gradients(model, counts=counts, clip_norm=None)
            gradients = {f"{n}": None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update_statistics(statistics, counts=counts, job=job)
            state = {key: value.clone() for key, value in model.state_dict().items()}
            moments = {
                name: optimizer.state[p]["exp_avg"].clone()
                for name, p in model.named_parameters()
                if optimizer.state[p]
            }
            results[name] = {"gradients": gradients, "state": state, "moments": moments, "labelled": counts.labelled}

        untrained = build_model("auxloss", num_findings=4, backbone="densenet_tiny", seed=1).to(job.device)
        for num_studies in (10, 1):  # and fewer studies than ranks
            table, read = draw(Config().data.phantom, seed=0, image_size_px=64)
            dataset = StudyDataset(table.select(np.arange(num_studies)), read=read, image_size_px=64, seed=0)
            predictions = predict_split(
                untrained,
                dataset=dataset,
                job=job,
                micro_batch_size=4,
                num_workers=0,
                bad_images=BadImages(Path("."), policy="error", job=job),
            )
            results[f"evaluation of {num_studies}"] = {
                "logits": torch.from_numpy(predictions.logits),
                "head_mask": torch.from_numpy(predictions.head_mask),
            }
        if job.is_main:
            torch.save(results, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
