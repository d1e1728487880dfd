"""Any CSV with one row per image: study, patient, view, path, and a column per finding.

A finding cell is 1, 0 or blank (unknown). Images that share patient and study form one study.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.sources.image_rows import ImageRows, Label, SourceTable, check_root, find_table
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_rows

FRONTAL, LATERAL = ("PA", "AP"), ("L", "LATERAL", "LL")
ATTRIBUTE = "attribute "  # before the name of a user's column, among ours
LABELS = {"1": Label.POSITIVE, "1.0": Label.POSITIVE, "0": Label.NEGATIVE, "0.0": Label.NEGATIVE, "": Label.UNKNOWN}
SPLIT_OF_CELL = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of the table at `data.csv`.

    Raises:
        UserError: all problems of the file together, each with file:line.
    """
    check_root(source)
    columns, split_column = source.columns, data.split.column
    label_columns = {finding: names[0] for finding, names in source.findings.items()}
    file = find_table(source, names=["metadata.csv"])
    problems = Problems(file)
    rows_of_text = text_rows(
        file,
        problems=problems,
        columns=[columns.study, columns.patient, columns.view, columns.path, *label_columns.values()]
        + source.attributes
        + ([split_column] if split_column else []),
        hint="Name yours in data.columns, data.findings, data.attributes or data.split.column",
    )
    table, lines = rows_of_text.cells, rows_of_text.lines
    # The table keeps the users' names of columns, the rows have ours; both have one index.
    frame = pd.DataFrame(
        {"line": lines, "patient": table[columns.patient], "study": table[columns.study], "path": table[columns.path]}
        | {ATTRIBUTE + name: table[name] for name in source.attributes}
    )
    rows = ImageRows(frame, file=file, source=source, problems=problems)
    blank = {
        "study": "study is blank; every image needs one (data.columns.study)",
        "patient": "patient is blank; every image needs one (data.columns.patient)",
        "path": "path is blank; leave out the row of a view that does not exist",
    }
    usable = np.ones(len(frame), bool)
    for name, problem in blank.items():
        for line in frame["line"][frame[name] == ""]:
            rows.problems.add(line, problem)
        usable &= (frame[name] != "").to_numpy()
    add_wrong_labels(rows.problems, table, lines=lines, columns=label_columns)
    if split_column:
        split = table[split_column].str.lower().map(SPLIT_OF_CELL)
        for n in np.flatnonzero(split.isna()):
            rows.problems.add(
                lines[n], "split is {}; allowed are train, val and test", repr(table[split_column].iloc[n])
            )
        rows.frame = frame.assign(split=split.fillna(""))
    rows.frame = rows.frame[usable]
    rows.assign_views(table.loc[usable, columns.view], frontal=FRONTAL, lateral=LATERAL, strict=True)
    rows.check_files()
    labels = label_codes(table.loc[rows.frame.index], columns=label_columns)
    studies = rows.studies(
        findings=list(label_columns), labels=labels, attributes=[ATTRIBUTE + name for name in source.attributes]
    )
    attributes = {name.removeprefix(ATTRIBUTE): values for name, values in studies.table.attributes.items()}
    return replace(studies, table=replace(studies.table, attributes=attributes))


def add_wrong_labels(problems: Problems, table: pd.DataFrame, *, lines: np.ndarray, columns: dict[str, str]) -> None:
    """Add every cell that is none of 1, 0 and blank.

    Args:
        lines: (rows,) of the file.
        columns: finding -> its column.
    """
    for finding, column in columns.items():
        for n in np.flatnonzero(~table[column].isin(LABELS)):
            cell = repr(table[column].iloc[n])
            problems.add(lines[n], "{} is {}; allowed are 1, 0 and blank for unknown", finding, cell, of=finding)


def label_codes(table: pd.DataFrame, *, columns: dict[str, str]) -> np.ndarray:
    """(rows, K) int8 of `Label`; a wrong cell counts as unknown."""
    codes = [table[column].map(LABELS).fillna(Label.UNKNOWN).to_numpy(np.int8) for column in columns.values()]
    return np.stack(codes, axis=1)
