"""The two views of a chest, the three kinds of study by which of them exist, and what all of these are called.

>>> Availability.of((True, False))
<Availability.PA_ONLY: 1>
>>> Availability.BOTH.without(View.PA).title
'lateral only'
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class View(IntEnum):
    """Position of a view on the view axis V; the order is fixed."""

    PA = 0
    LATERAL = 1

    @property
    def key(self) -> str:
        """`pa` or `lateral`: in names of files, columns, settings and parts of networks."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """`PA` or `lateral`: in a sentence."""
        return "PA" if self == View.PA else "lateral"

    @property
    def other(self) -> "View":
        """The opposite view."""
        return View(1 - self)

    @property
    def hidden_key(self) -> str:
        """`pa_hidden` or `lateral_hidden`: the score of complete studies of which this view is withheld."""
        return f"{self.key}_hidden"

    @property
    def alone(self) -> "Availability":
        """The kind of study that has this view only."""
        return Availability.PA_ONLY if self == View.PA else Availability.LATERAL_ONLY


class Availability(IntEnum):
    """The three kinds of study, by the views that exist; also the route that a study takes."""

    BOTH = 0
    PA_ONLY = 1
    LATERAL_ONLY = 2

    @classmethod
    def of(cls, view_mask: Sequence[bool]) -> "Availability":
        """The kind of one study from (V,) bool, True = image present.

        Raises:
            ValueError: the study has no view.
        """
        has_pa, has_lateral = view_mask[View.PA], view_mask[View.LATERAL]
        if has_pa and has_lateral:
            return cls.BOTH
        if not has_pa and not has_lateral:
            raise ValueError("a study without a view has no availability")
        return cls.PA_ONLY if has_pa else cls.LATERAL_ONLY

    @property
    def key(self) -> str:
        """`both`, `pa_only` or `lateral_only`: in names of files, columns and settings."""
        return self.name.lower()

    @property
    def title(self) -> str:
        """`both views`, `PA only` or `lateral only`: in a sentence."""
        return "both views" if self == Availability.BOTH else f"{self.views[0].title} only"

    @property
    def views(self) -> tuple[View, ...]:
        """The views that such a study has."""
        return (
            tuple(View) if self == Availability.BOTH else (View.PA if self == Availability.PA_ONLY else View.LATERAL,)
        )

    def without(self, view: View) -> "Availability":
        """What is left of a complete study without a view; others keep the view they have."""
        return view.other.alone if self == Availability.BOTH else self


ROUTES = tuple(kind.key for kind in Availability)
ALL_STUDIES = "all"
GROUPS = (ALL_STUDIES, *ROUTES)
"""Studies as they came: all of them, and by availability."""
MASKINGS = (Availability.BOTH.key, View.LATERAL.hidden_key, View.PA.hidden_key)
"""Complete studies, with both views and with either withheld."""
TITLES = {
    ALL_STUDIES: "all studies",
    **{kind.key: kind.title for kind in Availability},
    **{view.hidden_key: f"{view.title} withheld" for view in View},
}
"""Titles of `GROUPS` and `MASKINGS` in a table or figure."""


def availability_of(view_mask: np.ndarray) -> np.ndarray:
    """(S,) int8 of `Availability` from (S, V) bool; a study without a view counts as PA only."""
    has_pa, has_lateral = view_mask.T
    kinds = np.where(has_lateral, Availability.LATERAL_ONLY, Availability.PA_ONLY)
    return np.where(has_pa & has_lateral, Availability.BOTH, kinds).astype(np.int8)


def without_view(availability: np.ndarray, view: View) -> np.ndarray:
    """(S,) int8 of `Availability.without` a view, of each study."""
    return np.where(availability == Availability.BOTH, view.other.alone, availability).astype(np.int8)
