"""Labels and split of CXR-LT (Holste et al. 2024, doi:10.1016/j.media.2024.103224) for the images of MIMIC-CXR-JPG.

The release of 2024 has labels.csv (45 labels, `split`), or train_labeled.csv and {development,test}_labeled_task1.csv
(40 labels); that of 2023 train.csv, development.csv and test.csv (26 labels). A row is an image, by dicom_id; labels
are 1 or 0, and come from the report, so that all images of a study share them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import SourceConfig
from dualview.data.sources.chexpert_labels import CELLS
from dualview.data.sources.image_rows import Label
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import CXR_LT_RENAMED, XRV
from dualview.errors import UserError

FOLDERS = ("", "cxr-lt-2024", "cxr-lt-2023", "cxr-lt*/cxr-lt-2024", "cxr-lt*/cxr-lt-2023", "cxr-lt*/*/cxr-lt-2024",
           "cxr-lt*/*/cxr-lt-2023")  # fmt: skip
RELEASES = (
    {"labels.csv": ""},
    {"train_labeled.csv": "train", "development_labeled_task1.csv": "val", "test_labeled_task1.csv": "test"},
    {"train.csv": "train", "development.csv": "val", "test.csv": "test"},
)  # tables of a release -> which split they are; blank: the column `split` says it
NOT_LABELS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "ViewPosition",
    "ViewCodeSequence_CodeMeaning",
    "path",
    "fpath",
    "split",
)
SPLITS_OF_CXR_LT = {
    "train": "train",
    "development": "val",
    "dev": "val",
    "val": "val",
    "validate": "val",
    "test": "test",
}
HINT = "Is it CXR-LT's own table?"


@dataclass(frozen=True, kw_only=True)
class CxrLt:
    """What CXR-LT says of its images."""

    file: Path  # its table, or the first of them
    findings: list[str]  # (K,) as the configuration calls them
    labels: pd.DataFrame  # index dicom_id, columns the findings, int8 of `Label`
    split: "pd.Series[str]"  # index dicom_id


def read_cxr_lt(folder: Path, *, source: SourceConfig) -> CxrLt:
    """The tables of the newest release in the folder, or in cxr-lt-2024/ or cxr-lt-2023/ below it.

    Raises:
        UserError: no release is there, findings that it does not have, or problems of its tables.
    """
    files = _release(folder)
    tables = []
    for file, split in files.items():
        table = text_table(file, columns=[], hint=HINT)
        if missing := sorted({"dicom_id", *(() if split else ("split",))} - set(table.columns)):
            raise UserError(f"{file} has no column {', '.join(missing)}. {HINT}")
        of_cells = split or table["split"].str.lower().map(SPLITS_OF_CXR_LT).fillna("")
        tables.append(table.assign(split=of_cells))
    known = [name for name in tables[0].columns if name not in (*NOT_LABELS, "line")]
    columns = _columns(source, known=known)
    labels, splits = [], []
    for file, table in zip(files, tables, strict=True):
        problems = Problems(file)
        for mask, template in (
            (table["dicom_id"] == "", "dicom_id is blank{}"),
            (table["dicom_id"].duplicated(), "image {} stands above already"),
            (table["split"] == "", "split of image {} is none of train, development, validate and test"),
        ):
            for line, image in table.loc[mask, ["line", "dicom_id"]].itertuples(index=False):
                problems.add(line, template, image)
        # The test table of a challenge that runs has no labels yet: they are unknown.
        cells = table.reindex(columns=list(columns.values())).fillna("")
        for column in columns.values():
            wrong = ~cells[column].isin(CELLS)
            for line, cell in zip(table["line"][wrong], cells[column][wrong], strict=True):
                problems.add(line, "{} is {}; allowed are 1, 0 and blank", column, repr(cell), of=column)
        problems.raise_if_any()
        codes = cells.apply(lambda column: column.map(CELLS)).to_numpy(np.int8)
        labels.append(pd.DataFrame(codes, index=table["dicom_id"], columns=list(columns)))
        splits.append(pd.Series(table["split"].to_numpy(), index=table["dicom_id"]))
    together, split_of = pd.concat(labels), pd.concat(splits)
    if (twice := together.index[together.index.duplicated()]).size:
        raise UserError(f"{len(twice)} image(s) stand in several tables of {next(iter(files)).parent}, as {twice[0]}")
    if source.unmentioned == "negative":
        together = together.mask(together == Label.UNKNOWN, Label.NEGATIVE).astype(np.int8)
    return CxrLt(file=next(iter(files)), findings=list(columns), labels=together, split=split_of)


def _release(folder: Path) -> dict[Path, str]:
    """The tables of a release, and which split each is.

    Raises:
        UserError: there is none.
    """
    for pattern in FOLDERS:
        for place in sorted(folder.glob(pattern)) if pattern else [folder]:
            for names in RELEASES:
                files = {
                    path: split
                    for name, split in names.items()
                    for gz in ("", ".gz")
                    if (path := place / f"{name}{gz}").is_file()
                }
                if len(files) == len(names):
                    return files
    looked_for = "; or ".join(", ".join(names) for names in RELEASES)
    raise UserError(
        f"no labels of CXR-LT in {folder}: looked for {looked_for}, there and in cxr-lt-2024/ and cxr-lt-2023/"
    )


def _columns(source: SourceConfig, *, known: list[str]) -> dict[str, str]:
    """Finding -> its column.

    Raises:
        UserError: the configuration names columns that there are not.
    """
    if source.vocabulary == "xrv":
        wanted = {name: CXR_LT_RENAMED.get(name, name) for name in (source.findings or XRV)}
        return {finding: column for finding, column in wanted.items() if column in known}
    columns = {finding: names[0] for finding, names in source.findings.items()} or {name: name for name in known}
    if wrong := sorted(set(columns.values()) - set(known)):
        raise UserError(f"data.findings names {', '.join(wrong)}; this release of CXR-LT has {', '.join(known)}")
    return columns
