"""VinDr-CXR (Nguyen et al. 2022, doi:10.1038/s41597-022-01498-w), in both forms: PA images only, no lateral.

- PhysioNet's: annotations/image_labels_train.csv, a row per image and reader (three of each), with 28 columns of
  1 and 0; image_labels_test.csv, a row per image, the consensus of five; train/ and test/ with IMAGE_ID.dicom.
- The VinBigData challenge's: train.csv, a row per box with a reader and a class, of 14 classes and No finding.

An image has what more than half of its readers say it has, and nothing else. Nobody knows which images are of one
patient, so each counts as a patient.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.sources.image_rows import ImageRows, LabelNames, SourceTable, check_root, find_table
from dualview.data.sources.located import files_by_stem
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import VINDR, VINDR_BOXES, VINDR_TO_XRV
from dualview.errors import UserError

TRAIN = ("annotations/image_labels_train.csv", "image_labels_train.csv", "train.csv")
TEST = "image_labels_test.csv"
IMAGES = ("train", "test", "")
RENAMED = {"Other disease": "Other diseases"}  # the test table's name of the train table's column
NO_FINDING_HERE, NO_MAJORITY = "No finding", "no majority"
VINDR_NOT_FINDINGS = (NO_FINDING_HERE, NO_MAJORITY)
CELLS = ("0", "1", "0.0", "1.0")


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Images of the table at `data.csv`, or of those in `data.root`, with the test table where it lies beside.

    Raises:
        UserError: problems of a table, or files that are not there.
    """
    check_root(source)
    file = find_table(source, names=TRAIN)
    votes, named = _votes(file)
    tables, splits, more = [votes], ["train"] * len(votes), []
    test_file = file.with_name(TEST)
    if test_file.is_file() and file.name != TEST:
        test, _ = _votes(test_file)
        more.append((int(votes["line"].max()), test_file))
        tables.append(test.assign(line=test["line"] + more[0][0]))
        splits += ["test"] * len(test)
    table = pd.concat(tables).reset_index()
    where = files_by_stem(source.root if source.check_files else None, folders=IMAGES)
    expected = pd.Series(splits, dtype=object) + "/" + table["image_id"] + ".dicom"
    frame = table[["image_id", "line"]].assign(
        patient=table["image_id"],
        study=table["image_id"],
        path=table["image_id"].map(where).astype(object).fillna(expected),
        split=splits,
        position="PA",
        names=table["names"],
    )
    rows = ImageRows(frame if len(tables) > 1 else frame.drop(columns="split"), file=file, source=source)
    rows.problems.more = more
    rows.assign_views(rows.frame["position"], frontal=("PA",), lateral=())
    rows.check_files()
    studies = rows.studies(attributes=["names"])
    attributes = dict(studies.table.attributes)
    names = attributes.pop("names")
    to_xrv = {finding: labels for finding, labels in VINDR_TO_XRV.items() if set(labels) <= set(named)}
    return replace(
        studies,
        table=replace(studies.table, attributes=attributes),
        label_names=LabelNames(studies=names, to_xrv=to_xrv, not_findings=VINDR_NOT_FINDINGS),
    )


def _votes(file: Path) -> tuple[pd.DataFrame, list[str]]:
    """image_id -> `line` where it stands first and `names`, a frozenset; and the names that this form of table knows.

    Raises:
        UserError: columns that are not there, names or cells that are none, a reader who reads an image twice.
    """
    table = text_table(file, columns=[], hint="").rename(columns=RENAMED)
    problems = Problems(file)
    is_boxes = "class_name" in table
    named = list(VINDR_BOXES if is_boxes else VINDR)
    needed = ["image_id", *(("rad_id",) if is_boxes else named)]
    if missing := [name for name in needed if name not in table]:
        raise UserError(
            f"{file} has no column {', '.join(map(repr, missing))}; is it VinDr-CXR's own table? It has "
            f"{', '.join(table.columns.drop('line'))}"
        )
    for line in table["line"][table["image_id"] == ""]:
        problems.add(line, "image_id is blank")
    reader = table["rad_id"] if "rad_id" in table else pd.Series("consensus", index=table.index)
    readings = pd.DataFrame({"image_id": table["image_id"], "reader": reader})
    said = _said_in_boxes(table, problems) if is_boxes else _said_in_columns(table, readings, named, problems)
    problems.raise_if_any()
    num_readers = readings.groupby("image_id", sort=False)["reader"].nunique()
    votes = said.join(readings).drop_duplicates(["image_id", "reader", "name"]).groupby(["image_id", "name"]).size()
    has_majority = 2 * votes > num_readers.loc[votes.index.get_level_values("image_id")].to_numpy()
    majority = votes[has_majority].reset_index().groupby("image_id")["name"].agg(frozenset)
    nothing = pd.Series([frozenset({NO_MAJORITY})] * len(num_readers), index=num_readers.index, dtype=object)
    lines = table.groupby("image_id", sort=False)["line"].first()
    return pd.DataFrame({"line": lines, "names": majority.reindex(num_readers.index).combine_first(nothing)}), named


def _said_in_boxes(table: pd.DataFrame, problems: Problems) -> pd.DataFrame:
    """`name` of each row."""
    unknown = ~table["class_name"].isin([*VINDR_BOXES])
    for line, name in table.loc[unknown, ["line", "class_name"]].itertuples(index=False):
        problems.add(line, "class_name is {}; known are {}", repr(name), ", ".join(VINDR_BOXES))
    return table[["class_name"]].rename(columns={"class_name": "name"})


def _said_in_columns(
    table: pd.DataFrame, readings: pd.DataFrame, named: Sequence[str], problems: Problems
) -> pd.DataFrame:
    """`name` of each cell that is 1; the index is that of the row."""
    for column in named:
        wrong = ~table[column].isin(CELLS)
        for line, cell in table.loc[wrong, ["line", column]].itertuples(index=False):
            problems.add(line, "{} is {}; allowed are 1 and 0", column, repr(cell), of=column)
    for line, image in table.loc[readings.duplicated(), ["line", "image_id"]].itertuples(index=False):
        problems.add(line, "image {} has been read by this reader above already", image)
    rows, columns = np.nonzero(table[list(named)].isin(("1", "1.0")).to_numpy())
    return pd.DataFrame({"name": np.array(named, object)[columns]}, index=table.index[rows])
