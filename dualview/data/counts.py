"""What the data are, in numbers: images read and left out, studies, patients, labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dualview.data.load import Data
from dualview.data.sources.image_rows import ReadImages, SourceTable
from dualview.data.table import StudyTable
from dualview.views import Availability, View


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Studies by what is known of a finding; `uncertain` are those of the unknown whose report hedges."""

    positive: int
    negative: int
    unknown: int
    uncertain: int


def count_data(data: Data) -> dict[str, Any]:
    """Counts of the whole, of each source and of each split; plain types, ready for JSON."""
    sources = [count_source(source) for source in data.sources]
    whole = count_tables(list(data.splits.values()))
    dropped: dict[str, int] = {}
    for source in sources:
        for reason, count in source["images"]["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    images = {
        "read": sum(source["images"]["read"] for source in sources),
        "used": sum(source["images"]["used"] for source in sources),
        "dropped": dropped,
    }
    known_bad = sorted(path for source in data.sources for path in source.known_bad)
    splits = {name: count_tables([table]) for name, table in data.splits.items()}
    return {
        "images": images,
        **whole,
        "known_bad_images": known_bad,
        "splits": splits,
        "left_out_of_training": left_out_of_training(data),
        "sources": sources,
    }


def left_out_of_training(data: Data) -> dict[str, int]:
    """Patients and studies of the train split that `data.split.max_train_patients` and `data.train_on` leave out."""
    whole, kept = data.whole_splits["train"], data.train
    return {
        "patients": len(set(whole.patient_ids)) - len(set(kept.patient_ids)),
        "studies": len(whole) - len(kept),
    }


def count_source(source: SourceTable) -> dict[str, Any]:
    """Counts of one source."""
    return {**count_images(source), **count_tables([source.table])}


def count_images(source: ReadImages) -> dict[str, Any]:
    """Counts of the images of one source; of one that could not be read to its end, `used` is None."""
    images = {
        "read": source.num_images_read,
        "used": int(source.table.num_images.sum()) if isinstance(source, SourceTable) else None,
        "dropped": {str(reason): int(count) for reason, count in source.dropped["reason"].value_counts().items()},
    }
    return {"name": source.name, "images": images, "remarks": [vars(remark) for remark in source.remarks]}


def count_tables(tables: list[StudyTable]) -> dict[str, Any]:
    """Counts of the studies in these tables, which share their findings."""
    kinds = {kind.key: sum(int((t.availability == kind).sum()) for t in tables) for kind in Availability}
    positives = [table.positive for table in tables]
    several = {view: sum(int((t.num_images[:, view] > 1).sum()) for t in tables) for view in View}
    return {
        "patients": sum(len(set(t.patient_ids)) for t in tables),
        "studies": {"total": sum(map(len, tables)), **kinds},
        "several_frontals": several[View.PA],
        "several_laterals": several[View.LATERAL],
        "findings": {
            finding: vars(_labels(tables, k, positives=positives)) for k, finding in enumerate(tables[0].findings)
        },
    }  # fmt: skip


def dropped_images(sources: Sequence[ReadImages]) -> pd.DataFrame:
    """Every image that is left out: source, path, reason. Paths can identify patients."""
    return pd.concat([source.dropped.assign(source=source.name) for source in sources], ignore_index=True)[
        ["source", "path", "reason"]
    ]


def _labels(tables: list[StudyTable], k: int, *, positives: list[np.ndarray]) -> LabelCounts:
    positive = sum(int(in_table[:, k].sum()) for in_table in positives)
    num_known = sum(int(table.label_mask[:, k].sum()) for table in tables)
    return LabelCounts(
        positive=positive,
        negative=num_known - positive,
        unknown=sum(map(len, tables)) - num_known,
        uncertain=sum(int(t.uncertain[:, k].sum()) for t in tables if t.uncertain is not None),
    )
