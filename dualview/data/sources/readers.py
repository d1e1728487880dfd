"""From the name of a source to its reader, and what is done with the studies of any."""

from importlib import import_module
from typing import Protocol

from dualview.config import DataConfig, SourceConfig
from dualview.data.sources.cohort import drop_rare_findings, label_by_names, select
from dualview.data.sources.image_rows import SourceTable


class Reader(Protocol):
    """The function `read` of a source's file."""

    def __call__(self, source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
        """All studies of a source, with their labels or label names, and how their images are read.

        Args:
            source: what to read; the keys that `uses.SOURCES` says the reader uses.
            data: the section that `source` is, or stands in.
            seed: for a source that is drawn.

        Raises:
            UserError: all problems of its files together.
        """


def read_source(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """The studies of one source that `data.cohort` leaves; arguments as `Reader`.

    Raises:
        UserError: all problems of its files together.
    """
    read: Reader = import_module(f"dualview.data.sources.{source.source}").read
    table = select(read(source, data=data, seed=seed), cohort=source.cohort, date_format=source.date_format)
    table = label_by_names(table, config=source)
    return drop_rare_findings(table, min_positive_patients=source.min_positive_patients)
