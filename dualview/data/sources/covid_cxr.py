"""The COVID-19 image data collection (Cohen et al., arXiv:2006.11988): metadata.csv and images/.

One row per image. A study is the images of one patient at one `offset` (days since symptoms or
admission, blank counting as a value). The cell `finding` lists diagnoses separated by ", ".

Labels are of the study: a finding of the config is positive where any image of the study has one of
its diagnoses, negative where all images have others, and unknown where no image has a diagnosis.
"""

import numpy as np

from dualview.config import DataConfig, SourceConfig
from dualview.data.people import IMPLAUSIBLE, ages, sexes
from dualview.data.sources.image_rows import ImageRows, Label, SourceTable, check_root, find_table
from dualview.data.sources.missing_findings import findings_there
from dualview.data.sources.text_table import text_table

FRONTAL, LATERAL = ("PA", "AP"), ("L",)
UNKNOWN = {"", "todo", "Unknown"}


def read(source: SourceConfig, *, data: DataConfig, seed: int) -> SourceTable:
    """Studies of the folder `data.root`.

    Raises:
        UserError: all problems of the file together, or diagnoses in the config that no row has.
    """
    check_root(source)
    file = find_table(source, names=["metadata.csv"])
    table = text_table(
        file,
        columns=["patientid", "offset", "finding", "view", "folder", "filename", "sex", "age"],
        hint="Is it the metadata.csv of the collection?",
    )
    age, is_implausible = ages(table["age"])
    table = table.assign(
        sex=sexes(table["sex"]),
        age=age,
        patient=table["patientid"],
        study=table["patientid"] + "/" + table["offset"],
        path=table["folder"] + "/" + table["filename"],
    )
    rows = ImageRows(table, file=file, source=source)
    rows.remark(is_implausible, IMPLAUSIBLE)
    blank = (table["patientid"] == "") | (table["filename"] == "")
    for line in table["line"][blank]:
        rows.problems.add(line, "patientid and filename must not be blank")
    row_diagnoses = table["finding"].map(lambda cell: {part.strip() for part in cell.split(",")} - UNKNOWN)
    study_diagnoses: dict[str, set[str]] = {study: set() for study in table["study"]}
    for study, diagnoses in zip(table["study"], row_diagnoses, strict=True):
        study_diagnoses[study] |= diagnoses
    findings, remarks = findings_there(source, there=set().union(*study_diagnoses.values()), every_name=True)
    rows.add_remarks(remarks)

    rows.frame = table[~blank]
    rows.assign_views(rows.frame["view"], frontal=FRONTAL, lateral=LATERAL, strict=True)
    rows.check_files()
    labels = np.array(
        [
            [
                int(bool(study_diagnoses[study] & set(positive))) if study_diagnoses[study] else Label.UNKNOWN
                for positive in findings.values()
            ]
            for study in rows.frame["study"]
        ],
        dtype=np.int8,
    ).reshape(len(rows.frame), len(findings))
    return rows.studies(findings=list(findings), labels=labels, attributes=["sex", "age"])
