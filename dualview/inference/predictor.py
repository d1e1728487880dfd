"""Asking a trained network: `dualview.load(run).predict(pa=..., lateral=...)`, and what `dualview predict` is made of.

>>> import dualview
>>> network = dualview.load("runs/quickstart")  # doctest: +SKIP
>>> result = network.predict(pa=["a_pa.png", "b_pa.png"], lateral=["a_lateral.png", None])  # doctest: +SKIP
>>> result.as_dict()["Pneumonia"]  # doctest: +SKIP
array([0.83, 0.04])
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dualview.config import SeveralImages
from dualview.data.images.files import Aspect, FileImages, square, to_gray
from dualview.data.remarks import count_remarks
from dualview.data.several_images import StudyImages
from dualview.distributed import is_main_by_environment
from dualview.errors import UserError
from dualview.evaluation.operating_points import OperatingPoints, shift_of, to_probabilities
from dualview.evaluation.points_file import read_operating_points
from dualview.inference.ensemble import (
    MEMBERS,
    SPREAD,
    ask,
    ensemble_id,
    evaluate_command,
    mean_of_members,
    members_of,
    refuse_unlike_members,
)
from dualview.inference.network_points import warn_of_scores
from dualview.inference.studies import RequestDataset, request_of
from dualview.models.network import Network
from dualview.run.directory import EnsembleDir, RunDir
from dualview.run.trained import TrainedNetwork, load_trained
from dualview.views import Availability, availability_of

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
Image = np.ndarray | Tensor | str | os.PathLike[str]
VIEWS_USED = {kind: "+".join(view.key for view in kind.views) for kind in Availability}
NOT_FINITE = "the network's output is not finite: its training has diverged"


class Answers(NamedTuple):
    """What a network, or several together, say of B studies."""

    probabilities: np.ndarray  # (B, K) float64, calibrated as the route is; means nothing where `is_finite` is False
    decisions: np.ndarray  # (B, K) bool; means nothing where `decided` is False
    decided: np.ndarray  # (B, K) bool
    availability: np.ndarray  # (B,) of Availability, the views used
    is_finite: np.ndarray  # (B,) bool
    spread: np.ndarray  # (B, K) standard deviation of the logits over the networks; NaN: fewer than two have judged
    num_members: np.ndarray  # (B,) int64, number of networks that have judged


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """N studies, in the order they were given."""

    findings: tuple[str, ...]  # (K,) names
    predicted: np.ndarray  # (N,) bool: False where no image can be used, or not those that the network needs
    probabilities: np.ndarray  # (N, K) float64, of each study's route; NaN where `predicted` is False
    decisions: np.ndarray  # (N, K) bool: probability >= the route's threshold; False where `decided` is False
    decided: np.ndarray  # (N, K) bool
    views: tuple[str, ...]  # (N,) views that were used: pa+lateral, pa or lateral; blank where `predicted` is False
    reasons: tuple[str, ...]  # (N,) why a study, or one of its images, could not be used; blank where all was well
    spread: np.ndarray | None = (
        None  # (N, K) standard deviation of the networks' logits, NaN for < 2; None: one network
    )
    num_members: np.ndarray | None = None  # (N,) int64, number of networks that have judged; None: one network

    def as_dict(self) -> dict[str, np.ndarray]:
        """Probabilities (N,) by finding."""
        return {finding: self.probabilities[:, k] for k, finding in enumerate(self.findings)}

    def to_frame(self) -> pd.DataFrame:
        """One row per study; columns as in the CSV of `dualview predict`, without the study."""
        columns: dict[str, Any] = {"views": list(self.views)}
        if self.num_members is not None:
            columns[MEMBERS] = self.num_members
        for k, finding in enumerate(self.findings):
            columns[finding] = self.probabilities[:, k]
            decisions = pd.Series(self.decisions[:, k]).astype("Int8")
            columns[f"{finding}_decision"] = decisions.where(pd.Series(self.decided[:, k]))
            if self.spread is not None:
                columns[f"{finding}_{SPREAD}"] = self.spread[:, k]
        return pd.DataFrame({**columns, "reason": list(self.reasons)})


class Predictor:
    """A trained network, or several together, with the preprocessing, calibration and thresholds that belong to it.

    Args:
        trained: the network, or networks with the same findings; they are moved to `device`.
        points: without them decisions are not known and probabilities are not calibrated, but for the weight of
            positives in the loss, which is undone as far as the checkpoint knows it.
        device: where the network runs, always in float32.
        several_images_at_test: what counts of several images of a view; None: as for `points`, else as in training.
        log_pos_weights: SHA-256 of weights -> by finding, for members whose checkpoint does not know.

    Raises:
        UserError: networks that cannot answer together.
    """

    def __init__(
        self,
        trained: TrainedNetwork | Sequence[TrainedNetwork],
        *,
        points: OperatingPoints | None,
        device: torch.device | str = "cpu",
        several_images_at_test: SeveralImages | None = None,
        log_pos_weights: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        networks = [trained] if isinstance(trained, TrainedNetwork) else list(trained)
        if several_images_at_test is not None and several_images_at_test not in get_args(SeveralImages):
            raise UserError(
                f"several_images_at_test is {several_images_at_test!r}; choose {', '.join(get_args(SeveralImages))}"
            )
        self.trained = networks[0]
        self.several_images_at_test = several_images_at_test or several_images_of(networks, points=points)
        self.points = points_for(self.several_images_at_test, points=points)
        self.device = torch.device(device)
        self.findings = self.trained.findings
        self.preparations = list(dict.fromkeys(map(_preparation, networks)))
        numbers = [self.preparations.index(_preparation(network)) for network in networks]
        self.members = members_of(networks, preparations=numbers, log_pos_weights=log_pos_weights)
        for network in networks:
            network.model.to(self.device).eval()

    @property
    def model(self) -> Network:
        """The network; of several the first."""
        return self.trained.model

    @property
    def is_ensemble(self) -> bool:
        return len(self.members) > 1

    def __repr__(self) -> str:
        networks = ", ".join(
            f"{member.network.name} on {member.network.backbone}, {member.trained.folder}" for member in self.members
        )
        sizes = " and ".join(f"{preparation.image_size_px}" for preparation in self.preparations)
        return f"Predictor({networks}, {len(self.findings)} findings, {sizes} px, on {self.device})"

    def predict(
        self,
        *,
        pa: Image | Sequence[Image | Sequence[Image] | None] | None = None,
        lateral: Image | Sequence[Image | Sequence[Image] | None] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Prediction:
        """Probabilities and decisions for one study or several; images are prepared as in training.

        Args:
            pa, lateral: one image, an array or tensor (N, H, W), or a list with an image or None per study; None
                where no study has the view. An image is a path to PNG, JPEG, TIFF or DICOM, or gray pixels (H, W):
                uint8, uint16, or floats in [0, 1], 0 being black. Where a study has several images of a view, its
                entry is a list of them: `pa=[["a.png", "b.png"]]` is one study (`data.several_images_at_test`).
            batch_size: studies, or combinations of their images, per forward pass.

        Raises:
            ValueError: no image, lists of different lengths, or pixels that are not as above.

        An image that cannot be used does not raise: see `Prediction.reasons`.
        """
        images = [as_list(pa, name="pa"), as_list(lateral, name="lateral")]
        lengths = {len(column) for column in images if column is not None}
        if not lengths:
            raise ValueError("give an image of at least one view: pa=..., lateral=...")
        if len(lengths) > 1:
            raise ValueError(
                f"pa has {len(images[0] or ())} studies and lateral {len(images[1] or ())}; give both as many entries, "
                "None where a study does not have the view"
            )
        num_studies = lengths.pop()
        columns = [[None] * num_studies if column is None else column for column in images]
        dataset = self.dataset()
        result = _blank(num_studies, findings=self.findings)
        views, reasons = [""] * num_studies, [""] * num_studies
        remarks: list[tuple[str, str]] = []
        for start in range(0, num_studies, batch_size):
            pairs = zip(columns[0][start : start + batch_size], columns[1][start : start + batch_size], strict=True)
            requests = [request_of((images_of_study(one), images_of_study(other))) for one, other in pairs]
            read = dataset.collate([dataset[request] for request in requests])
            if read.errors:
                raise UserError(read.errors[0])
            reasons[start : start + len(read.studies)] = read.reasons
            remarks += read.remarks
            answers = self.answer(read.images, batch_size=batch_size)
            for n, position in enumerate(read.served):
                row = start + position
                if not answers.is_finite[n]:
                    reasons[row] = NOT_FINITE
                    continue
                result.predicted[row] = True
                result.probabilities[row] = answers.probabilities[n]
                result.decisions[row], result.decided[row] = answers.decisions[n], answers.decided[n]
                result.spread[row], result.num_members[row] = answers.spread[n], answers.num_members[n]
                views[row] = VIEWS_USED[Availability(answers.availability[n])]
        for remark in count_remarks(remarks):
            logger.warning("%s", remark)
        if num_unusable := sum(bool(reason) for reason in reasons):
            logger.warning("%d of %d studies could not be used, or not with all images: see .reasons",
                           num_unusable, num_studies)  # fmt: skip
        return Prediction(
            findings=self.findings, predicted=result.predicted, probabilities=result.probabilities,
            decisions=result.decisions, decided=result.decided, views=tuple(views), reasons=tuple(reasons),
            spread=result.spread if self.is_ensemble else None,
            num_members=result.num_members if self.is_ensemble else None,
        )  # fmt: skip

    def files(self, *, root: Path | None = None, intensity_max: float | None = None) -> list[FileImages]:
        """Readers of image files as in training, one for each preparation; paths are relative to `root`.

        Args:
            intensity_max: the stored value that is white; None: as in training, where all sources had the same.
        """
        return [
            FileImages(
                root,
                image_size_px=preparation.image_size_px,
                aspect=preparation.aspect,
                intensity_max=preparation.intensity_max if intensity_max is None else intensity_max,
            )
            for preparation in self.preparations
        ]

    def dataset(self, *, files: Sequence[FileImages] | None = None) -> RequestDataset:
        """Reader of studies for these networks, of image files by `files`."""
        return RequestDataset(
            read=ImageOrPixels(files or self.files()),
            networks=[member.network for member in self.members],
            takes_all=self.several_images_at_test != "first",
        )

    def answer(self, images: Sequence[StudyImages], *, batch_size: int = BATCH_SIZE) -> Answers:
        """What the networks say together of studies that one of them can judge.

        Args:
            images: of each preparation, the same B studies.
            batch_size: combinations of images per forward pass.
        """
        availability = availability_of(images[0].view_mask)
        # A single network's weight of positives is undone as its operating points say.
        shift = shift_of(self.trained.log_pos_weight, findings=self.findings)
        is_finite = np.ones(images[0].num_studies, bool)
        said = []
        for member in self.members:
            answer = ask(
                member.trained, images[member.preparation], batch_size=batch_size, device=self.device,
                several_images_at_test=self.several_images_at_test,
            )  # fmt: skip
            is_finite &= np.isfinite(answer.logits).all(axis=1) | ~answer.served
            said.append(answer.logits[:, member.columns])
        together = mean_of_members([logits - member.shift for logits, member in zip(said, self.members, strict=True)])
        logits = together.mean if self.is_ensemble else said[0]
        shift = np.zeros(len(self.findings)) if self.is_ensemble else shift
        is_finite &= np.isfinite(logits).all(axis=1)
        probabilities = to_probabilities(np.where(is_finite[:, None], logits, 0), log_pos_weight=shift)
        decisions, decided = np.zeros(logits.shape, bool), np.zeros(logits.shape, bool)
        if self.points is not None:
            for route in Availability:
                rows = (availability == route) & is_finite
                probabilities[rows] = self.points.calibrated(logits[rows], route, findings=self.findings)
                decisions[rows], decided[rows] = self.points.decide(
                    probabilities[rows], route, findings=self.findings
                )  # fmt: skip
        num_members = together.num_members.max(axis=1, initial=0)
        return Answers(probabilities, decisions, decided, availability, is_finite, together.spread, num_members)


class Preparation(NamedTuple):
    """How an image becomes the input of a network."""

    image_size_px: int
    aspect: Aspect
    intensity_max: float | None  # the stored value that is white; None: what a file can hold


def _preparation(trained: TrainedNetwork) -> Preparation:
    data = trained.config.data
    trained_with = {source.intensity_max for source in data.all_sources}
    return Preparation(data.image_size_px, data.aspect, trained_with.pop() if len(trained_with) == 1 else None)


def load(
    run: str | Path | Sequence[str | Path],
    *,
    checkpoint: str = "best",
    device: str = "auto",
    several_images_at_test: SeveralImages | None = None,
) -> Predictor:
    """The network of a run, or those of several together, ready to be asked; see `dualview.load`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    runs = [run] if isinstance(run, str | Path) else list(run)
    if not runs:
        raise UserError("give at least one run")
    networks = [load_trained(RunDir(Path(one)), name=checkpoint) for one in runs]
    refuse_unlike_members(networks)
    points, weights = read_points_of(networks)
    return Predictor(
        networks, points=points, device=device, several_images_at_test=several_images_at_test, log_pos_weights=weights
    )


