"""Asking a trained network: `dualview.load(run).predict(pa=..., lateral=...)`, and what `dualview predict` is made of.

>>> import dualview
>>> network = dualview.load("runs/quickstart")  # doctest: +SKIP
>>> result = network.predict(pa=["a_pa.png", "b_pa.png"], lateral=["a_lateral.png", None])  # doctest: +SKIP
>>> result.as_dict()["Pneumonia"]  # doctest: +SKIP
array([0.83, 0.04])
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dualview.batch import StudyBatch
from dualview.data.images.files import FileImages, square, to_gray
from dualview.data.remarks import count_remarks
from dualview.errors import UserError
from dualview.evaluation.operating_points import OperatingPoints, shift_of, to_probabilities
from dualview.evaluation.points_file import read_operating_points
from dualview.inference.studies import RequestDataset, StudyRequest
from dualview.run.directory import RunDir
from dualview.run.trained import TrainedNetwork, load_trained
from dualview.views import Availability, availability_of

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
Image = np.ndarray | Tensor | str | os.PathLike[str]
VIEWS_USED = {kind: "+".join(view.key for view in kind.views) for kind in Availability}
NOT_FINITE = "the network's output is not finite: its training has diverged"


class Answers(NamedTuple):
    """What a network says of a batch, on the CPU."""

    probabilities: np.ndarray  # (B, K) float64, calibrated as the route is; means nothing where `is_finite` is False
    decisions: np.ndarray  # (B, K) bool; means nothing where `decided` is False
    decided: np.ndarray  # (B, K) bool
    availability: np.ndarray  # (B,) of Availability, the views used
    is_finite: np.ndarray  # (B,) bool


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

    def as_dict(self) -> dict[str, np.ndarray]:
        """Probabilities (N,) by finding."""
        return {finding: self.probabilities[:, k] for k, finding in enumerate(self.findings)}

    def to_frame(self) -> pd.DataFrame:
        """One row per study; columns as in the CSV of `dualview predict`, without the study."""
        columns: dict[str, Any] = {"views": list(self.views)}
        for k, finding in enumerate(self.findings):
            columns[finding] = self.probabilities[:, k]
            decisions = pd.Series(self.decisions[:, k]).astype("Int8")
            columns[f"{finding}_decision"] = decisions.where(pd.Series(self.decided[:, k]))
        return pd.DataFrame({**columns, "reason": list(self.reasons)})


class Predictor:
    """A trained network with the preprocessing, calibration and thresholds that belong to it.

    Args:
        trained: the network; it is moved to `device`.
        points: without them decisions are not known and probabilities are not calibrated, but for the weight of
            positives in the loss, which is undone as far as the checkpoint knows it.
        device: where the network runs, always in float32.
    """

    def __init__(
        self, trained: TrainedNetwork, *, points: OperatingPoints | None, device: torch.device | str = "cpu"
    ) -> None:
        self.trained = trained
        self.points = points
        self.device = torch.device(device)
        self.findings = trained.findings
        self.vote = trained.config.model.joint_rule == "vote"
        self.model = trained.model.to(self.device).eval()

    def __repr__(self) -> str:
        model = self.trained.config.model
        return (
            f"Predictor({model.name} on {model.backbone}, {self.trained.folder}, {len(self.findings)} findings, "
            f"{self.trained.config.data.image_size_px} px, on {self.device})"
        )

    def predict(
        self,
        *,
        pa: Image | Sequence[Image | None] | None = None,
        lateral: Image | Sequence[Image | None] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Prediction:
        """Probabilities and decisions for one study or several; images are prepared as in training.

        Args:
            pa, lateral: one image, an array or tensor (N, H, W), or a list with an image or None per study; None
                where no study has the view. An image is a path to PNG, JPEG, TIFF or DICOM, or gray pixels (H, W):
                uint8, uint16, or floats in [0, 1], 0 being black.
            batch_size: studies per forward pass.

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
            read = dataset.collate([dataset[StudyRequest(images=pair)] for pair in pairs])
            if read.errors:
                raise UserError(read.errors[0])
            reasons[start : start + len(read.studies)] = read.reasons
            remarks += read.remarks
            answers = self.answer(read.batch)
            for n, position in enumerate(read.served):
                row = start + position
                if not answers.is_finite[n]:
                    reasons[row] = NOT_FINITE
                    continue
                result.predicted[row] = True
                result.probabilities[row] = answers.probabilities[n]
                result.decisions[row], result.decided[row] = answers.decisions[n], answers.decided[n]
                views[row] = VIEWS_USED[Availability(answers.availability[n])]
        for remark in count_remarks(remarks):
            logger.warning("%s", remark)
        if num_unusable := sum(bool(reason) for reason in reasons):
            logger.warning("%d of %d studies could not be used, or not with all images: see .reasons",
                           num_unusable, num_studies)  # fmt: skip
        return Prediction(
            findings=self.findings, predicted=result.predicted, probabilities=result.probabilities,
            decisions=result.decisions, decided=result.decided, views=tuple(views), reasons=tuple(reasons),
        )  # fmt: skip

    def files(self, *, root: Path | None = None, intensity_max: float | None = None) -> FileImages:
        """Reader of image files as in training; paths are relative to `root`.

        Args:
            intensity_max: the stored value that is white; None: as in training, where all sources had the same.
        """
        data = self.trained.config.data
        trained_with = {source.intensity_max for source in data.all_sources}
        if intensity_max is None and len(trained_with) == 1:
            (intensity_max,) = trained_with
        return FileImages(root, image_size_px=data.image_size_px, aspect=data.aspect, intensity_max=intensity_max)

    def dataset(self, *, files: FileImages | None = None) -> RequestDataset:
        """Reader of studies for this network, of image files by `files`."""
        data, model = self.trained.config.data, self.trained.config.model
        return RequestDataset(
            read=ImageOrPixels(files or self.files()),
            views=model.views,
            needs_all=model.needs_all_views,
            network=f"{model.name} of {model.view}" if model.name == "single" else model.name,
            image_size_px=data.image_size_px,
        )

    def answer(self, batch: StudyBatch) -> Answers:
        """What the network says of studies that it can take, in float32 and without TensorFloat-32."""
        view_mask = batch.view_mask.numpy()
        availability = availability_of(view_mask)
        logits = np.zeros((batch.num_studies, len(self.findings)))
        if batch.num_studies:
            on_device = _moved(batch, self.device)
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, enabled=False),
                torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False),
            ):
                logits = self.model(on_device).by_route(on_device, vote=self.vote).double().cpu().numpy()
        is_finite: np.ndarray = np.asarray(np.isfinite(logits).all(axis=1))
        shift = shift_of(self.trained.log_pos_weight, findings=self.findings)
        probabilities = to_probabilities(np.where(is_finite[:, None], logits, 0), log_pos_weight=shift)
        decisions, decided = np.zeros(logits.shape, bool), np.zeros(logits.shape, bool)
        if self.points is not None:
            for route in Availability:
                rows = (availability == route) & is_finite
                probabilities[rows] = self.points.calibrated(logits[rows], route, findings=self.findings)
                decisions[rows], decided[rows] = self.points.decide(
                    probabilities[rows], route, findings=self.findings
                )  # fmt: skip
        return Answers(probabilities, decisions, decided, availability, is_finite)


