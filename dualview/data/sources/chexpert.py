"""CheXpert v1.0 and v1.0-small (Irvin et al. 2019, arXiv:1901.07031): train.csv, valid.csv, test.csv.

Patient, study and split stand in `Path` only: CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg.
Frontals are PA or AP; what is lateral says `Frontal/Lateral`, and the file name where a table lacks it.
"""

from pathlib import Path

import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, sexes
from dualview.data.sources.chexpert_labels import add_wrong_cells, labels_of
from dualview.data.sources.image_rows import ImageRows, SourceTable, check_root, find_table
from dualview.data.sources.located import located
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import CHEXPERT

TABLES = {"train": ("train.csv",), "valid": ("valid.csv",), "test": ("test.csv", "test_labels.csv")}
FOLDERS = "CheXpert-v1.0*"
FRONTAL, LATERAL = ("Frontal",), ("Lateral",)
OPTIONAL = ("Sex", "Age", "Frontal/Lateral", "AP/PA")  # columns that tables of test labels lack
PATH = r"^(?:.*/)?(?P<within>(train|valid|test)/(patient\d+)/(study\d+)/(?:view\d+_(frontal|lateral)\.\w+))$"
OFFICIAL = {"train": "train", "valid": "val", "test": "test"}
# Radiologists have read valid and test, which are neither trained on nor chosen by where val is drawn anew.
DRAWN_ANEW = {"train": "train", "valid": "test", "test": "test"}


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of all tables in `data.root`, or of the one at `data.csv`, with the official split.

    Where there is no table but the training one, there is no official split. With `data.split.official` false
    valid is a second part of test, told apart by the attribute `official_split`, and val is drawn from train.

    Raises:
        UserError: problems of a table, or files that are not there.
    """
    check_root(source)
    if source.csv is not None:
        files = [source.csv]
    else:
        assert source.root is not None
        folders = [*(path for path in sorted(source.root.glob(FOLDERS)) if path.is_dir()), source.root]
        there = [
            [folder / name for folder in folders for name in names if (folder / name).is_file()]
            for names in TABLES.values()
        ]
        files = [existing[0] for existing in there if existing] or [find_table(source, names=TABLES["train"])]
    tables, more, raised = [], [], 0
    for file in files:
        table = text_table(file, columns=["Path", *CHEXPERT], hint="Is it CheXpert's own table?", optional=OPTIONAL)
        tables.append(table.assign(line=table["line"] + raised))
        more.append((raised, file))
        raised = int(tables[-1]["line"].max())
    table = pd.concat(tables, ignore_index=True)
    parts = table["Path"].str.extract(PATH)
    parts.columns = ["within", "split", "patient", "study", "view"]
    age, is_implausible = ages(table["Age"])
    rows = ImageRows(
        table.assign(
            split=parts["split"].map(OFFICIAL if data.split.official else DRAWN_ANEW),
            official_split=parts["split"],
            patient=parts["patient"],
            study=parts["patient"] + "/" + parts["study"],
            path=table["Path"],
            within=parts["within"],
            sex=sexes(table["Sex"]),
            age=age,
            projection=table["AP/PA"],
            frontal_or_lateral=table["Frontal/Lateral"].where(
                table["Frontal/Lateral"] != "", parts["view"].str.capitalize()
            ),
        ),
        file=files[0],
        source=source,
    )
    rows.problems.more = more[1:]
    rows.remark(is_implausible, IMPLAUSIBLE)
    add_wrong_cells(rows.problems, table)
    for line, path in table.loc[parts["patient"].isna(), ["line", "Path"]].itertuples(index=False):
        rows.problems.add(line, "Path is {}, not like .../train/patient00001/study1/view1_frontal.jpg", path)
    rows.problems.raise_if_any()
    if rows.frame["split"].nunique() == 1:
        rows.frame = rows.frame.drop(columns="split")
    path = located_under(source.root, paths=rows.frame["path"], within=rows.frame["within"], each=source.check_files)
    rows.frame = rows.frame.assign(path=path)
    rows.assign_views(rows.frame["frontal_or_lateral"], frontal=FRONTAL, lateral=LATERAL)
    rows.check_files()
    findings, labels = labels_of(rows)
    return rows.studies(findings=findings, labels=labels, attributes=["sex", "age", "projection", "official_split"])


def located_under(
    root: Path | None, *, paths: "pd.Series[str]", within: "pd.Series[str]", each: bool
) -> "pd.Series[str]":
    """Where each image is under `data.root`, which may be the folder that paths begin with, or the one it is in.

    Tables differ row by row: Stanford's train.csv begins its paths with the name of the folder, its test.csv does
    not; and the parts of v1.0 unpack to folders such as "CheXpert-v1.0 batch 2 (train 1)" without a train/.

    Args:
        paths: as the table has them.
        within: of these what begins with train/, valid/ or test/.
        each: look for every file.
    """
    if root is None:
        return paths
    folders = [path.name for path in sorted(root.glob(FOLDERS)) if path.is_dir()]
    unparted = within.str.partition("/")[2]
    candidates = [within, paths] if (paths.str.partition("/")[0] == root.name).any() else [paths, within]
    candidates += [f"{folder}/" + path for folder in folders for path in (within, unparted)]
    return located(candidates, root=root, each=each)