def read_points_of(
    networks: Sequence[TrainedNetwork], *, warn: bool = True
) -> tuple[OperatingPoints | None, dict[str, dict[str, float]]]:
    """The operating points of a checkpoint, or of several together, and what is kept of the weights of their losses."""
    if len(networks) == 1:
        return read_points(networks[0], warn=warn), {}
    home = find_ensemble(networks)
    points = None if home is None else read_operating_points(home.operating_points)
    if points is None and warn:
        logger.warning(
            "these %d runs have not been evaluated together: decisions stay blank and probabilities uncalibrated. "
            "`%s` makes their operating points", len(networks), evaluate_command(networks),
        )  # fmt: skip
    return points, {} if home is None else home.read_log_pos_weights()


def find_ensemble(networks: Sequence[TrainedNetwork]) -> EnsembleDir | None:
    """Where the evaluation of these networks together has left what belongs to all of them; None: nowhere yet."""
    homes = [network.run.ensemble(ensemble_id(networks)) for network in networks]
    return next((home for home in homes if home.operating_points.exists()), None)


def several_images_of(networks: Sequence[TrainedNetwork], *, points: OperatingPoints | None) -> SeveralImages:
    """What counts of several images of a view where nobody says: as for the operating points, else as in training.

    Raises:
        UserError: networks were trained with different settings, and have no operating points together.
    """
    if points is not None:
        return points.several_images_at_test
    trained_with = dict.fromkeys(network.config.data.several_images_at_test for network in networks)
    if len(trained_with) > 1:
        raise UserError(
            f"the runs have data.several_images_at_test {' and '.join(trained_with)}; say which is meant, such as "
            "data.several_images_at_test=mean"
        )
    return next(iter(trained_with))


