"""PadChest (Bustos et al. 2020, arXiv:1901.07441): one CSV of 160,861 images, 16-bit PNGs in folders 0 to 54.

The view is `Projection`: `ViewPosition_DICOM` is blank in 43 % of the rows. `Labels` is a Python list in
text, the same for all images of a study; half of its names occur with a leading space as well. A finding
that the list does not name is negative. One StudyID stands under two PatientIDs, with equal date and
labels: its images are taken for one study of the patient that comes first.
"""

import ast
import re
from dataclasses import replace

import numpy as np
import pandas as pd

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, sexes
from dualview.data.sources.image_rows import ImageRows, LabelNames, SourceTable, check_root, find_table
from dualview.data.sources.problems import Problems
from dualview.data.sources.text_table import text_table
from dualview.data.sources.vocabularies import PADCHEST_TO_XRV
from dualview.folders import list_files

TABLE_NAME = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
FRONTAL, LATERAL = ("PA",), ("L",)
PADCHEST_NOT_FINDINGS = (
    "",
    "exclude",
    "suboptimal study",
    "unchanged",
    "chronic changes",
    "normal",
    "other",
    "no finding",
)
NO_LABELS = ("", "nan")
# No name of PadChest has a quote or any of these characters, which other ways to write a list put between names.
NAME = r"'[^'\"\\|;,\[\]]*'|\"[^'\"\\|;,\[\]]*\""
LABEL_LIST = re.compile(rf"\[\s*(?:(?:{NAME})(?:\s*,\s*(?:{NAME}))*\s*,?)?\s*\]")
COLUMNS = (
    "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection",
    "Pediatric", "Manufacturer_DICOM", "Rows_DICOM", "Columns_DICOM", "MethodLabel", "Labels",
)  # fmt: skip
# Rows that are equal in these columns are one image twice (the authors' `extract_cohort.py`).
SAME_IMAGE = (
    "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "Projection", "Pediatric", "Rows_DICOM", "Columns_DICOM",
    "Labels",
)  # fmt: skip
# Users of torchxrayvision found these images missing (the first 11) or truncated (its pull request 137).
KNOWN_BAD = frozenset({
    "216840111366964012819207061112010307142602253_04-014-084.png",
    "216840111366964012989926673512011074122523403_00-163-058.png",
    "216840111366964012959786098432011033083840143_00-176-115.png",
    "216840111366964012558082906712009327122220177_00-102-064.png",
    "216840111366964012339356563862009072111404053_00-043-192.png",
    "216840111366964013076187734852011291090445391_00-196-188.png",
    "216840111366964012373310883942009117084022290_00-064-025.png",
    "216840111366964012283393834152009033102258826_00-059-087.png",
    "216840111366964012373310883942009170084120009_00-097-074.png",
    "216840111366964012819207061112010315104455352_04-024-184.png",
    "216840111366964012819207061112010306085429121_04-020-102.png",
    "216840111366964012989926673512011083134050913_00-168-009.png",
    "216840111366964012373310883942009152114636712_00-102-045.png",
    "216840111366964012819207061112010281134410801_00-129-131.png",
    "216840111366964012487858717522009280135853083_00-075-001.png",
    "216840111366964012989926673512011151082430686_00-157-045.png",
    "216840111366964013686042548532013208193054515_02-026-007.png",
    "216840111366964013590140476722013058110301622_02-056-111.png",
    "216840111366964013590140476722013043111952381_02-065-198.png",
    "216840111366964013829543166512013353113303615_02-092-190.png",
    "216840111366964013962490064942014134093945580_01-178-104.png",
})  # fmt: skip


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of the table; of `data.cohort`, the rules on rows are applied here.

    The 21 images known to be missing or truncated are left out where files are looked for.

    Raises:
        UserError: problems of the table or the cohort, or files that are not there.
    """
    check_root(source)
    file = find_table(source, names=[TABLE_NAME, f"{TABLE_NAME}.gz"])
    table = text_table(file, columns=COLUMNS, hint="Is it PadChest's own table?")
    age, is_implausible = ages(_age(table))
    rows = ImageRows(
        table.assign(
            patient=table["PatientID"],
            study=table["StudyID"],
            path=table["ImageDir"].where(table["ImageDir"] == "", table["ImageDir"] + "/") + table["ImageID"],
            date=table["StudyDate_DICOM"],
            sex=sexes(table["PatientSex_DICOM"]),
            age=age,
            manufacturer=table["Manufacturer_DICOM"],
            labelled_by=table["MethodLabel"],
        ),
        file=file,
        source=source,
    )
    _add_wrong_labels(rows.problems, table)
    rows.remark(is_implausible, IMPLAUSIBLE)
    known_bad = tuple(sorted(set(table["ImageID"]) & KNOWN_BAD))
    if source.check_files:
        rows.drop(rows.frame["ImageID"].isin(KNOWN_BAD), "known to be missing or truncated")
    rows.assign_views(rows.frame["Projection"], frontal=FRONTAL, lateral=LATERAL)
    if source.cohort.adults_only:
        rows.drop(rows.frame["Pediatric"] != "No", "patient is a child")
    if source.cohort.drop_repeated_rows:
        rows.drop(rows.frame.duplicated(subset=list(SAME_IMAGE)), "row repeats another but for its ImageID")
    of_study = rows.frame.groupby("study")
    differs = rows.frame["Labels"] != of_study["Labels"].transform("first")
    for line, cell in rows.frame.loc[differs, ["line", "Labels"]].itertuples(index=False):
        rows.problems.add(line, "Labels is {}, but another for an image of the same study above", cell)
    rows.frame = rows.frame.assign(patient=of_study["patient"].transform("first"), path=_real_paths(rows))
    rows.check_files()
    studies = rows.studies(attributes=["date", "sex", "age", "manufacturer", "labelled_by", "Labels"])

    attributes = dict(studies.table.attributes)
    names = _names(attributes.pop("Labels"))
    return replace(
        studies,
        table=replace(studies.table, attributes=attributes),
        label_names=LabelNames(studies=names, to_xrv=PADCHEST_TO_XRV, not_findings=PADCHEST_NOT_FINDINGS),
        known_bad=known_bad,
    )


def _add_wrong_labels(problems: Problems, table: pd.DataFrame) -> None:
    """Add `Labels` that are no list of texts: Python would take ['a' 'b'], as numpy writes it, for one label "ab"."""
    codes, distinct = pd.factorize(table["Labels"])
    is_wrong = np.array([cell not in NO_LABELS and not LABEL_LIST.fullmatch(cell) for cell in distinct], bool)
    for n in np.flatnonzero(is_wrong[codes]):
        problems.add(
            table["line"].iloc[n],
            "Labels is {}, not a list such as ['nodule', 'pneumonia'], with a comma between labels in quotes",
            distinct[codes[n]],
        )


def _names(cells: np.ndarray) -> np.ndarray:
    """(S,) of frozenset: the names in each `Labels` cell, stripped."""
    codes, distinct = pd.factorize(cells)
    sets = np.empty(len(distinct), object)
    for position, cell in enumerate(distinct):
        names = [] if cell in NO_LABELS else ast.literal_eval(cell)
        sets[position] = frozenset(name.strip() for name in names)
    return sets[codes]


def _age(table: pd.DataFrame) -> "pd.Series[str]":
    """Years between birth and study, blank where one is not known."""
    years = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce") - pd.to_numeric(
        table["PatientBirth"], errors="coerce"
    )
    return years.map(lambda age: str(int(age)) if np.isfinite(age) else "")


def _real_paths(rows: ImageRows) -> "pd.Series[str]":
    """Where each image really is: `ImageDir` is sometimes wrong, and some unpack everything into one folder.

    An image that is not where the table says is looked for by its name. Several of that name, of which some may be
    masks or copies of another size, are a problem.
    """
    frame, source = rows.frame, rows.source
    paths = frame["path"]
    if not source.check_files:
        return paths
    assert source.root is not None
    listing = list_files(source.root)
    # Those that cannot be read are found here too, and named when files are checked.
    there = {path for path in (*(path for path, _ in listing.unreadable), *listing.files) if path.endswith(".png")}
    where: dict[str, list[str]] = {}
    for path in sorted(there):
        where.setdefault(path.rpartition("/")[2], []).append(path)
    found = []
    for line, name, path in frame[["line", "ImageID", "path"]].itertuples(index=False):
        named = [path] if path in there else [name] if name in there else where.get(name, [path])
        if len(named) > 1:
            rows.problems.add(
                line, "image {} is not in the folder that ImageDir says, and in several others: {}; leave one in "
                "data.root", path, " and ".join(named),
            )  # fmt: skip
        found.append(named[0])
    return pd.Series(found, index=frame.index, dtype=object)
