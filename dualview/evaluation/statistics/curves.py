"""Points of ROC and precision-recall curves, few enough to send along and to draw."""

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

MAX_POINTS = 100
Points = list[tuple[float, float]]


def roc_points(scores: np.ndarray, *, positive: np.ndarray, at_most: int = MAX_POINTS) -> Points:
    """(false positive rate, sensitivity) from (0, 0) to (1, 1); of N scores, both classes among them."""
    false_positive, sensitivity, _ = roc_curve(positive, scores, drop_intermediate=True)
    return thinned(false_positive, sensitivity, at_most=at_most)


def precision_recall_points(scores: np.ndarray, *, positive: np.ndarray, at_most: int = MAX_POINTS) -> Points:
    """(recall, precision) with recall rising from 0 to 1; of N scores, both classes among them."""
    precision, recall, _ = precision_recall_curve(positive, scores, drop_intermediate=True)
    return thinned(recall[::-1], precision[::-1], at_most=at_most)


def thinned(x: np.ndarray, y: np.ndarray, *, at_most: int) -> Points:
    """Vertices of a line at even distances along it, the first and the last among them, rounded to 4 digits."""
    places = np.arange(len(x))
    if len(x) > at_most:
        along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        places = np.unique(np.searchsorted(along, np.linspace(0, along[-1], at_most - 1)))
        places = np.union1d(places, [0, len(x) - 1])
    return [(round(float(x[place]), 4), round(float(y[place]), 4)) for place in places]
