"""Measures for docs/exactness.md what DDP does by default to a two-view network, and what dualview does instead.

    pip install -e ".[docs]"
    accelerate launch --config_file launch/cpu2.yaml -m dualview train configs/quickstart.yaml run.dir=runs/exactness
    accelerate launch --config_file launch/cpu2.yaml docs/generate/exactness.py runs/exactness

Real DDP with two processes on phantoms of 64 px: gradients of two DenseNet121, statistics of the small network
trained by the first command. Some minutes on two cores. Draws docs/exactness/*.svg and prints the figures that
the page quotes.
"""

import copy
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from rich import print
from rich.progress import track
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dualview.batch import HeadLogits, StudyBatch
from dualview.bench import schedule
from dualview.config import Config, DistributedConfig, PhantomConfig, RunConfig
from dualview.config import load as load_config
from dualview.data.dataset import Loaded, StudyDataset
from dualview.data.epoch_plan import plan_epoch
from dualview.data.sources.phantom import FINDINGS, draw
from dualview.distributed import Job, start
from dualview.losses import head_loss_sums, study_losses
from dualview.models import build_model
from dualview.models.auxloss import AuxLoss
from dualview.models.network import Network
from dualview.training.learner import Learner, build_learner
from dualview.training.step import count, take_step, update_statistics

CONFIG = Config.model_validate({"train": {"channels_last": False}})
PICTURES = Path(__file__).parents[1] / "exactness"
SIZE_PX, MICRO_BATCH = 64, 8
Mix = tuple[float, float, float]  # both, PA only, lateral only
Curves = dict[str, list[tuple[float, float]]]  # per step: error of logits, AUROC
COMMON, RARE = (0.50, 0.49, 0.01), (0.10, 0.89, 0.01)
MIXES = {"51 % of studies have a lateral": COMMON, "11 % of studies have a lateral": RARE}
GRADIENT_STEPS, STATISTICS_STEPS, PROBES = 12, 40, 256
SEEN_FROM_THE_SIDE = [FINDINGS.index("Retrosternal opacity"), FINDINGS.index("Posterior effusion")]
OURS, DEFAULT = "#1b7837", "#b2182b"


def micro_batches(mix: Mix, *, steps: int, ranks: int, seed: int = 0) -> list[list[StudyBatch]]:
    """Shuffled phantoms: for each step one micro-batch per rank."""
    both, pa_only, lateral_only = mix
    phantoms = PhantomConfig(
        num_studies=steps * ranks * MICRO_BATCH, both=both, pa_only=pa_only, lateral_only=lateral_only
    )
    table, read = draw(phantoms, seed=seed, image_size_px=SIZE_PX)
    dataset = StudyDataset(table, read=read, image_size_px=SIZE_PX, seed=0)
    plan = plan_epoch(
        table.availability, seed=0, epoch=0, micro_batch_size=MICRO_BATCH, micro_batches_per_group=ranks,
        order="shuffled",
    )  # fmt: skip

    def load(step: int, rank: int) -> StudyBatch:
        studies = [dataset[0, int(row)] for row in plan.micro_batch(step, number=rank)]
        return dataset.collate(studies).batch

    return [[load(step, rank) for rank in range(ranks)] for step in range(steps)]


# -- the gradient ------------------------------------------------------------------------------------


def sum_of_means(outputs: list[tuple[HeadLogits, StudyBatch]]) -> Tensor:
    """What one writes first: for each head, the mean over the studies that reach it; heads weighted 1, 0.3, 0.3."""
    total = outputs[0][0].pa.sum() * 0
    for head, weight in (("joint", 1.0), ("pa", 0.3), ("lateral", 0.3)):
        losses = []
        for predictions, batch in outputs:
            rows = getattr(batch.rows, "both" if head == "joint" else head)
            logits = getattr(predictions, head)
            losses.append(study_losses(logits, labels=batch.labels[rows], label_mask=batch.label_mask[rows]))
        if len(torch.cat(losses)):
            total = total + weight * torch.cat(losses).mean()
    return total


