"""Train, val and test: a patient is in one of them only."""

import numpy as np

from dualview.config import SplitConfig
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.views import View

SPLITS = ("train", "val", "test")


def split_by_patient(table: StudyTable, *, config: SplitConfig, seed: int) -> dict[str, StudyTable]:
    """Divide the studies of a table: by its own split column where there is one, else by fractions.

    By fractions, the patients with a lateral view and those without are divided each on their own, so
    that rare laterals reach every split. A function of the table, the fractions and the seed.

    Raises:
        UserError: a split that was asked for is empty.
    """
    names = table.split if table.split is not None else _draw(table, config=config, seed=seed)
    tables = {name: table.select(np.flatnonzero(names == name)) for name in SPLITS}
    wanted = [name for name in SPLITS if name != "test" or config.test > 0 or config.column]
    empty = [name for name in wanted if len(tables[name]) == 0]
    if "train" in empty or "val" in empty or (empty and table.split is None):
        counts = ", ".join(f"{name} {len(tables[name])}" for name in SPLITS)
        raise UserError(
            f"the {' and '.join(empty)} split is empty ({counts} studies of {len(set(table.patient_ids))} patients). "
            "Change the fractions of data.split, fill data.split.column, or bring more patients"
        )
    return tables


def _draw(table: StudyTable, *, config: SplitConfig, seed: int) -> np.ndarray:
    """(S,) split name of each study."""
    patients, patient_of = np.unique(table.patient_ids.astype(str), return_inverse=True)
    has_lateral = np.zeros(len(patients), bool)
    np.logical_or.at(has_lateral, patient_of, table.view_mask[:, View.LATERAL])
    generator = np.random.default_rng(seed)
    names = np.empty(len(patients), dtype=object)
    for stratum in (True, False):
        members = generator.permutation(np.flatnonzero(has_lateral == stratum))
        bounds = np.rint(np.cumsum([config.train, config.val]) * len(members)).astype(int)
        for name, part in zip(SPLITS, np.split(members, bounds), strict=True):
            names[part] = name
    of_study: np.ndarray = names[patient_of]
    return of_study
