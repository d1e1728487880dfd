"""The two views of a chest, and the three kinds of study by which of them exist."""

from enum import IntEnum


class View(IntEnum):
    """Position of a view on the view axis V; the order is fixed."""

    PA = 0
    LATERAL = 1


class Availability(IntEnum):
    """The three kinds of study, by the views that exist."""

    BOTH = 0
    PA_ONLY = 1
    LATERAL_ONLY = 2
