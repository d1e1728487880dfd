"""CheXpert v1.0 and v1.0-small (Irvin et al. 2019, arXiv:1901.07031): train.csv, valid.csv, test.csv.

Patient, study and split stand in `Path` only: CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg.
Frontals are PA or AP; what is lateral says `Frontal/Lateral`, and the file name where a table lacks it.
"""

import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.sources.chexpert_labels import add_wrong_cells, labels_of
from dualview.data.sources.image_rows import ImageRows, SourceTable, check_root, find_table, text_table
from dualview.data.sources.vocabularies import CHEXPERT

TABLES = {"train": ("train.csv",), "valid": ("valid.csv",), "test": ("test.csv", "test_labels.csv")}
FRONTAL, LATERAL = ("Frontal",), ("Lateral",)
OPTIONAL = ("Sex", "Age", "Frontal/Lateral", "AP/PA")  # columns that tables of test labels lack
PATH = r"^(?:.*/)?(train|valid|test)/(patient\d+)/(study\d+)/(view\d+_(frontal|lateral)\.\w+)$"


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of all tables in `data.root`, or of the one at `data.csv`, with the official split.

    Where there is no table but the training one, there is no official split.

    Raises:
        UserError: problems of a table, or files that are not there.
    """
    check_root(source)
    if source.csv is not None:
        files = [source.csv]
    else:
        assert source.root is not None
        folder = next((path for path in sorted(source.root.glob("CheXpert-v1.0*")) if path.is_dir()), source.root)
        there = [[folder / name for name in names if (folder / name).is_file()] for names in TABLES.values()]
        files = [existing[0] for existing in there if existing] or [find_table(source, names=TABLES["train"])]
    tables, more, raised = [], [], 0
    for file in files:
        table = text_table(file, columns=["Path", *CHEXPERT], hint="Is it CheXpert's own table?", optional=OPTIONAL)
        tables.append(table.assign(line=table["line"] + raised))
        more.append((raised, file))
        raised = int(tables[-1]["line"].max())
    table = pd.concat(tables, ignore_index=True)
    parts = table["Path"].str.extract(PATH)
    rows = ImageRows(
        table.assign(
            split=parts[0].map({"train": "train", "valid": "val", "test": "test"}),
            patient=parts[1],
            study=parts[1] + "/" + parts[2],
            path=table["Path"],
            sex=table["Sex"],
            age=table["Age"],
            projection=table["AP/PA"],
            frontal_or_lateral=table["Frontal/Lateral"].where(
                table["Frontal/Lateral"] != "", parts[4].str.capitalize()
            ),
        ),
        file=files[0],
        source=source,
    )
    rows.problems.more = more[1:]
    add_wrong_cells(rows.problems, table)
    for line, path in table.loc[parts[1].isna(), ["line", "Path"]].itertuples(index=False):
        rows.problems.add(line, "Path is {}, not like .../train/patient00001/study1/view1_frontal.jpg", path)
    rows.problems.raise_if_any()
    if rows.frame["split"].nunique() == 1:
        rows.frame = rows.frame.drop(columns="split")
    rows.frame = rows.frame.assign(path=_relative_to_root(rows.frame["path"], source))
    rows.assign_views(rows.frame["frontal_or_lateral"], frontal=FRONTAL, lateral=LATERAL)
    rows.check_files()
    findings, labels = labels_of(rows)
    return rows.studies(findings=findings, labels=labels, attributes=["sex", "age", "projection"])


def _relative_to_root(paths: "pd.Series[str]", source: SourceConfig) -> "pd.Series[str]":
    """Paths begin with the folder's name at Stanford; `data.root` may be that folder, or the one it is in."""
    first = paths.iloc[0]
    if source.root is not None and not (source.root / first).exists() and "/" in first:
        within = paths.str.partition("/")[2]
        if (source.root / within.iloc[0]).exists() or source.root.name == first.partition("/")[0]:
            return within
    return paths
