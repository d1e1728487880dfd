"""View dropout: which view of which complete study a step of training hides. Pure integers, no torch."""

import numpy as np

from dualview.views import Availability, View


def drop_views(availability: np.ndarray, *, seed: int, epoch: int, p_pa: float, p_lateral: float) -> np.ndarray:
    """View dropout: a study with both views hides its PA view with `p_pa`, else its lateral with `p_lateral`.

    The two add up to at most 1, and the last view is never hidden. Returns the availability (S,) int8 of
    this epoch, a function of (seed, epoch, study).
    """
    if p_pa + p_lateral == 0:
        return availability
    # A spawn key of its own keeps this stream apart from the one that orders the epoch.
    draw = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(1,))).random(len(availability))
    hidden = (availability == Availability.BOTH) & (draw < p_pa + p_lateral)
    left = np.where(draw < p_lateral, Availability.PA_ONLY, Availability.LATERAL_ONLY)
    return np.where(hidden, left, availability).astype(np.int8)


def view_hidden_in(step: int, *, seed: int, p_pa: float, p_lateral: float) -> View | None:
    """The view that all complete studies of a step hide, if any: view dropout of whole steps."""
    draw = np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=(2,))).random()
    if draw < p_lateral:
        return View.LATERAL
    return View.PA if draw < p_lateral + p_pa else None
