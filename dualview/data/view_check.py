"""Whether pictures are of the view that the table says: wrong views found from pixels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from dualview.data.augment import to_input
from dualview.data.images.files import ImageReader
from dualview.data.table import StudyTable
from dualview.data.view_classifiers import (
    HOG_SIZE_PX,
    XRV_SIZE_PX,
    ask_xrv,
    cross_validated,
    gradient_histograms,
    mirror_symmetry,
    open_xrv,
    xrv_weights,
)
from dualview.errors import BadImage, UserError
from dualview.progress import Track
from dualview.views import View

CHUNK = 32  # number of images that are judged at a time
FEWEST_IMAGES, FEWEST_PATIENTS = 10, 5  # of each view, to train a classifier on
WEAK_AUROC = 0.8
EXCHANGED_AUROC = 0.35  # below it, laterals are more like their mirror images than frontals are


@dataclass(frozen=True, kw_only=True)
class ViewCheck:
    """What the pictures say about the views of a table.

    An image is suspect where the classifier gives the view in the table a probability below 1/2.
    """

    classifier: str
    num_images: int  # images of the table, looked at or not
    bad: tuple[tuple[str, str], ...]  # (path, reason) of images that could not be read
    images: pd.DataFrame  # path, view, probability (of that view); a row per image that was judged, worst first
    auroc: float | None  # of lateral against frontal as the table has them; None where it has one view only
    exchanged: bool  # whether the two views look as if the table called each by the other's name

    @property
    def suspects(self) -> pd.DataFrame:
        """The rows of `images` whose picture contradicts the table, worst first."""
        return self.images[self.images["probability"] < 0.5]

    @property
    def accuracy(self) -> float:
        """Share of the judged images whose picture agrees with the table."""
        return 1 - len(self.suspects) / len(self.images)

    @property
    def warnings(self) -> list[str]:
        """What to know before the list of suspects is believed."""
        warnings = []
        if self.exchanged:
            warnings.append(
                "the images that the table calls lateral are more like their mirror images than those it calls "
                "frontal: the two views may be exchanged throughout, which the list cannot show"
            )
        if self.auroc is not None and self.auroc < WEAK_AUROC:
            warnings.append(
                f"an AUROC of {self.auroc:.3f} is low for views of a chest: many views of the table are wrong, or the "
                "pictures are not what the classifier knows; look at them before you believe the list"
            )
        return warnings


def check_views(
    tables: Sequence[StudyTable], *, read: ImageReader, limit: int, seed: int, num_workers: int, device: torch.device,
    track: Track,
) -> ViewCheck:  # fmt: skip
    """Judge the view of every image of the tables, or of `limit` drawn at random, from its pixels.

    By torchxrayvision's classifier where its weights are on this machine; else by one that is trained on these images
    and cross-validated by patient.

    Raises:
        UserError: the tables have too few images of a view to train on, or the weights cannot be read.
    """
    images = _images_of(tables)
    num_images = len(images)
    if num_images > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(num_images, limit, replace=False))
        images = images.iloc[chosen].reset_index(drop=True)
    weights = xrv_weights()
    if weights is None:
        drawn = f"the {limit:,} images drawn from the table are" if num_images > limit else "the table has"
        _refuse_too_few(images, what=drawn)
        network = None
    else:
        network = open_xrv(weights).to(device)
    pictures = _Pictures(images["path"], read=read, size_px=HOG_SIZE_PX if network is None else XRV_SIZE_PX)
    loader = DataLoader(pictures, batch_size=CHUNK, num_workers=num_workers, collate_fn=list)
    histograms, answers, reasons = [], [], []
    for chunk in track(loader, len(loader), "looking at views"):
        reasons += [reason for _, reason in chunk]
        if not any(picture is not None for picture, _ in chunk):
            continue
        batch = torch.stack([picture for picture, _ in chunk if picture is not None])
        histograms.append(gradient_histograms(functional.resize(batch, [HOG_SIZE_PX] * 2, antialias=True)))
        if network is not None:
            answers.append(ask_xrv(network, batch.to(device)))
    is_bad = np.array([reason != "" for reason in reasons])
    bad = tuple((path, reason) for path, reason in zip(images["path"], reasons, strict=True) if reason)
    images = images[~is_bad].reset_index(drop=True)
    if not len(images):
        raise UserError(f"none of the {len(bad)} images can be read, the first, {bad[0][0]}: {bad[0][1]}")
    edges = np.concatenate(histograms)
    views = images["view"].to_numpy()
    if network is None:
        _refuse_too_few(images, what="the images that can be read are")
        lateral = cross_validated(edges.reshape(len(edges), -1), views=views, patients=images["patient"].to_numpy())
    else:
        lateral = np.concatenate(answers)
    both = len(set(views)) > 1
    probability = np.where(views == View.LATERAL, lateral, 1 - lateral)
    judged = images.assign(probability=probability).sort_values("probability", kind="stable", ignore_index=True)
    return ViewCheck(
        classifier="a classifier trained on this table, cross-validated by patient"
        if network is None
        else "torchxrayvision's view classifier",
        num_images=num_images,
        bad=bad,
        images=judged.assign(view=[View(view).title for view in judged["view"]])[["path", "view", "probability"]],
        auroc=float(roc_auc_score(views, lateral)) if both else None,
        exchanged=both and bool(roc_auc_score(views, -mirror_symmetry(edges)) < EXCHANGED_AUROC),
    )


def _images_of(tables: Sequence[StudyTable]) -> pd.DataFrame:
    """path, view and patient of every image of the tables, also of several of a view."""
    rows = [
        (path, view.value, patient)
        for table in tables
        for view in View
        for patient, paths in zip(table.patient_ids, table.images[view], strict=True)
        for path in paths
    ]
    return pd.DataFrame(rows, columns=["path", "view", "patient"])


def _refuse_too_few(images: pd.DataFrame, *, what: str) -> None:
    """Raises: UserError where there are too few images or patients of a view to train on and to cross-validate."""
    of_view = {view: images[images["view"] == view] for view in View}
    if all(len(of) >= FEWEST_IMAGES and of["patient"].nunique() >= FEWEST_PATIENTS for of in of_view.values()):
        return
    counts = (f"{len(of)} {view.title} of {of['patient'].nunique()} patient(s)" for view, of in of_view.items())
    raise UserError(
        f"--check-views cannot say anything: {what} {' and '.join(counts)}, and a classifier that is "
        f"trained on the table needs at least {FEWEST_IMAGES} images of {FEWEST_PATIENTS} patients of each view. "
        "torchxrayvision's view classifier needs none: pip install 'dualview[xrv]', then once "
        "python -c 'import torchxrayvision as xrv; xrv.baseline_models.xinario.ViewModel()', which downloads it"
    )


class _Pictures(Dataset[tuple[Tensor | None, str]]):
    """Images (1, S, S) float32 in [-1, 1] with a blank reason, or None and why there is none."""

    def __init__(self, paths: Iterable[str], *, read: ImageReader, size_px: int) -> None:
        self.paths = list(paths)
        self.read = read
        self.size_px = size_px

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, n: int) -> tuple[Tensor | None, str]:
        try:
            image = to_input(self.read(self.paths[n])[None])[0]
        except BadImage as error:
            return None, error.reason
        return functional.resize(image, [self.size_px] * 2, antialias=True), ""