def points_for(several_images_at_test: SeveralImages, *, points: OperatingPoints | None) -> OperatingPoints | None:
    """The operating points, unless they were chosen on logits that were made of several images in another way."""
    if points is None or points.several_images_at_test == several_images_at_test:
        return points
    if not is_main_by_environment():
        return None
    logger.warning(
        "the operating points were chosen with data.several_images_at_test %s, not %s: decisions stay blank and "
        "probabilities uncalibrated. `dualview evaluate RUN data.several_images_at_test=%s --set-thresholds` makes "
        "those that fit", points.several_images_at_test, several_images_at_test, several_images_at_test,
    )  # fmt: skip
    return None


def read_points(trained: TrainedNetwork, *, warn: bool = True) -> OperatingPoints | None:
    """The operating points of a checkpoint; None, with a warning, where it has none."""
    file = points_file(trained)
    points = read_operating_points(file)
    if not warn:
        return points
    remedy = f"dualview evaluate {trained.run}" + (
        " --set-thresholds" if trained.is_best else f" --checkpoint {trained.step}"
    )
    if points is not None and not trained.is_best:
        logger.info(
            "step %d is not the best checkpoint: thresholds and calibration are those of its own evaluation, %s (%s)",
            trained.step, file, points.origin,
        )  # fmt: skip
    if points is None:
        logger.warning(
            "%s is not there: decisions stay blank and probabilities uncalibrated. `%s` makes it", file.name, remedy
        )
    warn_of_scores(trained, points)
    if (trained if points is None else points).log_pos_weight is None and not trained.is_unweighted:
        logger.warning(
            "%s is of a dualview that did not undo loss.pos_weight: odds are up to %g times too high, as they were "
            "then. `%s` mends it", "the checkpoint" if points is None else file.name,
            trained.config.loss.pos_weight_max, remedy,
        )  # fmt: skip
    return points


