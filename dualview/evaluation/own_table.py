"""Whether the table that is read is the one that a run was trained on, by what it says and not by where it lies."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.data.sources.text_table import text_rows
from dualview.data.table import StudyTable
from dualview.evaluation.prediction_table import read_predictions
from dualview.run.directory import RunDir
from dualview.views import Availability, View

VIEWS_OF = np.array([[view in kind.views for view in View] for kind in Availability])
"""(3, V) bool: `Availability` -> its views."""


def differences_from_run(
    run: RunDir,
    splits: Mapping[str, StudyTable],
    *,
    evaluated: Mapping[str, StudyTable],
    form: Callable[[str], str],
    may_lack: bool = False,
) -> list[str]:
    """What the table says otherwise than the run has it: patients, splits; studies, views, labels of val and test.

    Args:
        splits: split -> all its studies.
        evaluated: split -> its studies as the network takes them, whose labels the run has beside its predictions.
        form: what identifiers of one patient share.
        may_lack: whether studies and labels may be missing, because the settings leave out what is not there.
    """
    rows = text_rows(run.split, columns=["patient", "split"], hint="It is written by training").cells
    then = dict(zip(rows["patient"].map(form), rows["split"], strict=True))
    now = {form(str(patient)): name for name, table in splits.items() for patient in table.patient_ids}
    moved = sum(then[patient] != name for patient, name in now.items() if patient in then)
    found = [
        (len(now.keys() - then.keys()), "patient(s) that the run does not have"),
        (0 if may_lack else len(then.keys() - now.keys()), "patient(s) of the run are not there"),
        (moved, "patient(s) are in another split than in the run"),
    ]
    for name in ("val", "test"):
        if run.predictions(name).is_file():
            found += _of_split(
                run.predictions(name), evaluated[name],
                split=name, may_lack=may_lack, all_were_read=not run.bad_images.is_file(),
            )  # fmt: skip
    return [f"{number:,} {what}" for number, what in found if number]


def _of_split(
    file: Path, table: StudyTable, *, split: str, may_lack: bool, all_were_read: bool
) -> list[tuple[int, str]]:
    """Numbers of studies, views and labels of a split that are not as in its predictions.

    Args:
        all_were_read: whether the run could read all images; else a view that is new may be one that it could not.
    """
    then = read_predictions(file)
    if then.findings != table.findings:
        return []  # What is evaluated has other findings then, which is refused elsewhere.
    ours, theirs = (pd.MultiIndex.from_arrays([t.patient_ids.astype(str), t.study_ids.astype(str)])
                    for t in (table, then))  # fmt: skip
    if not theirs.is_unique:
        return []
    at = theirs.get_indexer(ours)
    rows, there = np.flatnonzero(at >= 0), at[at >= 0]
    known_now, known_then = table.label_mask[rows], then.label_mask[there]
    other_value = known_now & known_then & (table.positive[rows] != then.positive[there])
    other_mask = (known_now & ~known_then) if may_lack else known_now != known_then
    views_now, views_then = table.view_mask[rows], VIEWS_OF[then.availability[there]]
    was_read = then.evaluated[there, None]
    other_views = np.zeros_like(views_now) if may_lack else views_then & ~views_now & was_read
    if all_were_read:
        other_views = other_views | (views_now & ~views_then & was_read)
    return [
        (int((at < 0).sum()), f"studies of {split} that the run does not have"),
        (0 if may_lack else len(theirs) - len(rows), f"studies of {split} of the run are not there"),
        (int(other_views.any(axis=1).sum()), f"studies of {split} have other views than in the run"),
        (int((other_value | other_mask).sum()), f"labels of {split} are other than in the run"),
    ]
