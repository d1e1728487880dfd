"""Training, as one story: set up or continue, loop over steps, evaluate, close.

    dualview train configs/quickstart.yaml                                                  one process
    accelerate launch --config_file launch/cpu2.yaml -m dualview train configs/quickstart.yaml   two

One pass of the loop is one optimizer step; training/step.py takes it.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dualview import checkpoint
from dualview.config import Config
from dualview.data import Data, check_labels, load_data
from dualview.data.account import left_out_of_training
from dualview.data.dataset import StudyDataset
from dualview.data.loading import TrainingSampler, training_loader
from dualview.data.splits import write_splits
from dualview.distributed import Job, start
from dualview.errors import Preempted
from dualview.evaluate import SplitEvaluation, as_predictions, evaluate_split, write_metrics
from dualview.evaluation.metrics import GroupMetrics
from dualview.evaluation.operating_points import POINTS_FILE, choose_operating_points
from dualview.losses import HeadLosses
from dualview.meter import BestCheckpoint, Meter
from dualview.models import build_configured
from dualview.optim import set_learning_rates
from dualview.progress import progress_bars
from dualview.resume import continued, fingerprint, refuse_other_data
from dualview.run_directory import BadImages, claim, describe_run
from dualview.schedule import head_trained_alone, num_groups
from dualview.studies import datasets, for_network, node_store
from dualview.tracking import Tracker
from dualview.training.bad_steps import BadSteps
from dualview.training.learner import build_learner, configured_pos_weight
from dualview.training.step import count, take_step

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


def train(config: Config) -> TrainingResult:  # noqa: PLR0912, PLR0915 - the story, read downward
    """Train, evaluate the best checkpoint on the val and test splits, and write it all to `run.dir`.

    Raises:
        UserError: anything the user can mend, from the configuration to a diverged training.
        Preempted: a signal asked for it; the run directory holds everything to continue.
        OSError: the disk is full or no longer writable.
    """
    with ExitStack() as stack:
        # -- set up: everything that can be wrong is found before the first step -------------------
        job = stack.enter_context(start(config.run, distributed=config.distributed))
        run_dir = config.run.dir
        run_id = stack.enter_context(claim(run_dir, resume=config.train.resume, job=job))
        earlier = job.share(checkpoint.read_newest(run_dir) if job.is_main else None)
        state = earlier.state if earlier else None
        if state:
            config = continued(
                config,
                earlier=state["config"],
                micro_batches_per_step=state["micro_batches_per_step"],
                world_size=job.world_size,
            )
        data = load_data(config.data, seed=config.data_seed, store=node_store(config, job=job))
        left_out = left_out_of_training(data)
        if left_out["studies"] and job.is_main:
            logger.info(
                "data.split.max_train_patients, data.train_on leave out %d training studies and %d patients altogether",
                left_out["studies"],
                left_out["patients"],
            )
        data = for_network(data, config, job=job)
        check_labels(data.train)
        if config.data.augment.horizontal_flip_probability and job.is_main:
            logger.warning("data.augment.horizontal_flip_probability mirrors images: hearts come out on the right")
        train_set, val_set, test_set = datasets(data, config)
        if state:
            refuse_other_data(train_set.table, earlier=state["train_studies"], config=config)
        with job.node_main_first():  # which fetches weights, where they are not there yet
            model = build_configured(
                config, num_findings=len(data.train.findings), weights=None if earlier else config.model.weights
            )
        if earlier:
            model.load_state_dict(earlier.weights)
        learner = build_learner(
            model, config=config, pos_weight=configured_pos_weight(data.train, config.loss), job=job
        )
        optimizer = learner.optimizer

        micro_batches_per_step = job.world_size * config.train.accumulation_steps
        steps_per_epoch = num_groups(
            len(train_set),
            micro_batch_size=config.train.micro_batch_size,
            micro_batches_per_group=micro_batches_per_step,
        )
        max_steps = config.train.max_steps or config.train.epochs * steps_per_epoch
        eval_every_steps = config.train.eval_every_steps or steps_per_epoch
        best = BestCheckpoint(patience=config.train.early_stopping_evaluations)
        bad_images = BadImages(run_dir, policy=config.data.on_bad_image, job=job)
        bad_steps = BadSteps(run_dir, limit=config.train.max_bad_steps, study_ids=train_set.table.study_ids, job=job)
        step = 0  # optimizer steps done
        if state:
            step = state["step"]
            optimizer.load_state_dict(state["optimizer"])
            best.load_state(state["best"])
            bad_steps.total, bad_steps.in_a_row = state["bad_steps"]
        micro_batches = iter(
            training_loader(
                train_set,
                sampler=TrainingSampler(
                    train_set.table.availability,
                    micro_batch_size=config.train.micro_batch_size,
                    accumulation_steps=config.train.accumulation_steps,
                    order=config.train.order,
                    view_dropout=config.data.view_dropout,
                    seed=config.run.seed,
                    rank=job.rank,
                    world_size=job.world_size,
                    first_step=step,
                    max_steps=max_steps,
                ),
                num_workers=config.data.num_workers,
                pin_memory=job.device.type == "cuda",
            )
        )
        config_yaml = describe_run(config)
        if job.is_main:
            (run_dir / "config.yaml").write_text(config_yaml, encoding="utf-8")
            write_splits(run_dir / "split.csv", data.whole_splits)
            logger.info("%s", _what_runs(config, data=data, job=job, model=model, max_steps=max_steps))
            if earlier:
                logger.info("continuing %s at step %d of %d", run_dir, step, max_steps)
        tracker = stack.enter_context(Tracker(config, run_id=run_id, first_step=step, job=job))
        progress = stack.enter_context(progress_bars(shown=job.is_main))

        def evaluate(name: str, dataset: StudyDataset, *, hide_views: bool = False) -> SplitEvaluation:
            return evaluate_split(
                model,
                name=name,
                dataset=dataset,
                config=config,
                job=job,
                bad_images=bad_images,
                progress=progress,
                hide_views=hide_views,
            )

        def save() -> None:
            """The state after `step` steps and before the evaluation that may be due then."""
            if not job.is_main:
                return
            state = {
                "step": step,
                "epoch": step // steps_per_epoch,
                "step_in_epoch": step % steps_per_epoch,
                "micro_batches_per_step": micro_batches_per_step,
                "train_studies": fingerprint(train_set.table),
                "findings": list(train_set.table.findings),
                "optimizer": optimizer.state_dict(),
                "best": best.state(),
                "bad_steps": [bad_steps.total, bad_steps.in_a_row],
                "run_id": run_id,
                "config": config.model_dump(mode="json"),
            }
            checkpoint.save(
                run_dir, model=model, state=state, config_yaml=config_yaml, keep=config.train.keep_checkpoints
            )

        # -- loop: one pass is one optimizer step ---------------------------------------------------
        meter = Meter(job=job)
        bar = progress.add_task("training", total=max_steps, completed=step)
        while True:
            if step > 0 and (step % eval_every_steps == 0 or step == max_steps):
                val = evaluate("val", val_set)
                tracker.log(val.values(), step=step)
                improved = best.see(val.macro_auroc, step=step)
                if job.is_main:
                    logger.info("step %d of %d: %s%s", step, max_steps, val, ", the best so far" if improved else "")
                    if improved:
                        checkpoint.mark_best(run_dir, step)
                meter.restart()
                if best.patience_is_over:
                    logger.info("no better macro AUROC in %d evaluations: training stops early", best.patience)
                    break
            if step == max_steps:
                break

            meter.start_step()
            group = [next(micro_batches) for _ in range(config.train.accumulation_steps)]
            for loaded in group:
                bad_images.take(loaded)
            meter.data_arrived()
            counts = count(group, step=step, job=job)
            bad_images.settle(counts.bad_images)
            rates = set_learning_rates(optimizer, step=step, max_steps=max_steps, config=config.optim)
            alone = head_trained_alone(step, seed=config.run.seed, probability=config.loss.curriculum_probability)
            outcome = take_step(learner, group, counts=counts, step=step, alone=alone, job=job)
            bad_steps.see(outcome, group=group, step=step)
            step += 1
            meter.end_step(counts)
            progress.advance(bar)

            if step % config.train.log_every_steps == 0 or step == max_steps:
                means = (job.sum(outcome.loss_sums.sum(dim=0)) / (counts.weight or 1)).tolist()
                losses_by_head = dict(zip(HeadLosses._fields, means, strict=True))
                if model.loss is None:
                    del losses_by_head["log_terms"]
                weights = model.loss.now() if model.loss is not None else {}
                progress.update(bar, description=f"training, loss {sum(means):.3f}")
                tracker.log(
                    {
                        "loss/total": sum(means),
                        **{f"loss/{head}": mean for head, mean in losses_by_head.items()},
                        **{f"loss/weight_{head}": weight for head, weight in weights.items()},
                        **{f"optim/learning_rate_{part}": rate for part, rate in rates.items()},
                        **{f"optim/gradient_norm_{part}": norm for part, norm in outcome.gradient_norms.items()},
                        "optim/epoch": step / steps_per_epoch,
                        "optim/bad_steps_total": bad_steps.total,
                        **meter.read(),
                    },
                    step=step,
                )
            rhythms = (eval_every_steps, config.train.checkpoint_every_steps or max_steps, max_steps)
            if outcome.stop or any(step % rhythm == 0 for rhythm in rhythms):
                save()
            if outcome.stop:
                job.barrier()  # until the main process has written the checkpoint
                raise Preempted(f"stopped by a signal after step {step} of {max_steps}, which is saved in {run_dir}")
        progress.remove_task(bar)

        # -- close: the best checkpoint on every study of val and test ------------------------------
        model.load_state_dict(job.share(checkpoint.read_best(run_dir).weights if job.is_main else {}))
        evaluations = {
            name: evaluate(name, dataset, hide_views=True)
            for name, dataset in (("val", val_set), ("test", test_set))
            if len(dataset)
        }
        if job.is_main:
            for name, evaluation in evaluations.items():
                as_predictions(evaluation).write(run_dir / f"predictions-{name}.parquet")
            choose_operating_points(as_predictions(evaluations["val"])).write(run_dir / POINTS_FILE)
            write_metrics(run_dir / "metrics.json", evaluations)
        tracker.summarise(
            {"model/num_parameters": sum(parameter.numel() for parameter in model.parameters())}
            | {"best/step": best.step, "best/val_auroc_macro": best.macro_auroc}
            | {key: value for evaluation in evaluations.values() for key, value in evaluation.values().items()}
        )
        if config.tracking.log_checkpoint:
            tracker.log_checkpoint(run_dir / "checkpoints/best", name="best", step=best.step)
        job.barrier()
        return TrainingResult(
            run_dir=run_dir,
            num_steps=step,
            best_step=best.step,
            best_val_macro_auroc=best.macro_auroc,
            metrics={name: evaluation.metrics for name, evaluation in evaluations.items()},
            wandb_mode=tracker.wandb_mode,
            wandb_dir=tracker.wandb_dir,
            is_main=job.is_main,
        )


# -- parts of the set-up ---------------------------------------------------------------------------


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
