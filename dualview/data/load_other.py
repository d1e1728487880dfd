"""Studies that a network was not trained on, from other data than its own."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dualview.config import DataConfig
from dualview.data.load import Data, image_reader, names_of_splits, read_sources, stored_reader, with_source_name
from dualview.data.shared_patients import equal_identifiers
from dualview.data.table import StudyTable, concatenate
from dualview.errors import UserError


def load_other_data(
    config: DataConfig,
    *,
    seed: int,
    as_findings: Callable[[Sequence[StudyTable]], list[StudyTable]],
    split: str | None = None,
    store: Path | None = None,
) -> Data:
    """Data that a network was not trained on: what is evaluated is their `test`, and `train` and `val` are empty.

    Args:
        as_findings: makes the studies of each source those of the network's findings.
        split: which of their splits to take; None: all studies, undivided.
        store: as `load_data`.

    Raises:
        UserError: problems of a source, a stale store, or a split without a study.
    """
    config = config.effective
    sources = read_sources(config, seed=seed)
    read = image_reader(sources, config=config)
    tables = [source.table for source in sources]
    identifiers = [table.patient_ids for table in tables]
    if len(sources) > 1:
        tables = [with_source_name(table, source.name, shared=config.shared_patients)
                  for table, source in zip(tables, sources, strict=True)]  # fmt: skip
    names = [np.full(len(table), split or "test", object) for table in tables]
    if split is not None:
        names, _ = names_of_splits(tables, config=config, seed=seed)
    if not config.shared_patients:
        remarks = equal_identifiers(identifiers, names=names)
        sources = [replace(source, remarks=(*source.remarks, *more))
                   for source, more in zip(sources, remarks, strict=True)]  # fmt: skip
    tables = as_findings(tables)
    sources = [replace(source, table=table) for source, table in zip(sources, tables, strict=True)]
    studies = concatenate([table.select(np.flatnonzero(of_table == (split or "test")))
                           for table, of_table in zip(tables, names, strict=True)])  # fmt: skip
    if not len(studies):
        raise UserError(f"these data have no study{f' in their {split} split' if split else ''}")
    nobody = studies.select(np.zeros(0, np.int64))
    splits = {"train": nobody, "val": nobody, "test": studies}
    read, files = stored_reader(read, splits, sources=sources, config=config, store=store)
    return Data(**splits, read=read, files=files, sources=tuple(sources), whole_splits=splits)
