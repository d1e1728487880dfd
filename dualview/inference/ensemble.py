"""One network, or several that answer together: the logits of each route are averaged over those that can judge it.

What the loss has added to the logits of a member, log(pos_weight), is subtracted from them first, so that members of
different weights mix rightly. A member answers for the studies that it was made for: `single` of PA sees the PA of a
complete study, `stacked` says nothing of a study with one view. So which members answer depends on the route alone,
and thresholds and calibration are those of the route.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dualview.batch import StudyBatch
from dualview.config import ModelConfig, SeveralImages
from dualview.data.several_images import StudyImages, combined
from dualview.errors import UserError
from dualview.evaluation.operating_points import shift_of
from dualview.run.trained import TrainedNetwork

SPREAD = "spread"  # standard deviation over members: FINDING_spread in the CSV, FINDING/spread in the parquet file
MEMBERS = "members"  # column of the CSV: number of members that answered


@dataclass(frozen=True, kw_only=True)
class Member:
    """A network among others."""

    trained: TrainedNetwork
    preparation: int  # number of the images that it takes among those that are prepared
    columns: np.ndarray  # (K,) int64: where the findings of all stand among its own
    shift: np.ndarray  # (K,) what is subtracted from its logits

    @property
    def network(self) -> ModelConfig:
        return self.trained.config.model


class MeanLogits(NamedTuple):
    """What members say together."""

    mean: np.ndarray  # (..., K) float64; NaN where no member has a logit
    spread: np.ndarray  # (..., K) standard deviation over members, n - 1; NaN where fewer than two have one
    num_members: np.ndarray  # (..., K) int64, number of members that have one


def mean_of_members(logits: Sequence[np.ndarray]) -> MeanLogits:
    """The mean over members of (..., K) logits, NaN where a member has none; members count alike."""
    stacked = np.stack(logits).astype(np.float64)
    there = ~np.isnan(stacked)
    num_members = there.sum(axis=0)
    sums = np.where(there, stacked, 0).sum(axis=0)
    mean = np.divide(sums, num_members, out=np.full(sums.shape, np.nan), where=num_members > 0)
    squares = np.where(there, (stacked - mean) ** 2, 0).sum(axis=0)
    variance = np.divide(squares, num_members - 1, out=np.full(sums.shape, np.nan), where=num_members > 1)
    return MeanLogits(mean, np.sqrt(variance), num_members)


def refuse_unlike_members(networks: Sequence[TrainedNetwork]) -> None:
    """Look for networks that cannot answer together.

    Raises:
        UserError: one network twice, other findings, or a finding with the name of a column of an ensemble.
    """
    first = networks[0]
    by_weights: dict[str, TrainedNetwork] = {}
    for network in networks:
        lacking = sorted(set(first.findings) - set(network.findings))
        further = sorted(set(network.findings) - set(first.findings))
        if lacking or further:
            parts = [f"lacks {', '.join(lacking)}"] * bool(lacking) + [f"has also {', '.join(further)}"] * bool(further)
            raise UserError(
                f"networks that answer together must have the same findings: beside {first.run}, {network.run} "
                + " and ".join(parts)
            )
        twin = by_weights.setdefault(network.weights_sha256, network)
        if twin is not network:
            raise UserError(
                f"{twin.run} and {network.run} hold the same network (equal weights), which would only count twice; "
                "give each network once"
            )
    columns = {MEMBERS, *(f"{finding}_{SPREAD}" for finding in first.findings)}
    if len(networks) > 1 and (taken := sorted(columns & set(first.findings))):
        raise UserError(
            f"finding {', '.join(taken)} has the name of a column that several runs together write; ask each run alone"
        )


def members_of(
    networks: Sequence[TrainedNetwork],
    *,
    preparations: Sequence[int],
    log_pos_weights: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Member]:
    """The networks as members; of several the findings are in the order of the first.

    Args:
        preparations: number of the images that each takes.
        log_pos_weights: SHA-256 of weights -> what the loss has added, for checkpoints that do not say.

    Raises:
        UserError: they cannot answer together, or nobody knows what a loss has added.
    """
    refuse_unlike_members(networks)
    members = []
    for network, preparation in zip(networks, preparations, strict=True):
        known: Mapping[str, float] | None = network.log_pos_weight
        known = (log_pos_weights or {}).get(network.weights_sha256) if known is None else known
        if known is None and len(networks) > 1:
            raise UserError(
                f"{network.folder} is of a dualview that did not keep the weights of loss.pos_weight, so its logits "
                f"cannot be averaged with others. `{evaluate_command(networks)}` counts them anew, and keeps them"
            )
        members.append(
            Member(
                trained=network,
                preparation=preparation,
                columns=np.array([network.findings.index(name) for name in networks[0].findings], np.int64),
                shift=shift_of(known, findings=networks[0].findings),
            )
        )
    return members


def evaluate_command(networks: Sequence[TrainedNetwork]) -> str:
    """What to type to have these networks evaluated together."""
    words = ["dualview evaluate", *(str(network.run) for network in networks)]
    if not all(network.is_best for network in networks):
        steps = {network.step for network in networks}
        words.append(f"--checkpoint {steps.pop() if len(steps) == 1 else 'last'}")  # no other name has several steps
    return " ".join(words)


def ensemble_id(networks: Sequence[TrainedNetwork]) -> str:
    """Eight hexadecimal digits of the weights of all, in whatever order they are given."""
    text = "\n".join(sorted(network.weights_sha256 for network in networks))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class MemberLogits(NamedTuple):
    """What one network says of B studies."""

    logits: np.ndarray  # (B, K) float64, in its own order of findings; means nothing where not `served`
    served: np.ndarray  # (B,) bool


def ask(
    network: TrainedNetwork,
    images: StudyImages,
    *,
    several_images_at_test: SeveralImages,
    batch_size: int,
    device: torch.device,
) -> MemberLogits:
    """The logits of a network's routes, in float32 and without TensorFloat-32.

    Args:
        network: on `device`, in eval mode.
        batch_size: number of combinations of images per forward pass.
    """
    model = network.config.model
    seen = images.seen_by(model.views, needs_all=model.needs_all_views)
    rows, parts = [], []
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False),
    ):
        for studies, batch in seen.batches(batch_size):
            on_device = _moved(batch, device)
            logits = network.model(on_device).by_route(on_device, vote=model.joint_rule == "vote")
            rows.append(studies.numpy())
            parts.append(logits.double().cpu().numpy())
    served = np.zeros(images.num_studies, bool)
    if not rows:
        return MemberLogits(np.full((images.num_studies, len(network.findings)), np.nan), served)
    of_rows = np.concatenate(rows)
    served[of_rows] = True
    answer = combined(
        np.concatenate(parts), studies=of_rows, num_studies=images.num_studies, how=several_images_at_test
    )
    return MemberLogits(answer, served)


def _moved(batch: StudyBatch, device: torch.device) -> StudyBatch:
    """The batch on a device."""
    if device.type == "cpu":
        return batch
    rows = type(batch.rows)(*(tensor.to(device) for tensor in batch.rows))
    others = {name: getattr(batch, name).to(device, non_blocking=True) for name in batch._fields if name != "rows"}
    return StudyBatch(rows=rows, **others)
