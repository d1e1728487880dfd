"""AuxLoss-CL: steps in which complete studies train one branch head alone (`loss.curriculum_probability`)."""

import numpy as np

from dualview.views import View


def head_trained_alone(step: int, *, seed: int, probability: float) -> View | None:
    """The branch head that complete studies of a step train alone, if any (AuxLoss-CL)."""
    draw = np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=(3,))).random()
    if draw >= probability:
        return None
    return View.PA if draw < probability / 2 else View.LATERAL
