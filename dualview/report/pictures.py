"""Studies with their maps of evidence, as pictures that the page holds in itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from PIL import Image
from scipy.special import logit
from torch import Tensor

from dualview.data.augment import to_input
from dualview.data.dataset import read_first
from dualview.data.images.files import ImageReader
from dualview.data.load import load_data
from dualview.errors import UserError
from dualview.evaluation.value_of_lateral import BEHIND
from dualview.report.gradcam import Views, heat_maps
from dualview.report.record import Record
from dualview.report.tables import probability as digits
from dualview.run.resume import with_overrides
from dualview.run.trained import load_trained
from dualview.views import Availability, View

HEAT_COLOURS = np.array([(48, 18, 59), (40, 120, 220), (30, 200, 160), (240, 200, 40), (230, 70, 20)], float)
MOST_OPAQUE = 0.62
LEAST, MOST = 1e-12, 1 - 1e-12  # bounds beyond which probabilities are equally confident


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Which studies to show, and where their images are."""

    studies: Sequence[str] = ()  # identifiers of studies; empty: the most confident answers are shown
    finding: str | None = None  # finding that is explained; None: the one that gains most with the lateral view
    num_images: int = 4  # number of right answers to show, and of wrong ones
    overrides: Sequence[str] = ()  # `section.field=value` that say where the data are


