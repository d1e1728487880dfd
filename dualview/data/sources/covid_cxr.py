"""The COVID-19 image data collection (Cohen et al., arXiv:2006.11988): metadata.csv and images/.

One row per image. A study is the images of one patient at one `offset` (days since symptoms or
admission, blank counting as a value). The cell `finding` lists diagnoses separated by ", ".

Labels are of the study: a finding of the config is positive where any image of the study has one of
its diagnoses, negative where all images have others, and unknown where no image has a diagnosis.
"""

from collections import defaultdict

from dualview.config import DataConfig
from dualview.data.sources.image_rows import ImageRow, Problems, read_table, studies_from, view_of
from dualview.data.table import StudyTable
from dualview.errors import UserError

UNKNOWN = {"", "todo", "Unknown"}


def read(config: DataConfig) -> StudyTable:
    """Studies of the folder `data.root`.

    Raises:
        UserError: all problems of the file together, or diagnoses in the config that no row has.
    """
    file, table = read_table(config, columns=["patientid", "offset", "finding", "view", "folder", "filename"])
    problems = Problems(file)
    diagnoses: dict[tuple[str, str], set[str]] = defaultdict(set)
    for patient, offset, cell in zip(table["patientid"], table["offset"], table["finding"], strict=True):
        diagnoses[patient, offset] |= {part.strip() for part in cell.split(",")} - UNKNOWN
    _check_diagnoses(config, there=set().union(*diagnoses.values()))

    rows: list[ImageRow] = []
    for line, cells in zip(table.index, table.to_dict("records"), strict=True):
        if not cells["patientid"] or not cells["filename"]:
            problems.add(int(line), "patientid and filename must not be blank")
            continue
        try:
            view = view_of(cells["view"], config=config)
        except ValueError as error:
            problems.add(int(line), str(error))
            continue
        if view is None:
            continue
        of_study = diagnoses[cells["patientid"], cells["offset"]]
        rows.append(
            ImageRow(
                line=int(line),
                patient=cells["patientid"],
                study=f"{cells['patientid']}/{cells['offset']}",
                view=view,
                path=f"{cells['folder']}/{cells['filename']}",
                labels=tuple(
                    int(bool(of_study & set(positive))) if of_study else None for positive in config.findings.values()
                ),
            )
        )
    return studies_from(rows, findings=tuple(config.findings), config=config, problems=problems)


def _check_diagnoses(config: DataConfig, *, there: set[str]) -> None:
    wrong = sorted({name for names in config.findings.values() for name in names} - there)
    if wrong:
        raise UserError(f"data.findings names {wrong}, which no row of the table has; there are {sorted(there)}")