def gradient(model: nn.Module, *, of: Tensor | None = None) -> Tensor:
    """All gradients as one vector; idle parts as zeros."""
    if of is not None:
        of.backward()
    vector = torch.cat([
        (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten()
        for parameter in model.parameters()
    ])  # fmt: skip
    model.zero_grad(set_to_none=True)
    return vector


def gradient_errors(job: Job, model: nn.Module, mix: Mix) -> dict[str, list[float]]:
    """|gradient on R ranks - gradient of the same loss on one| / |the latter|, for each step; nothing is trained."""
    by_default, alone = (copy.deepcopy(model).double().train() for _ in range(2))
    default_ddp = DistributedDataParallel(by_default, find_unused_parameters=True)
    on_all_ranks = learner_that_stays(copy.deepcopy(model), job=job)
    errors: dict[str, list[float]] = {"default": [], "dualview": []}
    steps = micro_batches(mix, steps=GRADIENT_STEPS, ranks=job.world_size)
    for step, batches in enumerate(track(steps, "gradients", transient=True, disable=not job.is_main)):
        group = [in_float64(batch) for batch in batches]
        batch = group[job.rank]
        found = {"default": gradient(by_default, of=sum_of_means([(default_ddp(batch), batch)]))}
        found["dualview"] = gradient_of_step(on_all_ranks, [batch], step=step, job=job)
        if job.is_main:
            truth = {"default": gradient(alone, of=sum_of_means([(alone(batch), batch) for batch in group]))}
            labelled = sum(int(batch.label_mask.any(dim=1).sum()) for batch in group)
            losses = [head_loss_sums(alone(batch), batch=batch).total for batch in group]
            truth["dualview"] = gradient(alone, of=torch.stack(losses).sum() / labelled)
            for name, vector in found.items():
                errors[name].append(float((vector - truth[name]).norm() / truth[name].norm()))
    return errors


def learner_that_stays(model: Network, *, job: Job) -> Learner:
    """The network as `dualview train` trains it, in float64, with an optimizer that moves nothing."""
    learner = build_learner(model.double().train(), config=CONFIG, job=job)
    return replace(learner, optimizer=torch.optim.SGD(model.parameters(), lr=0))


def gradient_of_step(learner: Learner, batches: list[StudyBatch], *, step: int, job: Job) -> Tensor:
    """The gradient that a step of `dualview train` hands to its optimizer."""
    found: list[Tensor] = []
    hook = learner.optimizer.register_step_pre_hook(lambda *_: found.append(gradient(learner.model)))
    group = [Loaded(batch, ()) for batch in batches]
    take_step(learner, group, counts=count(group, step=step, job=job), step=step, job=job)
    hook.remove()
    return found[0]


def in_float64(batch: StudyBatch) -> StudyBatch:
    return batch._replace(pa=batch.pa.double(), lateral=batch.lateral.double(), labels=batch.labels.double())


# -- running statistics ------------------------------------------------------------------------------


def trained_network(run_dir: Path) -> AuxLoss:
    """The best network of a finished run on phantoms."""
    config = load_config(run_dir / "config.yaml")
    model = build_model("auxloss", num_findings=len(FINDINGS), backbone=config.model.backbone)
    model.load_state_dict(load_file(run_dir / "checkpoints" / "best" / "model.safetensors"))
    return model


def without_statistics(model: AuxLoss) -> AuxLoss:
    """A copy with the same weights whose running statistics are as at the start of a training."""
    model = copy.deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
    return model


class Judge:
    """Judges running statistics by the lateral head's logits, in evaluation mode, on PROBES studies."""

    @torch.no_grad()
    def __init__(self, model: AuxLoss, steps: list[list[StudyBatch]]) -> None:
        probe = [batch for (batch,) in micro_batches((0, 0, 1), steps=PROBES // MICRO_BATCH, ranks=1, seed=1)]
        self.images = torch.cat([batch.lateral for batch in probe])
        self.labels = torch.cat([batch.labels for batch in probe])[:, SEEN_FROM_THE_SIDE]
        # the truth: statistics of all lateral images of all steps and ranks, each counted once
        reference = without_statistics(model)
        statistics = reference.pool_statistics()["lateral"]
        for layer in statistics.layers:
            layer.momentum = 1.0
        num_rows = 0
        for batch in (batch for group in steps for batch in group):
            reference.lateral(batch.lateral)
            num_rows += len(batch.lateral)
        statistics.update(num_rows)
        self.truth = self.logits(reference)

    @torch.no_grad()
    def logits(self, model: AuxLoss) -> Tensor:
        model.eval()
        logits = model.lateral(self.images).logits[:, SEEN_FROM_THE_SIDE]
        model.train()
        return logits

    def __call__(self, model: AuxLoss) -> tuple[float, float]:
        """Root mean square error of the logits, in standard deviations of the true ones; and macro AUROC."""
        logits = self.logits(model)
        error = ((logits - self.truth) / self.truth.std(dim=0)).square().mean().sqrt()
        return float(error), float(roc_auc_score(self.labels, logits.nan_to_num()))


@torch.no_grad()
def placeholder_errors(model: AuxLoss, mix: Mix) -> Curves:
    """One process: statistics with a zero image for every missing lateral, and of the images that exist."""
    steps = micro_batches(mix, steps=STATISTICS_STEPS, ranks=2)
    judge = Judge(model, steps)
    zeros, routed = without_statistics(model), without_statistics(model)
    statistics = routed.pool_statistics()["lateral"]
    curves: Curves = {"zero images": [], "dualview": []}
    for group in track(steps, "zero images", transient=True):
        for batch in group:
            dense = torch.zeros(batch.num_studies, *batch.lateral.shape[1:])
            dense[batch.rows.lateral] = batch.lateral
            zeros.lateral(dense)
            routed.lateral(batch.lateral)
        statistics.update(sum(len(batch.lateral) for batch in group))
        curves["zero images"].append(judge(zeros))
        curves["dualview"].append(judge(routed))
    return curves


@torch.no_grad()
def rank0_errors(job: Job, model: AuxLoss, *, rank0_has_laterals: bool) -> Curves:
    """Real DDP, forward passes only: rank 0's statistics, which DDP gives to every rank, and dualview's."""
    steps = micro_batches(RARE, steps=STATISTICS_STEPS, ranks=job.world_size)
    if not rank0_has_laterals:  # as where each rank reads one hospital
        steps = [[without_laterals(first), *rest] for first, *rest in steps]
    judge = Judge(model, steps)
    by_default, ours = without_statistics(model), without_statistics(model)
    default_ddp, our_ddp = DistributedDataParallel(by_default, find_unused_parameters=True), job.wrap(ours)
    statistics = ours.pool_statistics()
    curves: Curves = {"default": [], "dualview": []}
    for step, group in enumerate(track(steps, "rank 0", transient=True, disable=not job.is_main)):
        default_ddp(group[job.rank])
        our_ddp(group[job.rank])
        counts = count([Loaded(group[job.rank], ())], step=step, job=job)
        for branch in statistics.values():
            job.sum(branch.sums)
        update_statistics(statistics, counts=counts)
        if job.is_main:  # it writes the checkpoint
            curves["default"].append(judge(by_default))
            curves["dualview"].append(judge(ours))
    return curves


def without_laterals(batch: StudyBatch) -> StudyBatch:
    has_pa = batch.view_mask[:, 0]
    return StudyBatch.from_views(
        pa=list(batch.pa), lateral=[None] * len(batch.pa), labels=batch.labels[has_pa],
        label_mask=batch.label_mask[has_pa], image_shape=tuple(batch.pa.shape[1:]),
    )  # fmt: skip


# -- pictures ----------------------------------------------------------------------------------------


def picture(name: str, columns: int = 2) -> tuple[plt.Figure, list[plt.Axes]]:
    plt.rcParams.update({"svg.hashsalt": name, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, columns, figsize=(4.2 * columns, 2.9), layout="constrained", sharey=True)
    return figure, list(np.atleast_1d(axes))


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def draw_gradients(errors: dict[str, dict[str, list[float]]]) -> None:
    figure, axes = picture("gradient")
    for axis, (mix, of_mix) in zip(axes, errors.items(), strict=True):
        for name, color, label in (("default", DEFAULT, "each rank's own means"), ("dualview", OURS, "dualview")):
            size = 7 if name == "default" else 4  # both are 0 where the ranks happen to count the same
            axis.plot(range(1, GRADIENT_STEPS + 1), of_mix[name], "o", color=color, label=label, markersize=size)
        axis.set(title=mix, xlabel="step")
    axes[0].set_ylabel("relative error of the gradient")
    axes[0].legend(frameon=False)
    save(figure, "gradient")


def draw_curves(name: str, errors: dict[str, Curves], labels: dict[str, str]) -> None:
    figure, axes = picture(name)
    for axis, (title, curves) in zip(axes, errors.items(), strict=True):
        for key, values in curves.items():
            color = OURS if key == "dualview" else DEFAULT
            axis.semilogy(range(1, len(values) + 1), [error for error, _ in values], color=color, label=labels[key])
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("error of lateral logits\n(standard deviations)")
    axes[0].legend(frameon=False)
    save(figure, name)


def draw_stragglers() -> dict[str, list[schedule.ScheduleRow]]:
    figure, axes = picture("straggler")
    found = {}
    for axis, mix in zip(axes, ("50/49/1", "10/89/1"), strict=True):
        rows = found[mix] = schedule.measure(mix=schedule.parse_mix(mix))
        for order, color in (("shuffled", DEFAULT), ("view_balanced", OURS)):
            of_order = [row for row in rows if row.order == order]
            axis.plot([row.ranks for row in of_order], [row.straggler for row in of_order], "o-", color=color,
                      label=order, markersize=3)  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set(title=f"{mix} both / PA only / lateral only", xlabel="ranks")
    axes[0].set_ylabel("images of the slowest rank\n/ images of the mean rank")
    axes[0].legend(frameon=False)
    save(figure, "straggler")
    return found


def main(run_dir: Path) -> None:
    PICTURES.mkdir(exist_ok=True)
    trained = trained_network(run_dir)
    with start(RunConfig(device="cpu"), distributed=DistributedConfig()) as job:
        if job.world_size < 2:
            raise SystemExit("launch this with two processes: accelerate launch --config_file launch/cpu2.yaml ...")
        torch.set_num_threads(1)
        fresh = build_model("auxloss", num_findings=len(FINDINGS), seed=0)
        gradients = {title: gradient_errors(job, fresh, mix) for title, mix in MIXES.items()}
        rank0 = {
            "rank 0 has no lateral": rank0_errors(job, trained, rank0_has_laterals=False),
            "11 % of studies have a lateral, shuffled": rank0_errors(job, trained, rank0_has_laterals=True),
        }
        job.barrier()
        if not job.is_main:
            return
        zeros = {title: placeholder_errors(trained, mix) for title, mix in MIXES.items()}
    draw_gradients(gradients)
    draw_curves("rank0", rank0, {"default": "DDP's default", "dualview": "dualview"})
    draw_curves("zero-images", zeros, {"zero images": "zero images for missing views", "dualview": "dualview"})
    stragglers = draw_stragglers()

    print("\n[bold]relative error of the gradient, over steps[/bold]")
    for title, of_mix in gradients.items():
        for name, errors in of_mix.items():
            print(f"  {title}: {name}: median {np.median(errors):.2g}, largest {max(errors):.2g}")
    print(f"\n[bold]error of lateral logits and their AUROC after {STATISTICS_STEPS} steps[/bold]")
    for title, curves in (rank0 | zeros).items():
        for name, values in curves.items():
            print(f"  {title}: {name}: {values[-1][0]:.3g}, {values[-1][1]:.3f}")
    print("\n[bold]straggler factor[/bold]")
    for mix, rows in stragglers.items():
        for row in rows:
            if row.ranks in (8, 1024):
                print(f"  {mix}, {row.ranks} ranks, {row.order}: {row.straggler:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
