"""Optimizer steps on given micro-batches and on an epoch of real studies; right for any number of processes.

Rank r of R takes micro-batch a * R + r in accumulation step a, so every R that divides the number of
micro-batches computes the same steps. The main process writes what the steps computed to a file.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from dualview.batch import StudyBatch
from dualview.config import AugmentConfig, Config, DistributedConfig, PhantomConfig, RunConfig, ViewDropoutConfig
from dualview.data.dataset import Loaded, StudyDataset
from dualview.data.loading import TrainingSampler, training_loader
from dualview.data.sources.phantom import draw
from dualview.distributed import Job, start
from dualview.evaluation.evaluator import Evaluator
from dualview.models import build_model
from dualview.models.loss_weights import LossWeights
from dualview.progress import progress_bars
from dualview.run.bad_images import BadImages
from dualview.run.directory import RunDir
from dualview.training.learner import build_learner
from dualview.training.step import count, take_step

# Each step: 4 micro-batches of studies; b both, p PA only, l lateral only; a capital has no known label.
STEPS = {
    "micro-batches 0 and 2, all of rank 0 of 2, have no lateral": ["ppp", "bbl", "pp", "lbb"],  # nor had any before
    "mixed": ["bbp", "lbb", "pl", "bpl"],
    "micro-batch 1 has no known label": ["bp", "BPL", "lb", "p"],
    "lateral only in the first micro-batches, which do not synchronise": ["bl", "l", "pp", "p"],
    "micro-batch 3 is empty": ["bl", "p", "bb", ""],
    "no lateral anywhere": ["ppp", "p", "pp", "pP"],
    "no PA anywhere": ["l", "ll", "lL", "l"],
}
MICRO_BATCH_SIZE = 3  # of an epoch
Group = list[Loaded]


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
    batch = StudyBatch.from_dense(images, view_mask=view_mask, labels=labels, label_mask=known)
    return batch._replace(weight=torch.rand(len(kinds), generator=generator, dtype=torch.float64) + 0.5)


def given_steps(job: Job, *, names: Iterable[str]) -> Iterator[tuple[str, Group]]:
    for step, name in enumerate(names):
        kinds = STEPS[name]
        numbers = range(job.rank, len(kinds), job.world_size)
        yield name, [Loaded(micro_batch(kinds[number], seed=10 * step + number), ()) for number in numbers]


def epoch_steps(job: Job, *, num_studies: int, micro_batches: int) -> Iterator[tuple[str, Group]]:
    """Two epochs of phantoms with view dropout, augmentation and unknown labels, ragged ends and all."""
    config = PhantomConfig(num_studies=max(num_studies, 10), unknown_label_fraction=0.3)
    table, read = draw(config, seed=0, image_size_px=64)
    table = table.select(np.arange(num_studies))
    sampler = TrainingSampler(
        table.availability,
        micro_batch_size=MICRO_BATCH_SIZE,
        accumulation_steps=micro_batches // job.world_size,
        view_dropout=ViewDropoutConfig(p_pa=0.25, p_lateral=0.25),
        seed=0,
        rank=job.rank,
        world_size=job.world_size,
        max_steps=2 * -(-num_studies // (MICRO_BATCH_SIZE * micro_batches)),
    )
    dataset = StudyDataset(table, read=read, image_size_px=64, seed=0, augment=AugmentConfig())
    loaded = iter(training_loader(dataset, sampler=sampler, num_workers=0, pin_memory=False))
    for step in range(sampler.max_steps):
        group = [next(loaded) for _ in range(sampler.accumulation_steps)]
        yield f"epoch step {step}", [Loaded(in_float64(batch), bad) for batch, bad, *_ in group]


def in_float64(batch: StudyBatch) -> StudyBatch:
    return batch._replace(pa=batch.pa.double(), lateral=batch.lateral.double(), labels=batch.labels.double())


def run_given_steps(out: Path, *, steps: Iterable[str] = tuple(STEPS), **model: object) -> None:
    """The steps of STEPS that are named, one after the other."""
    _take_steps(out, lambda job: given_steps(job, names=steps), **model)


def run_frozen_steps(out: Path, *, freeze: Iterable[tuple[str, object]], **model: object) -> None:
    """All of STEPS with layers frozen by these settings of `model`, which are pairs to be hashable."""
    _take_steps(out, lambda job: given_steps(job, names=tuple(STEPS)), freeze=dict(freeze), **model)


def run_epochs(out: Path, *, num_studies: int, micro_batches: int) -> None:
    """Two epochs whose steps have that many micro-batches over all ranks."""
    _take_steps(out, lambda job: epoch_steps(job, num_studies=num_studies, micro_batches=micro_batches))


def _take_steps(
    out: Path,
    groups_for: Callable[[Job], Iterator[tuple[str, Group]]],
    *,
    network: str = "auxloss",
    backbone: str = "densenet_tiny",
    norm: str = "batch",
    idle_branch: str = "skip",
    shared_branch: bool = False,
    learned_weights: str | None = None,
    ema_decay: float | None = None,
    distill_weight: float = 0.0,
    merge_after_block: int = 3,
    freeze: dict[str, object] | None = None,
) -> None:
    config = Config.model_validate(
        {
            "optim": {"learning_rate": 1e-2, "weight_decay": 0.1},
            "train": {"channels_last": False, "ema_decay": ema_decay},
            "loss": {"distill_weight": distill_weight},
            "model": {"backbone": backbone, "merge_after_block": merge_after_block, **(freeze or {})},
        }
    )
    distributed = DistributedConfig(timeout_seconds=60, idle_branch=idle_branch)
    results: dict[str, dict[str, object]] = {}
    with start(RunConfig(device="cpu"), distributed=distributed) as job:
        model = build_model(
            network,
            num_findings=4,
            backbone=backbone,
            image_size_px=64,
            merge_after_block=merge_after_block,
            dropout=0.2 if backbone.startswith("densenet") else 0.0,
            norm=norm,
            idle_branch=idle_branch,
            seed=0,
            shared_branch=shared_branch,
        )
        if learned_weights:
            model.loss = LossWeights(learned_weights)
        model.double().train()
        learner = build_learner(model, config=config, job=job)
        optimizer = learner.optimizer
        gradients: dict[str, torch.Tensor | None] = {}
        optimizer.register_step_pre_hook(
            lambda *_: gradients.update(
                {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}
            )
        )
        for step, (name, group) in enumerate(groups_for(job)):
            counts = count(group, step=step, job=job)
            outcome = take_step(learner, group, counts=counts, step=step, job=job)
            assert outcome.is_finite and not outcome.stop
            moments = {
                n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters() if p in optimizer.state
            }
            results[name] = {
                "gradients": dict(gradients),
                "state": {key: value.clone() for key, value in model.state_dict().items()},
                "moments": moments,
                "evaluated": {key: value.clone() for key, value in learner.evaluated.state_dict().items()},
                "labelled": counts.labelled,
                "studies": job.gather_texts([str(s) for batch, *_ in group for s in batch.study_index.tolist()]),
            }
        if job.is_main:
            torch.save(results, out)


def run_evaluation(out: Path, *, num_studies: int) -> None:
    """Logits and head mask of an untrained network on phantoms."""
    with start(RunConfig(device="cpu"), distributed=DistributedConfig(timeout_seconds=60)) as job:
        untrained = build_model("auxloss", num_findings=4, backbone="densenet_tiny", seed=1).to(job.device)
        table, read = draw(Config().data.phantom, seed=0, image_size_px=64)
        dataset = StudyDataset(table.select(np.arange(num_studies)), read=read, image_size_px=64, seed=0)
        evaluator = Evaluator(
            model=untrained,
            config=Config.model_validate({"data": {"num_workers": 0}, "train": {"micro_batch_size": 4}}),
            job=job,
            bad_images=BadImages(RunDir(Path(".")), policy="error", job=job),
            progress=progress_bars(shown=False),
        )
        outputs = evaluator.outputs(dataset, name="test")
        if job.is_main:
            arrays = {"logits": outputs.logits, "head_mask": outputs.head_mask}
            torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, out)
