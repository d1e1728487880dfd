"""The most confident wrong answers, under numbers that say nothing of who the patients are."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logit

from dualview.report.record import Record
from dualview.report.tables import Cell, Table, probability, text
from dualview.views import TITLES, Availability

SHOWN, SHOWN_PER_FINDING = 20, 5
LEAST, MOST = 1e-12, 1 - 1e-12  # bounds beyond which probabilities are equally confident


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """One wrong answer."""

    number: int  # of the study on the page: 1 is the first that is met, by confidence
    at: int  # row of the table of predictions
    k: int  # number of the finding
    probability: float
    threshold: float
    margin: float  # distance of the two in log-odds


def wrong_answers(record: Record) -> list[WrongAnswer]:
    """The wrong answers furthest from their threshold in log-odds, a few of each finding; none without thresholds.

    Numbers follow from the order of confidence alone, so they tell nothing of the table, its order or its identifiers.
    """
    table = record.predictions
    probabilities = record.probabilities("route")
    thresholds = np.stack([record.points.thresholds(table.findings, route) for route in Availability])  # (3, K)
    cuts = thresholds[table.availability]  # (S, K)
    judged = table.label_mask & np.isfinite(probabilities) & np.isfinite(cuts)
    wrong = judged & ((probabilities >= cuts) != table.positive)
    filled = np.where(judged, probabilities, 0.5), np.where(judged, cuts, 0.5)
    margins = np.abs(np.subtract(*(logit(np.clip(each, LEAST, MOST)) for each in filled)))
    chosen = []
    for k in range(len(table.findings)):
        rows = np.flatnonzero(wrong[:, k])
        rows = rows[np.argsort(-margins[rows, k], kind="stable")][:SHOWN_PER_FINDING]
        chosen += [(float(margins[row, k]), int(row), k) for row in rows]
    chosen.sort(key=lambda one: -one[0])
    numbers: dict[int, int] = {}
    return [
        WrongAnswer(
            number=numbers.setdefault(row, len(numbers) + 1), at=row, k=k, margin=margin,
            probability=float(probabilities[row, k]), threshold=float(cuts[row, k]),
        )
        for margin, row, k in chosen[:SHOWN]
    ]  # fmt: skip


def key_of_failures(record: Record) -> str:
    """Who the studies of `failure_table` are, as CSV: for the machine where the predictions are, and no other."""
    table = record.predictions
    rows = [
        (one.number, table.study_ids[one.at], table.patient_ids[one.at], table.findings[one.k])
        for one in wrong_answers(record)
    ]
    return pd.DataFrame(rows, columns=["number", "study", "patient", "finding"]).to_csv(index=False)


def failure_table(record: Record) -> Table | None:
    """The table of the page; None where no answer is wrong, or there are no thresholds."""
    rows = []
    for one in wrong_answers(record):
        positive = bool(record.predictions.positive[one.at, one.k])
        kind = Availability(record.predictions.availability[one.at])
        rows.append([
            Cell(f"study {one.number}", one.number), text(record.findings[one.k]),
            text("missed" if positive else "false alarm", "the finding is there" if positive else "it is not there"),
            Cell(probability(one.probability), one.probability), Cell(probability(one.threshold), one.threshold),
            Cell(f"{one.margin:.1f}", one.margin), text(TITLES[kind.key]),
        ])  # fmt: skip
    columns = ["study", "finding", "what is wrong", "probability", "threshold", "distance, log-odds", "views"]
    caption = f"Most confident wrong answers, at most {SHOWN_PER_FINDING} of each finding"
    return Table(caption=caption, columns=columns, rows=rows, sortable=True) if rows else None
