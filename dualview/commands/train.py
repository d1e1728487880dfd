"""Training, as one story: set up or continue, loop over steps, evaluate, close.

    dualview train configs/quickstart.yaml                                                  one process
    accelerate launch --config_file launch/cpu2.yaml -m dualview train configs/quickstart.yaml   two

One pass of the loop is one optimizer step, which training/step.py takes.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from dualview.config import Config
from dualview.data.dataset import Loaded
from dualview.data.loading import TrainingSampler, training_loader
from dualview.data.splits import write_splits
from dualview.distributed import Job, start
from dualview.errors import Preempted
from dualview.evaluation.best_metric import value_of
from dualview.evaluation.evaluator import Evaluator
from dualview.evaluation.metrics import GroupMetrics
from dualview.evaluation.operating_points import choose_operating_points
from dualview.evaluation.split import SplitEvaluation, as_predictions, write_metrics
from dualview.files import write_whole
from dualview.models.build import build_configured
from dualview.models.initial_weights import configured_weights
from dualview.models.network import WeightSource
from dualview.progress import progress_bars
from dualview.run import checkpoint, metric_keys
from dualview.run.bad_images import BadImages
from dualview.run.checkpoint import SavedTraining
from dualview.run.claim import claim
from dualview.run.datasets import Studies, check_training, load_studies
from dualview.run.directory import RunDir
from dualview.run.provenance import describe_run
from dualview.run.resume import continued, fingerprint, refuse_other_data
from dualview.run.state import TrainState
from dualview.run.tracking import Tracker
from dualview.run.trained import log_of
from dualview.training.bad_steps import BadSteps
from dualview.training.curriculum import head_trained_alone
from dualview.training.horizon import Horizon
from dualview.training.learner import Learner, build_criterion, build_learner
from dualview.training.log import TrainingLog
from dualview.training.loss_scale import LossScale
from dualview.training.optim import set_learning_rates
from dualview.training.step import count, take_step

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished run reports; equal on every rank, but for `wandb_*`, which the main process knows."""

    run_dir: Path
    num_steps: int
    best_step: int
    best_value: float | None  # `train.best_metric` of the best checkpoint on val
    metrics: dict[str, dict[str, GroupMetrics]]  # split -> availability -> metrics of the best checkpoint
    wandb_mode: str
    wandb_dir: Path | None
    is_main: bool


def train(config: Config) -> TrainingResult:
    """Train, evaluate the best checkpoint on the val and test splits, and write it all to `run.dir`.

    Raises:
        UserError: anything the user can mend, from the configuration to a diverged training.
        Preempted: a signal asked for it; the run directory holds everything to continue.
        OSError: the disk is full or no longer writable.
    """
    with ExitStack() as stack:
        # -- set up: everything that can be wrong is found before the first step -------------------
        job = stack.enter_context(start(config.run, distributed=config.distributed))
        run = RunDir(config.run.dir)
        run_id = stack.enter_context(claim(run, resume=config.train.resume, job=job))
        config, earlier = _to_continue(config, run=run, job=job)
        studies = load_studies(config, job=job)
        check_training(studies, config, is_new=earlier is None, job=job)
        state = _state(config, run_id=run_id, studies=studies, earlier=earlier, job=job)
        learner = _learner(config, studies=studies, earlier=earlier, job=job)
        odds_factors = learner.criterion.odds_factors(len(studies.data.train.findings))
        horizon = Horizon.of(config.train, num_studies=len(studies.train), world_size=job.world_size)
        micro_batches = _micro_batches(config, studies=studies, first_step=state.step, horizon=horizon, job=job)
        config_yaml = describe_run(config)
        if job.is_main:
            _describe(run, config_yaml=config_yaml, studies=studies, sources=learner.model.weight_sources)
            _say_what_runs(config, studies=studies, learner=learner, state=state, horizon=horizon, job=job)
        bad_images = BadImages(run, policy=config.data.on_bad_image, job=job)
        bad_steps = BadSteps(
            run.bad_steps, counts=state.bad_steps, limit=config.train.max_bad_steps,
            study_ids=studies.train.table.study_ids, job=job,
        )  # fmt: skip
        tracker = stack.enter_context(Tracker(config, run_id=run_id, first_step=state.step, job=job))
        progress = stack.enter_context(progress_bars(shown=job.is_main))
        evaluator = Evaluator(
            model=learner.evaluated, config=config, job=job, bad_images=bad_images, progress=progress,
            log_pos_weight=log_of(odds_factors, findings=studies.data.train.findings),
        )  # fmt: skip
        log = TrainingLog(learner, state=state, horizon=horizon, tracker=tracker, progress=progress, job=job)

        # -- loop: one pass is one optimizer step ---------------------------------------------------
        while True:
            if horizon.evaluates_at(state.step):
                val = evaluator.evaluate(studies.evaluated["val"], name="val")
                _take_in(val, config=config, run=run, state=state, horizon=horizon, tracker=tracker, job=job)
                log.restart()
            if state.step == horizon.max_steps or _patience_is_over(state, config=config):
                break

            log.start_step()
            group = [bad_images.take(next(micro_batches)) for _ in range(config.train.accumulation_steps)]
            log.data_arrived()
            counts = count(group, step=state.step, job=job)
            bad_images.settle(counts.bad_images)
            rates = set_learning_rates(
                learner.optimizer, step=state.step, max_steps=horizon.max_steps, config=config.optim
            )
            alone = head_trained_alone(state.step, seed=config.run.seed, probability=config.loss.curriculum_probability)
            outcome = take_step(learner, group, counts=counts, step=state.step, alone=alone, job=job)
            bad_steps.see(outcome, group=group, step=state.step)
            state.step += 1
            log.end_step(outcome, counts=counts, learning_rates=rates)
            if job.is_main and (outcome.stop or horizon.saves_at(state.step)):
                checkpoint.save(
                    run, weights=learner.evaluated.state_dict(), state=state, optimizer=learner.optimizer.state_dict(),
                    findings=studies.train.table.findings, config=config, config_yaml=config_yaml,
                    keep=config.train.keep_checkpoints, pos_weight=odds_factors,
                    loss_scale=None if learner.loss_scale is None else asdict(learner.loss_scale),
                    average=None if learner.average is None else learner.average.state(learner.model),
                )  # fmt: skip
            if outcome.stop:
                job.barrier()  # The others wait here until the main process has written the checkpoint.
                raise Preempted(
                    f"stopped by a signal after step {state.step} of {horizon.max_steps}, which is saved in {run}"
                )

        # -- close: the best checkpoint on every study of val and test ------------------------------
        log.close()
        evaluations = _evaluate_best(evaluator, run=run, studies=studies)
        _summarise(evaluations, run=run, learner=learner, state=state, config=config, tracker=tracker)
        _write_results(run, evaluator, evaluations)
        return TrainingResult(
            run_dir=run.path,
            num_steps=state.step,
            best_step=state.best.step,
            best_value=state.best.value,
            metrics={name: evaluation.metrics for name, evaluation in evaluations.items()},
            wandb_mode=tracker.wandb_mode,
            wandb_dir=tracker.wandb_dir,
            is_main=job.is_main,
        )


