"""CheXpert Plus (Chambon et al. 2024, arXiv:2405.19538): CheXpert's images with reports, demographics and new labels.

df_chexpert_plus_240401.csv has a row per image: path_to_image (train/patient42142/study5/view1_frontal.jpg),
frontal_lateral, ap_pa, deid_patient_id, age, sex, race, insurance_type, split (train, valid). Labels stand in
chexbert_labels/{impression,report,findings}_fixed.json, a JSON object per line and image: path_to_image
and the 14 columns of CheXpert, 1, 0, -1 or null. Images are PNGs under PNG/, or CheXpert's own.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, sexes
from dualview.data.remarks import Remark
from dualview.data.sources.chexpert import DRAWN_ANEW, FRONTAL, LATERAL, OFFICIAL
from dualview.data.sources.chexpert_labels import add_wrong_cells, labels_of
from dualview.data.sources.image_rows import ImageRows, SourceTable, check_root, find_table
from dualview.data.sources.label_join import rows_of_labels
from dualview.data.sources.located import located
from dualview.data.sources.problems import Problems
from dualview.data.sources.table_lines import table_lines
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import CHEXPERT
from dualview.errors import UserError

TABLE_NAMES = ("df_chexpert_plus_240401.csv", "df_chexpert_plus_240401.csv.gz")
COLUMNS = ("path_to_image", "deid_patient_id", "split")
OPTIONAL = ("frontal_lateral", "ap_pa", "age", "sex", "race", "insurance_type")
PATH = r"^(?:.*/)?((?:train|valid|test)/(patient\d+/study\d+)/view\d+_(frontal|lateral))\.\w+$"
SUFFIXES = (".png", ".jpg", ".dcm")
LABEL_FOLDERS = ("chexbert_labels", "")


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of the table, with the labels of `data.labelled_section` of their reports.

    Raises:
        UserError: problems of the table or of the labels, or files that are not there.
    """
    check_root(source)
    file = find_table(source, names=TABLE_NAMES)
    table = text_table(file, columns=COLUMNS, hint="Is it CheXpert Plus's own table?", optional=OPTIONAL)
    parts = table["path_to_image"].str.extract(PATH)
    parts.columns = ["image", "study", "view"]
    labels_file, labels = _labels(
        [folder for folder in (source.root, file.parent) if folder is not None], source=source
    )
    images = parts["image"].fillna("")
    row_of_image, _ = rows_of_labels([images], labelled=labels["image"], file=labels_file, source=source)
    is_labelled = row_of_image >= 0
    cells = np.where(is_labelled[:, None], labels[list(CHEXPERT)].to_numpy(object)[row_of_image], "")
    age, is_implausible = ages(table["age"])
    rows = ImageRows(
        table.assign(
            **{column: cells[:, k] for k, column in enumerate(CHEXPERT)},
            is_labelled=is_labelled,
            official_split=table["split"],
            split=table["split"].map(OFFICIAL if data.split.official else DRAWN_ANEW).fillna(""),
            patient=table["deid_patient_id"],
            study=parts["study"],
            image=parts["image"],
            path=table["path_to_image"],
            projection=table["ap_pa"],
            insurance=table["insurance_type"],
            sex=sexes(table["sex"]),
            age=age,
            position=table["frontal_lateral"].where(table["frontal_lateral"] != "", parts["view"].str.capitalize()),
        ),
        file=file,
        source=source,
    )
    for mask, template, column in (
        (
            parts["image"].isna(),
            "path_to_image is {}, not like train/patient1/study1/view1_frontal.jpg",
            "path_to_image",
        ),
        (table["deid_patient_id"] == "", "deid_patient_id is blank{}", "deid_patient_id"),
        (~table["split"].isin(OFFICIAL), "split is {}; allowed are train, valid and test", "split"),
    ):
        for line, cell in table.loc[mask, ["line", column]].itertuples(index=False):
            rows.problems.add(line, template, cell)
    rows.problems.raise_if_any(account=rows.account)
    rows.remark(is_implausible, IMPLAUSIBLE)
    rows.remark(~rows.frame["is_labelled"], f"image has no row in the labels of {source.labelled_section}")
    unmatched = ~labels["image"].isin(parts["image"])
    if unmatched.any():
        rows.add_remarks([Remark("row of labels whose image the table does not have", int(unmatched.sum()),
                                 str(labels["image"][unmatched].iloc[0]))])  # fmt: skip
    if rows.frame["split"].nunique() == 1:
        rows.frame = rows.frame.drop(columns="split")
    rows.frame = rows.frame.assign(path=_located(rows.frame, source))
    rows.assign_views(rows.frame["position"], frontal=FRONTAL, lateral=LATERAL)
    rows.check_files()
    findings, row_labels = labels_of(rows, is_labelled=rows.frame["is_labelled"].to_numpy(bool))
    attributes = ["sex", "age", "projection", "race", "insurance", "official_split"]
    return rows.studies(findings=findings, labels=row_labels, attributes=attributes)


