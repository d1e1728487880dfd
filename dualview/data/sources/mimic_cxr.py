"""MIMIC-CXR-JPG 2.0.0 and 2.1.0 (Johnson et al. 2019, arXiv:1901.07042): four tables and files/pXX/pSUBJECT/sSTUDY/.

Labels are of the study, from the labeler CheXpert or NegBio. The split is official and by patient, its
middle part called `validate`. Where mimic-cxr-2.1.0-test-set-labeled.csv is there, its radiologists' labels
of 687 test studies replace the labeler's; it calls Lung Opacity "Airspace Opacity". `data.labeler: cxr_lt` takes labels
and split from CXR-LT instead. Sex, age, race and insurance are known where MIMIC-IV's tables lie beside.
"""

from pathlib import Path

import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE
from dualview.data.remarks import Remark
from dualview.data.sources.body_parts import CHEST, parts_named
from dualview.data.sources.chexpert_labels import add_wrong_cells, labels_of
from dualview.data.sources.cxr_lt import CxrLt, read_cxr_lt
from dualview.data.sources.dates import padded_time
from dualview.data.sources.dicom_views import named_view
from dualview.data.sources.image_rows import ImageRows, SourceTable, check_root
from dualview.data.sources.label_join import rows_of_labels
from dualview.data.sources.mimic_iv import demographics
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_table
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
        optional=["PerformedProcedureStepDescription"],
    )
    position, is_inferred = _positions(metadata)
    subject, study = metadata["subject_id"], metadata["study_id"]
    people, is_nobody, is_implausible = demographics(metadata, folder=folder)
    table = metadata.assign(
        **people,
        position=position,
        is_inferred=is_inferred,
        is_nobody=is_nobody,
        is_implausible=is_implausible,
        patient=subject,
        study=study,
        path="files/p" + subject.str[:2] + "/p" + subject + "/s" + study + "/" + metadata["dicom_id"] + ".jpg",
        date=_dates(metadata),
        projection=position,
    )
    if source.labeler == "cxr_lt":
        cxr_lt = read_cxr_lt(folder, source=source)
        table = table.assign(split=table["dicom_id"].map(cxr_lt.split).fillna(""), labelled_by="cxr_lt")
        remarks = _unmatched(cxr_lt, table=table, source=source)
    else:
        cxr_lt = None
        table, remarks = _with_labels(table, folder=folder, source=source)
    rows = ImageRows(table, file=file, source=source)
    rows.add_remarks(remarks)
    rows.assign_views(table["position"], frontal=FRONTAL, lateral=LATERAL)
    rows.drop(~rows.frame["split"].isin(("train", "val", "test")), "image is not in the table of splits")
    rows.remark(rows.frame["is_inferred"], "ViewPosition is blank, the view is that of the procedure's description")
    rows.remark(rows.frame["is_implausible"], IMPLAUSIBLE)
    rows.remark(rows.frame["is_nobody"], "subject is not in patients.csv: sex and age are not known")
    preferred = [*(source.frontal_views or FRONTAL), *(source.lateral_views or LATERAL)]
    frame = rows.frame.assign(
        begins=rows.frame.groupby("study")["line"].transform("min"),
        preference=rows.frame["position"].map(preferred.index),
    )
    rows.frame = frame.sort_values(["begins", "preference", "line"])
    rows.check_files()
    if cxr_lt is not None:
        findings, row_labels = cxr_lt.findings, cxr_lt.labels.loc[rows.frame["dicom_id"]].to_numpy()
    else:
        findings, row_labels = labels_of(rows, is_labelled=rows.frame["is_labelled"].to_numpy(bool))
    return rows.studies(findings=findings, labels=row_labels, attributes=["date", "projection", "labelled_by", *people])


def _positions(metadata: pd.DataFrame) -> "tuple[pd.Series[str], pd.Series[bool]]":
    """View of each image, and whether it is only that of its procedure: ViewPosition is blank in 15,769 rows.

    A description such as "CHEST (PORTABLE AP)" says the view of all images of its study; "CHEST (PA AND LAT)"
    and "TRAUMA #3 (PORT CHEST ONLY)" do not, and one that names another part of the body is not trusted.
    """
    described = metadata["PerformedProcedureStepDescription"].str.upper()
    view = described.map({text: _view_described(text) for text in described.unique()})
    is_inferred = (metadata["ViewPosition"] == "") & (view != "")
    return metadata["ViewPosition"].where(~is_inferred, view), is_inferred


def _view_described(text: str) -> str:
    """The one view of the chest alone that a description of a procedure names, or blank."""
    view = named_view(text) if parts_named(text) == {CHEST} else ""
    return view if view in (*FRONTAL, *LATERAL) else ""


def _with_labels(table: pd.DataFrame, *, folder: Path, source: SourceConfig) -> tuple[pd.DataFrame, tuple[Remark, ...]]:
    """The table with the official split and the labels of the studies, and which of them are left over."""
    split = text_table(_table(folder, "split"), columns=["dicom_id", "split"], hint=HINT)
    labels = _study_labels(folder, source=source)
    labels_file = _table(folder, source.labeler)
    _, remarks = rows_of_labels([table["study_id"]], labelled=labels["study_id"], file=labels_file, source=source)
    table = table.merge(split[["dicom_id", "split"]], on="dicom_id", how="left").merge(
        labels, on="study_id", how="left", validate="many_to_one"
    )
    table = table.assign(
        **{column: table[column].fillna("") for column in CHEXPERT},
        labelled_by=table["is_labelled"].fillna(""),
        is_labelled=table["is_labelled"].notna(),
        split=table["split"].fillna("").replace("validate", "val"),
    )
    return table, remarks


def _dates(metadata: pd.DataFrame) -> "pd.Series[str]":
    """Date and time of each image's study; the tables have times as numbers, which lost their zeros."""
    date = metadata["StudyDate"]
    return (date + " " + padded_time(metadata["StudyTime"])).str.strip().where(date != "", "")


def _unmatched(cxr_lt: CxrLt, *, table: pd.DataFrame, source: SourceConfig) -> tuple[Remark, ...]:
    """Rows of CXR-LT whose image the metadata do not have.

    Raises:
        UserError: most are of other images.
    """
    images = pd.Series(cxr_lt.split.index)
    rows, _ = rows_of_labels([table["dicom_id"]], labelled=images, file=cxr_lt.file, source=source)
    unmatched = images.drop(rows[rows >= 0])
    kind = "row of CXR-LT whose image is not in the metadata"
    return (Remark(kind, len(unmatched), str(unmatched.iloc[0])),) if len(unmatched) else ()


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