def load(run: str | Path, *, checkpoint: str = "best", device: str = "auto") -> Predictor:
    """The network of a run, ready to be asked; see `dualview.load`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    trained = load_trained(RunDir(Path(run)), name=checkpoint)
    return Predictor(trained, points=read_points(trained), device=device)


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
    """Reader of an image by its path, or from its pixels, into the same (1, S, S) float32 in [-1, 1]."""

    def __init__(self, files: FileImages) -> None:
        self.files = files

    def __call__(self, image: Image, *, note: list[tuple[str, str]]) -> Tensor:
        """Raises: BadImage as `FileImages` does, ValueError for pixels that are no gray picture.

        Args:
            note: (kind, path) of what is odd about the image is appended.
        """
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            picture = self.files.picture(path)
            note += [(kind, path) for kind in picture.remarks]
            return self.files.unit_of(path, picture) * 2 - 1
        if image.ndim != 2:
            raise ValueError(f"an image is of shape {tuple(image.shape)}; give gray pixels (H, W)")
        gray = to_gray(image, intensity_max=self.files.intensity_max)
        return square(gray, name="array", image_size_px=self.files.image_size_px, aspect=self.files.aspect) * 2 - 1


def as_list(images: Image | Sequence[Image | None] | None, *, name: str) -> list[Image | None] | None:
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


def _blank(num_studies: int, *, findings: Sequence[str]) -> _Blank:
    shape = (num_studies, len(findings))
    return _Blank(np.zeros(num_studies, bool), np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool))


def _moved(batch: StudyBatch, device: torch.device) -> StudyBatch:
    """The batch on a device."""
    if device.type == "cpu":
        return batch
    rows = type(batch.rows)(*(tensor.to(device) for tensor in batch.rows))
    others = {name: getattr(batch, name).to(device, non_blocking=True) for name in batch._fields if name != "rows"}
    return StudyBatch(rows=rows, **others)