def points_file(trained: TrainedNetwork) -> Path:
    """Where the operating points of a checkpoint lie: of the best with the run, of another beside its evaluation."""
    if trained.is_best:
        return trained.run.operating_points
    # Folders of evaluations are named by step here, because `last` moves.
    evaluations = [trained.run.evaluation(split, checkpoint=str(trained.step)) for split in ("test", "val", "train")]
    files = [evaluation.operating_points for evaluation in evaluations]
    return next((file for file in files if file.exists()), files[0])


class ImageOrPixels:
    """Reader of an image by its path, or from its pixels, into the same (1, S, S) float32 in [-1, 1].

    Args:
        files: a reader for each preparation.
    """

    def __init__(self, files: Sequence[FileImages]) -> None:
        self.files = files
        self.sizes_px = tuple(reader.image_size_px for reader in files)

    def __call__(self, image: Image, *, note: list[tuple[str, str]]) -> tuple[Tensor, ...]:
        """Raises: BadImage as `FileImages` does, ValueError for pixels that are no gray picture.

        Args:
            note: (kind, path) of what is odd about the image is appended.
        """
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            pictures = {files.intensity_max: files for files in self.files}
            decoded = {white: files.picture(path) for white, files in pictures.items()}
            note += [(kind, path) for kind in decoded[self.files[0].intensity_max].remarks]
            return tuple(files.unit_of(path, decoded[files.intensity_max]) * 2 - 1 for files in self.files)
        if image.ndim != 2:
            raise ValueError(f"an image is of shape {tuple(image.shape)}; give gray pixels (H, W)")
        return tuple(
            square(
                to_gray(image, intensity_max=files.intensity_max), name="array", image_size_px=files.image_size_px,
                aspect=files.aspect,
            ) * 2 - 1
            for files in self.files
        )  # fmt: skip


