"""Training, as one story: set up, loop over steps, evaluate, close.

    dualview train configs/quickstart.yaml                                                  one process
    accelerate launch --config_file launch/cpu2.yaml -m dualview train configs/quickstart.yaml   two

One pass of the loop is one optimizer step; step.py holds its parts.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from dualview import checkpoint
from dualview.config import Config
from dualview.data import Data, load_data
from dualview.data.dataset import StudyDataset, expand_all
from dualview.data.loading import TrainingSampler, training_loader
from dualview.data.table import StudyTable
from dualview.distributed import Job, start
from dualview.evaluate import SplitEvaluation, evaluate_split, write_metrics, write_predictions
from dualview.losses import HeadLosses, reference_pos_weight
from dualview.meter import BestCheckpoint, Meter
from dualview.metrics import GroupMetrics
from dualview.models import build_model
from dualview.optim import build_optimizer, set_learning_rates
from dualview.run_directory import BadImages, claim, describe_run
from dualview.step import count, finish_gradients, forward, refuse_non_finite, seed_dropout, update_statistics
from dualview.tracking import Tracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run reports; equal on every rank, but for `wandb_*`, which the main process knows."""

    run_dir: Path
    num_steps: int
    best_step: int
    best_val_macro_auroc: float | None
    metrics: dict[str, dict[str, GroupMetrics]]  # split -> availability -> metrics, of the best checkpoint
    wandb_mode: str
    wandb_dir: Path | None
    is_main: bool


