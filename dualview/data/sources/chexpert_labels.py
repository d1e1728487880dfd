"""The 14 label columns that CheXpert and MIMIC-CXR-JPG share: 1, 0, -1 (uncertain), blank (not mentioned).

`No Finding` is 1 where the report has no pathology, not even an uncertain one; support devices do not
count (Irvin et al. 2019, arXiv:1901.07031, section "Label extraction"). So it makes the blank
pathologies of its study negative, and it is negative itself where a pathology is positive or uncertain.
"""

import numpy as np
import pandas as pd

from dualview.config import SourceConfig
from dualview.data.sources.image_rows import ImageRows, Label
from dualview.data.sources.problems import Problems
from dualview.data.sources.vocabularies import CHEXPERT, CHEXPERT_TO_XRV, NO_FINDING, NOT_A_PATHOLOGY
from dualview.errors import UserError

CELLS = {
    "1": Label.POSITIVE, "1.0": Label.POSITIVE, "0": Label.NEGATIVE, "0.0": Label.NEGATIVE,
    "-1": Label.UNCERTAIN, "-1.0": Label.UNCERTAIN, "": Label.UNKNOWN,
}  # fmt: skip


def labels_of(rows: ImageRows, *, is_labelled: np.ndarray | None = None) -> tuple[list[str], np.ndarray]:
    """Findings of the configuration, and the label of each row's study: K names, (rows, K) int8 of `Label`.

    Args:
        rows: whose frame has the 14 columns as text, checked by `add_wrong_cells`.
        is_labelled: (rows,) bool, False for a study that no labeler has seen; without it all are labelled.

    Raises:
        UserError: the configuration names columns that there are not.
    """
    config = rows.source
    findings = _findings(config)
    frame = rows.frame
    if is_labelled is None:
        is_labelled = np.ones(len(frame), bool)
    cells = frame[list(CHEXPERT)]
    labels = cells.apply(lambda column: column.map(CELLS)).fillna(Label.UNKNOWN).to_numpy(np.int8, copy=True)
    no_finding = CHEXPERT.index(NO_FINDING)
    pathologies = [k for k, name in enumerate(CHEXPERT) if name != NO_FINDING and name not in NOT_A_PATHOLOGY]
    unknown = labels == Label.UNKNOWN

    is_normal = labels[:, no_finding] == Label.POSITIVE
    made_negative = np.zeros_like(unknown)
    made_negative[:, pathologies] = is_normal[:, None]
    is_abnormal = np.isin(labels[:, pathologies], (Label.POSITIVE, Label.UNCERTAIN)).any(axis=1)
    made_negative[:, no_finding] = is_abnormal
    if config.unmentioned == "negative":
        made_negative |= is_labelled[:, None]
        made_negative[:, no_finding] = is_abnormal
    labels[unknown & made_negative] = Label.NEGATIVE
    return list(findings), labels[:, [CHEXPERT.index(column) for column in findings.values()]]


def add_wrong_cells(problems: Problems, table: pd.DataFrame) -> None:
    """Add every cell of the 14 columns that is none of 1, 0, -1 and blank."""
    for column in CHEXPERT:
        for line, cell in table.loc[~table[column].isin(CELLS), ["line", column]].itertuples(index=False):
            problems.add(line, "{} is {}; allowed are 1, 0, -1 and blank", column, repr(cell), of=column)


def _findings(config: SourceConfig) -> dict[str, str]:
    """Finding -> its column."""
    if config.vocabulary == "xrv":
        return {
            name: CHEXPERT_TO_XRV[name][0] for name in (config.findings or CHEXPERT_TO_XRV) if name in CHEXPERT_TO_XRV
        }
    findings = {finding: names[0] for finding, names in config.findings.items()} or {name: name for name in CHEXPERT}
    if wrong := sorted(set(findings.values()) - set(CHEXPERT)):
        raise UserError(f"data.findings names {wrong}; {config.source} has {', '.join(CHEXPERT)}")
    return findings