def _labels(folders: list[Path], *, source: SourceConfig) -> tuple[Path, pd.DataFrame]:
    """The file of labels; `image` (split/patient/study/view without extension) and the 14 columns, a row per image.

    Raises:
        UserError: no such file, or lines that are no labels.
    """
    name = f"{source.labelled_section}_fixed.json"
    files = [folder / within / name for folder in folders for within in LABEL_FOLDERS]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(f"no labels: looked for {', '.join(map(str, dict.fromkeys(files)))} (data.labelled_section)")
    problems = Problems(file)
    records = []
    for number, line in enumerate(table_lines(file), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            cells = ["" if record[name] is None else str(record[name]) for name in CHEXPERT]
            records.append((number, record["path_to_image"], *cells))
        except (ValueError, TypeError, KeyError, RecursionError):
            problems.add(number, "is no JSON object with path_to_image and the 14 labels: {}", repr(line[:60]))
    table = pd.DataFrame(records, columns=["line", "path_to_image", *CHEXPERT], dtype=object)
    table[list(CHEXPERT)] = table[list(CHEXPERT)].replace("nan", "")
    table.insert(0, "image", table["path_to_image"].astype(str).str.extract(PATH)[0])
    for line, path in table.loc[table["image"].isna(), ["line", "path_to_image"]].itertuples(index=False):
        problems.add(line, "path_to_image is {}, not like train/patient1/study1/view1_frontal.jpg", path)
    for line in table["line"][table["image"].notna() & table["image"].duplicated()]:
        problems.add(line, "the image stands above already; each has one row of labels")
    add_wrong_cells(problems, table)
    problems.raise_if_any()
    if table.empty:
        raise UserError(f"{file} has no labels")
    return file, table


def _located(frame: pd.DataFrame, source: SourceConfig) -> "pd.Series[str]":
    """Where each image is: under `data.root`, PNG/ or another folder of it that holds train/ or valid/."""
    root = source.root
    if root is None or not root.is_dir():
        return frame["path"]
    below = [root, *(path for path in sorted(root.iterdir()) if path.is_dir() and path.name not in OFFICIAL)]
    parents = [*below, *(path for folder in below[1:] for path in _folders(folder))]  # PNG.zip may make PNG/PNG/
    bases = [path for path in parents if any((path / split).is_dir() for split in OFFICIAL)]
    within = ["" if path == root else path.relative_to(root).as_posix() + "/" for path in bases]
    candidates = [base + frame["image"] + suffix for suffix in SUFFIXES for base in within]
    return located([*candidates, frame["path"]], root=root, each=source.check_files) if candidates else frame["path"]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that holds no images itself; none in one that does, which has too many."""
    if any((folder / split).is_dir() for split in OFFICIAL):
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_dir()]
