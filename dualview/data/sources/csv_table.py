"""Any CSV with one row per image: study, patient, view, path, and a column per finding.

A finding cell is 1, 0 or blank (unknown). Images that share patient and study form one study.
"""

from dualview.config import DataConfig
from dualview.data.sources.image_rows import ImageRow, Problems, read_table, studies_from, view_of
from dualview.data.table import StudyTable

LABELS = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "": None}
SPLITS = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}


def read(config: DataConfig) -> StudyTable:
    """Studies of the table at `data.csv`.

    Raises:
        UserError: all problems of the file together, each with file:line.
    """
    columns = config.columns
    label_columns = {finding: names[0] for finding, names in config.findings.items()}
    split_column = [config.split.column] if config.split.column else []
    file, table = read_table(
        config,
        columns=[columns.study, columns.patient, columns.view, columns.path, *label_columns.values(), *split_column],
    )
    problems = Problems(file)
    rows: list[ImageRow] = []
    for line, cells in zip(table.index, table.to_dict("records"), strict=True):
        found: list[str] = []
        for key in ("study", "patient"):
            if not cells[getattr(columns, key)]:
                found.append(f"{key} is blank; every image needs one (data.columns.{key})")
        if not cells[columns.path]:
            found.append("path is blank; leave out the row of a view that does not exist")
        view = None
        try:
            view = view_of(cells[columns.view], config=config)
        except ValueError as error:
            found.append(str(error))
        labels = []
        for finding, column in label_columns.items():
            if cells[column] not in LABELS:
                found.append(f"{finding} is {cells[column]!r}; allowed are 1, 0 and blank for unknown")
            labels.append(LABELS.get(cells[column]))
        split = None
        if config.split.column:
            split = SPLITS.get(cells[config.split.column].lower())
            if split is None:
                found.append(f"split is {cells[config.split.column]!r}; allowed are train, val and test")
        for problem in found:
            problems.add(int(line), problem)
        if not found and view is not None:
            rows.append(
                ImageRow(
                    line=int(line),
                    patient=cells[columns.patient],
                    study=cells[columns.study],
                    view=view,
                    path=cells[columns.path],
                    labels=tuple(labels),
                    split=split,
                )
            )
    return studies_from(rows, findings=tuple(config.findings), config=config, problems=problems)