@dataclass(frozen=True, kw_only=True)
class ViewPicture:
    name: str
    image: str | None  # data URI of a PNG; None: there is no picture
    heat: str | None = None
    note: str = ""
    where: str = ""  # place of the strongest evidence, in words


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One study: its title, what is said of it, and its views."""

    title: str
    says: str
    views: list[ViewPicture]


def draw(record: Record, *, request: ImageRequest) -> list[Picture]:
    """The requested studies of a run's test split with Grad-CAM.

    Raises:
        UserError: no network, no such finding or study, or data that cannot be read.
    """
    if record.evaluation.checkpoint is None:
        whose = "several networks together" if record.evaluation.members else "another software"
        raise UserError(f"{record.run} holds predictions of {whose}, without images; leave out --images")
    k = _finding(record, request.finding)
    chosen = (
        _requested(record, request.studies)
        if request.studies
        else most_confident(record, k=k, number=request.num_images)
    )
    network = load_trained(record.run, name=str(record.evaluation.checkpoint.step))
    config = with_overrides(network.config, list(request.overrides))
    data = load_data(config.data, seed=config.data_seed, store=config.data.store)
    row_of = {
        pair: row for row, pair in enumerate(zip(data.test.study_ids, data.test.patient_ids, strict=True))
    }  # fmt: skip
    shown = []
    for number, at in enumerate(chosen, start=1):
        pair = (record.predictions.study_ids[at], record.predictions.patient_ids[at])
        if (row := row_of.get(pair)) is None:
            raise UserError("the data have changed since the evaluation: a study of it is not in the test split")
        paths = tuple(data.test.images[view][row] for view in View)
        images, notes = _read(paths, read=data.read)
        name = f"study {record.predictions.study_ids[at]}" if request.studies else f"Study {number}"
        maps = heat_maps(network.model, images, finding=k)
        shown.append(_Shown(at, name, images, notes, [None if heat is None else heat * heat.numel() for heat in maps]))
    strongest = max((float(heat.max()) for study in shown for heat in study.maps if heat is not None), default=0.0)
    return [_picture(record, study, k=k, strongest=strongest) for study in shown]


class _Shown(NamedTuple):
    """One study before it is drawn."""

    at: int  # row of the table of predictions
    name: str
    images: Views
    notes: list[str]  # per view, why there is no map
    maps: list[Tensor | None]  # per view, the log-odds there would be if all positions looked like this one


def _finding(record: Record, wanted: str | None) -> int:
    """k of the finding; where none is wanted, the judged one that gains most, or else that with the most positives."""
    if wanted is not None:
        if wanted not in record.findings:
            raise UserError(f"--finding {wanted}: the run {record.name} has {', '.join(record.findings)}")
        return record.findings.index(wanted)
    masked = record.evaluation.masked
    if masked is not None:
        values = [masked.value_of_lateral.findings[name] for name in record.findings]
        gains = [
            value.auroc.value if value.auroc.value is not None and value.verdict not in BEHIND else -np.inf
            for value in values
        ]
        if max(gains) > -np.inf:
            return int(np.argmax(gains))
    return int(record.predictions.positive.sum(axis=0).argmax())


def _requested(record: Record, studies: Sequence[str]) -> list[int]:
    ids = record.predictions.study_ids.astype(str)
    missing = [study for study in studies if study not in ids]
    if missing:
        raise UserError(f"--study {', '.join(missing)}: not evaluated on test in the run {record.name}")
    return [int(at) for study in studies for at in np.flatnonzero(ids == study)]


def most_confident(record: Record, *, k: int, number: int) -> list[int]:
    """Rows of the `number` right answers furthest from their threshold, then of as many wrong ones.

    Half of either have the finding and half do not, as far as there are that many: a map shows evidence for a finding,
    and of studies without it alone there would be little to see. Distance is in log-odds.
    """
    predictions = record.predictions
    probabilities = record.probabilities("route")[:, k]
    known = predictions.label_mask[:, k] & np.isfinite(probabilities)
    margin = _log_odds(probabilities) - _log_odds(_thresholds(record, k)[predictions.availability])
    positive, called = predictions.positive[:, k], margin >= 0
    chosen: list[int] = []
    for is_right in (True, False):
        parts = []
        for is_positive in (True, False):
            rows = np.flatnonzero(known & ((called == positive) == is_right) & (positive == is_positive))
            parts.append(rows[np.argsort(-np.abs(margin[rows]), kind="stable")].tolist())
        with_finding, without = parts
        take = max(-(-number // 2), number - len(without))
        kept = with_finding[:take]
        chosen += kept + without[: number - len(kept)]
    return chosen


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    values: np.ndarray = logit(np.clip(np.nan_to_num(probabilities), LEAST, MOST))
    return values


def _thresholds(record: Record, k: int) -> np.ndarray:
    """(3,) by `Availability`; 1/2 where a route has none."""
    thresholds = np.array([record.points.thresholds([record.findings[k]], route)[0] for route in Availability])
    return np.where(np.isnan(thresholds), 0.5, thresholds)


def _read(paths: tuple[tuple[str, ...], ...], *, read: ImageReader) -> tuple[Views, list[str]]:
    """The first image of each view that can be read, and of absent ones why; file names are not told."""
    images: list[Tensor | None] = [None, None]
    notes = ["", ""]
    for view in View:
        if not paths[view]:
            notes[view] = f"no {view.title} view"
            continue
        image = read_first(paths[view], read=read).image
        if image is None:
            notes[view] = f"the {view.title} image cannot be read"
        else:
            images[view] = to_input(image[None])[0]
    return (images[View.PA], images[View.LATERAL]), notes


def _picture(record: Record, study: _Shown, *, k: int, strongest: float) -> Picture:
    at = study.at
    predictions, finding = record.predictions, record.findings[k]
    probability = float(record.probabilities("route")[at, k])
    threshold = float(_thresholds(record, k)[predictions.availability[at]])
    answer = f"{finding}: probability {digits(probability)}, threshold {digits(threshold)}"
    title, says = f"{study.name}: label unknown", answer
    if predictions.label_mask[at, k]:
        positive = bool(predictions.positive[at, k])
        verdict = "right" if (probability >= threshold) == positive else "wrong"
        title = f"{study.name}: {verdict}, the finding is {'there' if positive else 'not there'}"
    if not any(float(heat.max()) > 0 for heat in study.maps if heat is not None):
        says += "; no evidence for it in any view"
    views = [
        _view(view, study.images[view], heat=study.maps[view], strongest=strongest, note=study.notes[view])
        for view in View
    ]
    kind = Availability(predictions.availability[at])
    return Picture(title=title, says=f"{says}; {kind.title}", views=views)


def _view(view: View, image: Tensor | None, *, heat: Tensor | None, strongest: float, note: str) -> ViewPicture:
    name = view.title
    if image is None:
        return ViewPicture(name=name, image=None, note=note)
    pixels = ((image[0].numpy() + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
    shown = _png(Image.fromarray(pixels))
    if heat is None:
        return ViewPicture(name=name, image=shown, note="this network does not look at it")
    if not strongest:
        return ViewPicture(name=name, image=shown)
    size = (image.shape[-2], image.shape[-1])
    scaled = F.interpolate(heat[None, None] / strongest, size=size, mode="bilinear", align_corners=False)[0, 0]
    share = float(heat.max()) / strongest
    return ViewPicture(
        name=name, image=shown, heat=_png(heat_picture(scaled.numpy())), where=_where(scaled),
        note=f"strongest here: {share:.0%} of the strongest shown",
    )  # fmt: skip


def heat_picture(heat: np.ndarray) -> Image.Image:
    """A map (H, W) in [0, 1] as colours, clear where there is no evidence."""
    places = heat * (len(HEAT_COLOURS) - 1)
    low = np.clip(places.astype(int), 0, len(HEAT_COLOURS) - 2)
    between = (places - low)[..., None]
    colours = HEAT_COLOURS[low] * (1 - between) + HEAT_COLOURS[low + 1] * between
    opacity = 255 * MOST_OPAQUE * np.sqrt(np.clip(heat, 0, 1))
    return Image.fromarray(np.concatenate([colours, opacity[..., None]], axis=2).round().astype(np.uint8), "RGBA")


def _where(heat: Tensor) -> str:
    """The place of the maximum in words, for those who cannot see it."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    vertical = ("upper", "middle", "lower")[min(3 * row // heat.shape[0], 2)]
    horizontal = ("left", "centre", "right")[min(3 * column // heat.shape[1], 2)]
    return f"at the {vertical} {horizontal} of the picture"


def _png(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