Entry = Image | Sequence[Image] | None  # the images of a study of one view


def images_of_study(entry: Entry) -> Sequence[Image]:
    """What an entry of `predict` holds: no image, one, or a list of several."""
    if entry is None:
        return ()
    if isinstance(entry, list | tuple):
        return [image for image in entry if image is not None]
    return (entry,)  # type: ignore[return-value]  # no other sequence is an image


def as_list(images: Image | Sequence[Entry] | None, *, name: str) -> list[Entry] | None:
    """One entry per study.

    Raises:
        ValueError: an array that is neither (H, W) nor (N, H, W).
    """
    if images is None:
        return None
    if isinstance(images, str | os.PathLike):
        return [images]
    if not isinstance(images, np.ndarray | Tensor):
        return list(images)
    if images.ndim == 2:
        return [images]
    if images.ndim == 3:
        return list(images)
    raise ValueError(
        f"{name} is of shape {tuple(images.shape)}; give gray pixels, (H, W) for one study or (N, H, W) for several"
    )


class _Blank(NamedTuple):
    predicted: np.ndarray
    probabilities: np.ndarray
    decisions: np.ndarray
    decided: np.ndarray
    spread: np.ndarray
    num_members: np.ndarray


def _blank(num_studies: int, *, findings: Sequence[str]) -> _Blank:
    shape = (num_studies, len(findings))
    return _Blank(
        np.zeros(num_studies, bool), np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool),
        np.full(shape, np.nan), np.zeros(num_studies, np.int64),
    )  # fmt: skip