# -- the chapters of the set-up --------------------------------------------------------------------


class _Earlier(NamedTuple):
    """The checkpoint that the run continues from."""

    weights: dict[str, Tensor]
    training: SavedTraining


def _to_continue(config: Config, *, run: RunDir, job: Job) -> tuple[Config, _Earlier | None]:
    """The checkpoint of an earlier process, if there is any, and the configuration to go on with.

    Raises:
        UserError: no checkpoint is whole, or the run was begun with settings that cannot be continued with these.
    """
    earlier = job.share(checkpoint.read_newest(run) if job.is_main else None)
    if earlier is None:
        return config, None
    training = earlier.training()
    config = continued(
        config,
        earlier=earlier.config,
        micro_batches_per_step=training.state.micro_batches_per_step,
        world_size=job.world_size,
    )
    return config, _Earlier(earlier.weights, training)


def _state(config: Config, *, run_id: str, studies: Studies, earlier: _Earlier | None, job: Job) -> TrainState:
    """Where the training is: at its beginning, or where the checkpoint was.

    Raises:
        UserError: the run was begun on other training studies.
    """
    if earlier is None:
        return TrainState(
            run_id=run_id,
            micro_batches_per_step=job.world_size * config.train.accumulation_steps,
            train_studies=fingerprint(studies.train.table),
        )
    refuse_other_data(studies.train.table, earlier=earlier.training.state.train_studies, config=config)
    return earlier.training.state


def _learner(config: Config, *, studies: Studies, earlier: _Earlier | None, job: Job) -> Learner:
    """The network with its optimizer, from the first weights or as the checkpoint left them.

    Raises:
        UserError: `model.weights` cannot be had or do not fit.
    """
    with job.node_main_first():  # Rank 0 of each node fetches weights that are not there yet; the others find them.
        model = build_configured(
            config,
            num_findings=len(studies.data.train.findings),
            weights=None if earlier else configured_weights(config.model, findings=studies.data.train.findings),
        )
    average = earlier.training.average if earlier else None
    if earlier:
        model.load_state_dict(earlier.weights if average is None else average["weights"])
    criterion = build_criterion(config.loss, train=studies.data.train)
    learner = build_learner(model, config=config, criterion=criterion, job=job)
    if earlier:
        learner.optimizer.load_state_dict(earlier.training.optimizer)
        if learner.loss_scale is not None and earlier.training.loss_scale is not None:
            learner = replace(learner, loss_scale=LossScale(**earlier.training.loss_scale))
        if learner.average is not None and average is not None:
            learner.average.load(earlier.weights, num_updates=average["num_updates"])
    return learner


def _micro_batches(
    config: Config, *, studies: Studies, first_step: int, horizon: Horizon, job: Job
) -> Iterator[Loaded]:
    """This rank's micro-batches, from the first step that is not done to the last."""
    sampler = TrainingSampler(
        studies.train.table.availability,
        micro_batch_size=config.train.micro_batch_size,
        accumulation_steps=config.train.accumulation_steps,
        order=config.train.order,
        view_dropout=config.data.view_dropout,
        seed=config.run.seed,
        rank=job.rank,
        world_size=job.world_size,
        first_step=first_step,
        max_steps=horizon.max_steps,
    )
    loader = training_loader(
        studies.train, sampler=sampler, num_workers=config.data.num_workers, pin_memory=job.device.type == "cuda"
    )
    return iter(loader)


