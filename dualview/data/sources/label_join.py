"""Which row of a table of labels belongs to which study, and what on either side belongs to nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dualview.config import SourceConfig
from dualview.data.remarks import Remark
from dualview.data.sources.identifiers import form_of
from dualview.errors import UserError

NO_ROW = "study has no row in the table of labels, so its labels are unknown"
NO_STUDY = "row of the table of labels has no study with an image"
EXAMPLES = 3
SPREADSHEETS = "spreadsheets remove leading zeros and round long numbers: export the column as text"


def rows_of_labels(
    studies: "Sequence[pd.Series[str]]", *, labelled: "pd.Series[str]", file: Path, source: SourceConfig
) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """The row of the table of labels that each image's study has, and how many studies and rows are left over.

    Args:
        studies: (images,) what each image's study is called; each further series is another name of the same study,
            used where the one before has no row. Blank is no name.
        labelled: (rows,) the study of each row of the table, blank where it has none.
        file: the table, for messages.

    Returns:
        (images,) int64, -1 where the table has no row.

    Raises:
        UserError: a study with several rows; identifiers that match but for their form; or fewer than half of the
            rows, or of the studies where they are fewer, match.
    """
    is_again = labelled.duplicated().to_numpy()
    if (twice := labelled[is_again & (labelled != "").to_numpy()]).size:
        raise UserError(f"{file}: {len(twice)} rows are of a study that has a row already, such as {twice.iloc[0]!r}")
    index, place = pd.Index(labelled[~is_again]), np.flatnonzero(~is_again)
    row = np.full(len(studies[0]), -1, np.int64)
    for names in studies:
        found = index.get_indexer(pd.Index(names))
        row = np.where((row < 0) & (names != "").to_numpy() & (found >= 0), place[found], row)
    is_first = ~studies[0].duplicated().to_numpy()
    unlabelled = np.flatnonzero(is_first & (row < 0))
    unused = np.setdiff1d(np.arange(len(labelled)), row)
    if source.identifiers == "checked":
        _refuse_alike([names.iloc[unlabelled] for names in studies], labelled=labelled, file=file)
    num_studies, num_matched = int(is_first.sum()), int(is_first.sum()) - len(unlabelled)
    if 2 * num_matched < min(num_studies, len(labelled)):
        there = [name for names in studies for name in names.iloc[unlabelled[:1]] if name]
        raise UserError(
            f"{file}: its {len(labelled)} rows have labels for {num_matched} of {num_studies} studies. The images say "
            f"{' or '.join(map(repr, there))}, the table {', '.join(map(repr, labelled.iloc[unused[:EXAMPLES]]))}. "
            "Give the table of these images, and the column that holds their studies"
        )
    left_over = ((NO_ROW, studies[0].iloc[unlabelled]), (NO_STUDY, labelled.iloc[unused]))
    return row, tuple(Remark(kind, len(names), str(names.iloc[0])) for kind, names in left_over if len(names))


def _refuse_alike(unlabelled: "list[pd.Series[str]]", *, labelled: "pd.Series[str]", file: Path) -> None:
    """Raises: UserError where studies without a row have one but for the form of their name."""
    if not len(unlabelled[0]):
        return
    name_of = dict(zip(labelled.map(form_of), labelled, strict=True))
    alike: dict[int, tuple[str, str]] = {}
    for names in unlabelled:
        for n, name in enumerate(names):
            if name and (form := form_of(name)) in name_of:
                alike.setdefault(n, (name, name_of[form]))
    if alike:
        examples = ", ".join(f"{name!a} (images) and {other!a}" for name, other in list(alike.values())[:EXAMPLES])
        raise UserError(
            f"{file}: {len(alike)} of the studies without labels are in it but for the form of their names: "
            f"{examples}. Write both in one way ({SPREADSHEETS}), or say that they differ: data.identifiers=exact"
        )
