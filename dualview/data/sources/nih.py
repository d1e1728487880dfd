"""NIH ChestX-ray14 (Wang et al. 2017, arXiv:1705.02315): 112,120 frontal PNGs, of 30,805 patients, no lateral.

Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv) has a row per image. `Finding Labels` lists what a labeler
found in the report, as a|b, or says No Finding; a finding that it does not list is negative. Images are
in images/ or images_001/images/ to images_012/images/. train_val_list.txt and test_list.txt are the official
split, by patient; val is drawn from the former.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, sexes
from dualview.data.sources.image_rows import ImageRows, LabelNames, SourceTable, check_root, find_table
from dualview.data.sources.located import files_by_stem
from dualview.data.sources.table_lines import table_lines
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import NIH, NO_FINDING
from dualview.errors import UserError

TABLE_NAMES = tuple(f"Data_Entry_2017{version}.csv{gz}" for version in ("_v2020", "") for gz in ("", ".gz"))
IMAGES = ("images", "images_*/images", "images_*", "")
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
FRONTAL, LATERAL = ("PA", "AP"), ()
OPTIONAL = ("Patient Age", "Patient Gender", "Patient Sex")


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Images of the table, each a study of its own.

    Raises:
        UserError: problems of the table, one of the two lists without the other, or files that are not there.
    """
    check_root(source)
    file = find_table(source, names=TABLE_NAMES)
    table = text_table(
        file,
        columns=["Image Index", "Finding Labels", "Patient ID", "View Position"],
        hint="Is it the NIH's own table?",
        optional=OPTIONAL,
    )
    stem = table["Image Index"].str.rpartition(".")[0]
    where = files_by_stem(source.root if source.check_files else None, folders=IMAGES)
    # The first version of the table has ages up to 414.
    age, is_implausible = ages(table["Patient Age"])
    rows = ImageRows(
        table.assign(
            patient=table["Patient ID"],
            study=stem,
            path=stem.map(where).astype(object).fillna("images/" + table["Image Index"]),
            sex=sexes(table["Patient Sex"].where(table["Patient Sex"] != "", table["Patient Gender"])),
            age=age,
            projection=table["View Position"],
        ),
        file=file,
        source=source,
    )
    for column in ("Image Index", "Patient ID", "Finding Labels"):
        for line in table["line"][table[column] == ""]:
            rows.problems.add(line, "{} is blank", column, of=column)
    rows.remark(is_implausible, IMPLAUSIBLE)
    names = _names(rows)
    rows.problems.raise_if_any(account=rows.account)
    split = _official(file.parent, source=source)
    if split is not None:
        rows.frame = rows.frame.assign(split=rows.frame["Image Index"].map(split).fillna(""))
        rows.drop(rows.frame["split"] == "", "image is in neither list of the official split")
    rows.assign_views(rows.frame["View Position"], frontal=FRONTAL, lateral=LATERAL)
    rows.check_files()
    studies = rows.studies(attributes=["sex", "age", "projection"])
    kept = rows.frame["study"]
    of_study = pd.Series(names[kept.index], index=kept).loc[studies.table.study_ids].to_numpy(dtype=object)
    to_xrv = {name: [name] for name in NIH}
    return replace(studies, label_names=LabelNames(studies=of_study, to_xrv=to_xrv, not_findings=[NO_FINDING]))


def _names(rows: ImageRows) -> np.ndarray:
    """(rows,) of frozenset: the names in each cell of labels; a name that is none of the data set is a problem."""
    codes, distinct = pd.factorize(rows.frame["Finding Labels"])
    sets = np.empty(len(distinct), object)
    for position, cell in enumerate(distinct):
        sets[position] = frozenset(name.strip() for name in cell.split("|"))
        if wrong := sorted(sets[position] - {*NIH, NO_FINDING, ""}):
            for line in rows.frame["line"][codes == position]:
                rows.problems.add(
                    line,
                    "Finding Labels names {}; known are {} and {}, separated by |",
                    wrong,
                    ", ".join(NIH),
                    NO_FINDING,
                )
        elif NO_FINDING in sets[position] and len(sets[position]) > 1:
            for line in rows.frame["line"][codes == position]:
                rows.problems.add(line, "Finding Labels says No Finding and a finding: {}", cell)
    named: np.ndarray = sets[codes]
    return named


def _official(beside: Path, *, source: SourceConfig) -> dict[str, str] | None:
    """Image -> train or test, as the two lists in `data.root` or beside the table say; None where there are none.

    Raises:
        UserError: one list without the other, or an image in both.
    """
    folders = [folder for folder in (source.root, beside) if folder is not None]
    lists = {}
    for split, name in LISTS.items():
        files = [folder / name for folder in folders if (folder / name).is_file()]
        if files:
            lists[split] = " ".join(table_lines(files[0])).split()
    if len(lists) == 1:
        there, missing = sorted(LISTS.values(), key=lambda name: name != LISTS[next(iter(lists))])
        raise UserError(
            f"{there} is there and {missing} is not; the official split needs both: put it beside, or neither"
        )
    if not lists:
        return None
    if both := set(lists["train"]) & set(lists["test"]):
        raise UserError(f"{len(both)} image(s) stand in {LISTS['train']} and in {LISTS['test']}, such as {min(both)}")
    return {image: split for split, images in lists.items() for image in images}
