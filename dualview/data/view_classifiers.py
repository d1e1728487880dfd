"""Frontal or lateral from pixels: by torchxrayvision's classifier, or by one that is trained on the table itself."""

from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional
from torchvision.models import ResNet, resnet50
from torchvision.transforms.v2.functional import normalize

from dualview.errors import UserError, first_line
from dualview.views import View

XRV_FILE = Path("~/.torchxrayvision/models_data/xinario_chestViewSplit_resnet-50.pt")
XRV_SIZE_PX = 224
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

HOG_SIZE_PX = 64
BINS, CELLS = 8, 6  # orientations in half a turn, and cells along each side of an image
FOLDS = 5
MOST_PASSES = 10
REGULARISATION = 0.003  # scikit-learn's C


def xrv_weights() -> Path | None:
    """Where torchxrayvision keeps the weights of its view classifier; None where it has not loaded them yet."""
    file = XRV_FILE.expanduser()
    return file if file.is_file() else None


def open_xrv(file: Path) -> ResNet:
    """torchxrayvision's view classifier, a ResNet-50, ready to be asked.

    Raises:
        UserError: the file does not hold its weights.
    Source: `torchxrayvision.baseline_models.xinario.ViewModel`, which would download what is not there.
    """
    network = resnet50()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # A damaged file raises whatever pickle, zip and torch raise.
        reason = first_line(error)
        raise UserError(
            f"{file}: cannot be read as the weights of torchxrayvision's view classifier ({reason}); remove the file "
            "to have a classifier trained on the table instead"
        ) from None
    network.eval()
    return network


@torch.inference_mode()
def ask_xrv(network: ResNet, images: Tensor) -> np.ndarray:
    """(N,) probability of a lateral, from images (N, 1, 224, 224) float32 in [-1, 1] on the network's device."""
    colours = normalize((images + 1).div(2).expand(-1, 3, -1, -1), IMAGENET_MEAN, IMAGENET_STD)
    frontal_and_lateral = network(colours)[:, :2]  # Its other outputs are left from ImageNet.
    lateral: np.ndarray = frontal_and_lateral.softmax(dim=1)[:, 1].cpu().double().numpy()
    return lateral


def gradient_histograms(images: Tensor) -> np.ndarray:
    """(N, BINS, CELLS, CELLS) float32: in each cell, how strong edges of each orientation are; 1 is the image's mean.

    Brightness, contrast and inversion of an image do not change it.

    Args:
        images: (N, 1, S, S) float32.
    Source: Dalal and Triggs, Histograms of oriented gradients for human detection, CVPR 2005.
    """
    across = images[:, :, 1:-1, 2:] - images[:, :, 1:-1, :-2]
    down = images[:, :, 2:, 1:-1] - images[:, :, :-2, 1:-1]
    strength = torch.hypot(across, down)
    orientation = (torch.atan2(down, across) / torch.pi * BINS) % BINS
    below = orientation.floor()
    part = orientation - below
    shares = [torch.where(below == b, 1 - part, 0) + torch.where((below + 1) % BINS == b, part, 0) for b in range(BINS)]
    cells = functional.adaptive_avg_pool2d(strength * torch.cat(shares, dim=1), CELLS)
    mean = cells.sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    histograms: np.ndarray = (cells / mean.clamp_min(1e-6)).sqrt().numpy()
    return histograms


def mirror_symmetry(histograms: np.ndarray) -> np.ndarray:
    """(N,) correlation of each image's `gradient_histograms` with those of its mirror image: a chest from the front
    is more like its mirror image than one from the side."""
    mirrored = histograms[:, -np.arange(BINS) % BINS, :, ::-1]
    centred = histograms - histograms.mean(axis=(1, 2, 3), keepdims=True)
    centred_mirrored = mirrored - mirrored.mean(axis=(1, 2, 3), keepdims=True)
    variance = (centred**2).sum(axis=(1, 2, 3))
    correlation: np.ndarray = (centred * centred_mirrored).sum(axis=(1, 2, 3)) / np.maximum(variance, 1e-12)
    return correlation


def cross_validated(features: np.ndarray, *, views: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """(N,) probability of a lateral, each from a classifier that has seen no image of the patient.

    Logistic regression in which both views weigh the same. It is trained again without the images whose view it
    contradicts until these stay the same, so that wrong views do not teach it.

    Args:
        features: (N, F) of images.
        views: (N,) of `View`, as the table has it; both occur.
        patients: (N,) identifiers, at least `FOLDS` different ones per view.
    Source: Northcutt et al., Confident Learning, JAIR 2021, with "predicted is not given" as its rule, and its advice
        to train again on what is left.
    """
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    parts = list(folds.split(features, views, patients))
    believed = np.ones(len(views), bool)
    lateral = np.full(len(views), 0.5)
    for _ in range(MOST_PASSES):
        if not all(set(views[train[believed[train]]]) == set(View) for train, _ in parts):
            break  # So many are contradicted that one view has none left to learn from.
        for train, asked in parts:
            learnt_from = train[believed[train]]
            classifier = make_pipeline(
                StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000)
            )
            classifier.fit(features[learnt_from], views[learnt_from])
            lateral[asked] = classifier.predict_proba(features[asked])[:, 1]
        agrees = np.where(views == View.LATERAL, lateral, 1 - lateral) >= 0.5
        if (agrees == believed).all():
            break
        believed = agrees
    return lateral