def train(config: Config) -> TrainingResult:  # noqa: PLR0915 - the story, read downward
    """Train, evaluate the best checkpoint on the val and test splits, and write it all to `run.dir`.

    Raises:
        UserError: anything the user can mend, from the configuration to a diverged training.
        OSError: the disk is full or no longer writable.
    """
    with ExitStack() as stack:
        # -- set up: everything that can be wrong is found before the first step -------------------
        job = stack.enter_context(start(config.run, distributed=config.distributed))
        claim(config.run.dir, job=job)
        data = load_data(config.data, seed=config.run.seed)
        train_set, val_set, test_set = _datasets(data, config)
        with job.node_main_first():  # which fetches weights, where they are not there yet
            model = build_model(
                config.model.name,
                num_findings=len(data.train.findings),
                backbone=config.model.backbone,
                merge_after_block=config.model.merge_after_block,
                dropout=config.model.dropout,
                weights=config.model.weights,
                seed=config.run.seed,
            )
        if config.train.channels_last:
            model.to(memory_format=torch.channels_last)
        wrapped = job.wrap(model)
        statistics = model.pool_statistics()
        optimizer = build_optimizer(model, config.optim)
        pos_weight = _pos_weight(data, config, device=job.device)

        sampler = TrainingSampler(
            train_set.table.availability,
            config=config.train,
            seed=config.run.seed,
            rank=job.rank,
            world_size=job.world_size,
        )
        max_steps = sampler.max_steps
        eval_every_steps = config.train.eval_every_steps or sampler.steps_per_epoch
        micro_batches = iter(
            training_loader(
                train_set, sampler=sampler, num_workers=config.data.num_workers, pin_memory=job.device.type == "cuda"
            )
        )
        config_yaml = describe_run(config)
        if job.is_main:
            (config.run.dir / "config.yaml").write_text(config_yaml, encoding="utf-8")
            logger.info("%s", _what_runs(config, data=data, job=job, model=model, max_steps=max_steps))
        tracker = stack.enter_context(Tracker(config, job=job))
        progress = stack.enter_context(_progress(job))

        def evaluate(name: str, dataset: StudyDataset) -> SplitEvaluation:
            return evaluate_split(
                model, name=name, dataset=dataset, config=config, job=job, bad_images=bad_images, progress=progress
            )

        # -- loop: one pass is one optimizer step ---------------------------------------------------
        bad_images = BadImages(config.run.dir, policy=config.data.on_bad_image, job=job)
        best = BestCheckpoint(patience=config.train.early_stopping_evaluations)
        meter = Meter(job=job)
        bar = progress.add_task("training", total=max_steps)
        for step in range(max_steps):
            meter.start_step()
            group = [next(micro_batches) for _ in range(config.train.accumulation_steps)]
            for loaded in group:
                bad_images.take(loaded)
            meter.data_arrived()
            counts = count(group, job=job)
            bad_images.settle(counts.bad_images)
            rates = set_learning_rates(optimizer, step=step, max_steps=max_steps, config=config.optim)

            loss_sums = torch.zeros(len(HeadLosses._fields), dtype=torch.float64, device=job.device)
            for number, (batch, _) in enumerate(group):
                seed_dropout(config.run.seed, step=step, micro_batch=number * job.world_size + job.rank)
                with job.no_sync(wrapped, when=number < len(group) - 1):
                    losses = forward(wrapped, job.move(batch), config=config, pos_weight=pos_weight)
                    (losses.total * (job.world_size / max(counts.labelled, 1))).backward()
                loss_sums += torch.stack(losses).detach()

            norms = finish_gradients(model, counts=counts, clip_norm=config.optim.gradient_clip_norm)
            refuse_non_finite(norms["total"], step=step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # None, not zero: the optimizer leaves an idle part alone
            update_statistics(statistics, counts=counts, job=job)
            meter.end_step(counts)
            progress.advance(bar)

            is_last = step + 1 == max_steps
            if (step + 1) % config.train.log_every_steps == 0 or is_last:
                means = (job.sum(loss_sums) / max(counts.labelled, 1)).tolist()
                losses_by_head = dict(zip(HeadLosses._fields, means, strict=True))
                progress.update(bar, description=f"training, loss {sum(means):.3f}")
                tracker.log(
                    {
                        "loss/total": sum(means),
                        **{f"loss/{head}": mean for head, mean in losses_by_head.items()},
                        **{f"optim/learning_rate_{part}": rate for part, rate in rates.items()},
                        **{f"optim/gradient_norm_{part}": norm for part, norm in norms.items()},
                        "optim/epoch": (step + 1) / sampler.steps_per_epoch,
                        **meter.read(),
                    },
                    step=step + 1,
                )

            if (step + 1) % eval_every_steps == 0 or is_last:
                val = evaluate("val", val_set)
                tracker.log(val.values(), step=step + 1)
                improved = best.see(val.macro_auroc, step=step + 1)
                if job.is_main:
                    logger.info(
                        "step %d of %d: %s%s", step + 1, max_steps, val, ", the best so far" if improved else ""
                    )
                    checkpoint.save(
                        config.run.dir, model=model, optimizer=optimizer, step=step + 1, config_yaml=config_yaml,
                        is_best=improved,
                    )  # fmt: skip
                meter.restart()
                if best.patience_is_over:
                    logger.info("no better macro AUROC in %d evaluations: training stops early", best.patience)
                    break
        progress.remove_task(bar)

        # -- close: the best checkpoint on every study of val and test ------------------------------
        job.barrier()  # until the main process has written the last checkpoint
        checkpoint.load_model(config.run.dir / "checkpoints" / "best", model=model)
        evaluations = {
            name: evaluate(name, dataset) for name, dataset in (("val", val_set), ("test", test_set)) if len(dataset)
        }
        if job.is_main:
            for name, evaluation in evaluations.items():
                write_predictions(config.run.dir / f"predictions-{name}.parquet", evaluation)
            write_metrics(config.run.dir / "metrics.json", evaluations)
        tracker.summarise(
            {"best/step": best.step, "best/val_auroc_macro": best.macro_auroc}
            | {key: value for evaluation in evaluations.values() for key, value in evaluation.values().items()}
        )
        job.barrier()
        return TrainingResult(
            run_dir=config.run.dir,
            num_steps=step + 1,
            best_step=best.step,
            best_val_macro_auroc=best.macro_auroc,
            metrics={name: evaluation.metrics for name, evaluation in evaluations.items()},
            wandb_mode=tracker.wandb_mode,
            wandb_dir=tracker.wandb_dir,
            is_main=job.is_main,
        )


# -- parts of the set-up ---------------------------------------------------------------------------


def _datasets(data: Data, config: Config) -> tuple[StudyDataset, StudyDataset, StudyDataset]:
    """Training set with augmentation, val and test sets without."""
    several = config.data.several_images
    train_table = expand_all(data.train) if several == "all" else data.train

    def dataset(table: StudyTable, *, training: bool) -> StudyDataset:
        return StudyDataset(
            table,
            read=data.read,
            image_size_px=config.data.image_size_px,
            seed=config.run.seed,
            several_images="random" if training and several == "random" else "first",
            augment=config.data.augment if training else None,
        )

    return dataset(train_table, training=True), dataset(data.val, training=False), dataset(data.test, training=False)


def _pos_weight(data: Data, config: Config, *, device: torch.device) -> Tensor | None:
    if config.loss.pos_weight == "none":
        return None
    return reference_pos_weight(
        torch.from_numpy(data.train.labels),
        label_mask=torch.from_numpy(data.train.label_mask),
        maximum=config.loss.pos_weight_max,
    ).to(device)


def _progress(job: Job) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        disable=not job.is_main,
    )


def _what_runs(config: Config, *, data: Data, job: Job, model: nn.Module, max_steps: int) -> str:
    """The derived quantities with their arithmetic, so that a log answers what exactly ran."""
    train = config.train
    micro, ranks, accumulation = train.micro_batch_size, job.world_size, train.accumulation_steps
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{config.model.name} on {config.model.backbone}, {parameters:,} parameters, on {job.device.type}; "
        f"studies train {len(data.train)}, val {len(data.val)}, test {len(data.test)}; "
        f"global batch {micro} studies x {ranks} ranks x {accumulation} accumulation = {micro * ranks * accumulation}; "
        f"{max_steps} steps; run directory {config.run.dir}"
    )
