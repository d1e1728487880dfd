"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 (Johnson et al. 2019, arXiv:1901.07042): four tables and files/pXX/pSUBJECT/sSTUDY/.

Labels are of the study, from the labeler CheXpert or NegBio. The split is official and by patient, its
middle part called `validate`. Where mimic-cxr-2.1.0-test-set-labeled.csv is there, its radiologists' labels
of 687 test studies replace the labeler's; it calls Lung Opacity "Airspace Opacity".
"""

from pathlib import Path

import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.sources.chexpert_labels import add_wrong_cells, labels_of, text
from dualview.data.sources.dates import padded_time
from dualview.data.sources.image_rows import ImageRows, Problems, SourceTable, check_root, text_table
from dualview.data.sources.label_join import rows_of_labels
from dualview.data.sources.vocabularies import CHEXPERT
from dualview.errors import UserError

VERSIONS = ("2.1.0", "2.0.0")
FRONTAL, LATERAL = ("PA", "AP"), ("LATERAL", "LL")
RENAMED = {"Airspace Opacity": "Lung Opacity"}
HINT = "Is it MIMIC-CXR-JPG's own table?"


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of the tables beside `data.csv` (the metadata), or in `data.root`.

    Of several frontals those of the view named first in `data.frontal_views` come first (PA before
    AP), as of several laterals; otherwise the order of the table.

    Raises:
        UserError: problems of a table, or files that are not there.
    """
    check_root(source)
    folder = source.csv.parent if source.csv is not None else source.root
    assert folder is not None  # SourceConfig has checked it.
    file = source.csv or _table(folder, "metadata")
    metadata = text_table(
        file,
        columns=["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"],
        hint=HINT,
    )
    split = text_table(_table(folder, "split"), columns=["dicom_id", "split"], hint=HINT)
    labels = _study_labels(folder, source=source)

    table = metadata.merge(split[["dicom_id", "split"]], on="dicom_id", how="left").merge(
        labels, on="study_id", how="left", validate="many_to_one"
    )
    is_labelled = table["is_labelled"].notna()
    subject, study = table["subject_id"], table["study_id"]
    table = table.assign(
        **{column: text(table[column]) for column in CHEXPERT},
        is_labelled=is_labelled,
        labelled_by=text(table["is_labelled"]),
        patient=subject,
        study=study,
        path="files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + table["dicom_id"] + ".jpg",
        split=text(table["split"]).replace("validate", "val"),
        date=(table["StudyDate"] + " " + padded_time(table["StudyTime"]))
        .str.strip()
        .where(table["StudyDate"] != "", ""),
        projection=table["ViewPosition"],
    )
    rows = ImageRows(table, file=file, source=source)
    labels_file = _table(folder, source.labeler)
    rows.add_remarks(rows_of_labels([study], labelled=labels["study_id"], file=labels_file, source=source)[1])
    rows.assign_views(table["ViewPosition"], frontal=FRONTAL, lateral=LATERAL)
    rows.drop(~rows.frame["split"].isin(("train", "val", "test")), "image is not in the table of splits")
    preferred = [*(source.frontal_views or FRONTAL), *(source.lateral_views or LATERAL)]
    frame = rows.frame.assign(
        begins=rows.frame.groupby("study")["line"].transform("min"),
        preference=rows.frame["ViewPosition"].map(preferred.index),
    )
    rows.frame = frame.sort_values(["begins", "preference", "line"])
    rows.check_files()
    findings, row_labels = labels_of(rows, is_labelled=rows.frame["is_labelled"].to_numpy(bool))
    return rows.studies(findings=findings, labels=row_labels, attributes=["date", "projection", "labelled_by"])


def _table(folder: Path, kind: str) -> Path:
    """The table of a kind, of either version, compressed or not.

    Raises:
        UserError: the folder has no such table.
    """
    names = [f"mimic-cxr-{version}-{kind}.csv{gz}" for version in VERSIONS for gz in (".gz", "")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"no table in {folder}: looked for {', '.join(names)}; give data.csv, the path of the metadata table"
    )


def _study_labels(folder: Path, *, source: SourceConfig) -> pd.DataFrame:
    """study_id, the 14 columns, and `is_labelled`: by whom."""
    columns = ["study_id", *CHEXPERT]
    labels = _checked(_table(folder, source.labeler), renamed={})[columns]
    labels = labels.assign(is_labelled=source.labeler)
    for version in VERSIONS:
        for file in (folder / f"mimic-cxr-{version}-test-set-labeled.csv{gz}" for gz in ("", ".gz")):
            if file.is_file():
                by_radiologists = _checked(file, renamed=RENAMED)[columns].assign(is_labelled="radiologists")
                others = labels[~labels["study_id"].isin(by_radiologists["study_id"])]
                return pd.concat([others, by_radiologists], ignore_index=True)
    return labels


def _checked(file: Path, *, renamed: dict[str, str]) -> pd.DataFrame:
    """A table of labels per study, with the columns' usual names.

    Raises:
        UserError: columns that are not there, cells that are no label, a study that comes twice.
    """
    theirs = {usual: name for name, usual in renamed.items()}
    table = text_table(file, columns=["study_id", *(theirs.get(name, name) for name in CHEXPERT)], hint=HINT)
    table = table.rename(columns=renamed)
    problems = Problems(file)
    add_wrong_cells(problems, table)
    for line, study in table.loc[table["study_id"].duplicated(), ["line", "study_id"]].itertuples(index=False):
        problems.add(line, "study_id {} stands above already; each study has one row of labels", study)
    problems.raise_if_any()
    return table