def _describe(run: RunDir, *, config_yaml: str, studies: Studies, sources: list[WeightSource]) -> None:
    """Write what the run is: its settings, who is in which split, and where its first weights are from."""
    write_whole(run.config, config_yaml)
    write_splits(run.split, studies.data.whole_splits)
    if sources:
        write_whole(run.weights, json.dumps([source._asdict() for source in sources], indent=2) + "\n")


def _say_what_runs(
    config: Config, *, studies: Studies, learner: Learner, state: TrainState, horizon: Horizon, job: Job
) -> None:
    """The derived quantities with their arithmetic, so that a log answers what exactly ran."""
    micro, ranks, accumulation = config.train.micro_batch_size, job.world_size, config.train.accumulation_steps
    logger.info(
        "%s on %s, %s parameters, on %s; studies train %d, val %d, test %d; "
        "global batch %d studies x %d ranks x %d accumulation = %d; %d steps; run directory %s",
        config.model.name, config.model.backbone, f"{learner.model.num_parameters:,}", job.device.type,
        *(len(table) for table in studies.data.splits.values()),
        micro, ranks, accumulation, micro * ranks * accumulation, horizon.max_steps, config.run.dir,
    )  # fmt: skip
    for parts, source, licence in learner.model.weight_sources:
        logger.info("weights of %s parts: %s; licence: %s", parts, source, licence or "that of the file")
    if state.step:
        logger.info("continuing %s at step %d of %d", config.run.dir, state.step, horizon.max_steps)


# -- the chapters of the loop and the close ----------------------------------------------------------


def _take_in(
    val: SplitEvaluation,
    *,
    config: Config,
    run: RunDir,
    state: TrainState,
    horizon: Horizon,
    tracker: Tracker,
    job: Job,
) -> None:
    """Record an evaluation, and mark its checkpoint where it is the best so far."""
    best_metric, findings = config.train.best_metric, config.train.best_findings
    value = value_of(val.metrics, best_metric=best_metric, findings=findings)
    tracker.log({**val.values(), metric_keys.VAL_VALUE: value}, step=state.step)
    is_best = state.best.see(value, step=state.step)
    if job.is_main:
        if value is None:
            logger.warning(
                "train.best_metric %s is undefined on val: the latest checkpoint counts as the best", best_metric
            )
        remark = f", the best so far by {best_metric} {_number(value)}" if is_best else ""
        logger.info("step %d of %d: %s%s", state.step, horizon.max_steps, val, remark)
        if is_best:
            checkpoint.mark_best(run, state.step)


def _patience_is_over(state: TrainState, *, config: Config) -> bool:
    patience = config.train.early_stopping_evaluations
    if patience is None or state.best.evaluations_since < patience:
        return False
    logger.info("no better %s in %d evaluations: training stops early", config.train.best_metric, patience)
    return True


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _evaluate_best(evaluator: Evaluator, *, run: RunDir, studies: Studies) -> dict[str, SplitEvaluation]:
    """The best checkpoint on val and test, complete studies also with a view withheld."""
    job = evaluator.job
    evaluator.model.load_state_dict(job.share(checkpoint.read_best(run).weights if job.is_main else {}))
    return {
        name: evaluator.evaluate(dataset, name=name, hide_views=True)
        for name, dataset in studies.evaluated.items()
        if name != "train" and len(dataset)
    }


def _summarise(
    evaluations: dict[str, SplitEvaluation],
    *,
    run: RunDir,
    learner: Learner,
    state: TrainState,
    config: Config,
    tracker: Tracker,
) -> None:
    """Final and best values, and the best checkpoint where it is to be tracked."""
    tracker.summarise(
        {
            metric_keys.NUM_PARAMETERS: learner.model.num_parameters,
            metric_keys.BEST_STEP: state.best.step,
            metric_keys.BEST_VALUE: state.best.value,
            **{key: value for evaluation in evaluations.values() for key, value in evaluation.values().items()},
        }
    )
    if config.tracking.log_checkpoint:
        tracker.log_checkpoint(run.checkpoint("best"), name="best", step=state.best.step)


def _write_results(run: RunDir, evaluator: Evaluator, evaluations: dict[str, SplitEvaluation]) -> None:
    """Predictions, operating points and, last of all, the metrics, by which a run counts as finished."""
    job = evaluator.job
    if job.is_main:
        tables = {name: as_predictions(evaluation) for name, evaluation in evaluations.items()}
        for name, table in tables.items():
            table.write(run.predictions(name))
        points = choose_operating_points(
            tables["val"],
            log_pos_weight=evaluator.log_pos_weight,
            several_images_at_test=evaluator.config.data.several_images_at_test,
        )
        points.write(run.operating_points)
        write_metrics(run.metrics, evaluations)
    job.barrier()
