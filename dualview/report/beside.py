"""What the template shows of a study beside its results, and which parts of the page are there to link to."""

from typing import Any

from dualview.report import study
from dualview.report.checklist import answers
from dualview.report.decision import decision_table
from dualview.report.failures import failure_table
from dualview.report.flow import draw_flow
from dualview.report.record import Record
from dualview.report.tables import Table

TITLES_OF_PARTS = {
    "flow": "flow", "sources": "data sets", "demographics": "patients by split", "reference": "reference standard",
    "partition": "partition", "choice": "choice of weights", "labels": "missing data", "written": "in words",
    "precision": "precision", "decision": "decision curve", "failures": "wrong answers", "findings": "findings",
    "points": "operating points", "missing": "missing views", "lateral": "lateral view", "subgroups": "subgroups",
    "training": "training", "data": "data", "settings": "settings", "images": "images", "calibration": "calibration",
    "updating": "calibration", "recalibration": "recalibration",
    "external": "external evaluation", "ensemble": "ensemble",
}  # fmt: skip
"""Name of a part in `checklist.Item.sections` -> what a link to it says."""
IDS = {"settings": "provenance", "labels": "absent", "calibration": "points", "updating": "points",
       "recalibration": "external"}  # fmt: skip
"""Part -> id of its element, where it is another."""


def beside(record: Record, *, prefix: str, parts: set[str]) -> dict[str, Any]:
    """The values of the template.

    Args:
        prefix: of the ids of this run.
        parts: names of `TITLES_OF_PARTS` that other code has put on the page.
    """
    account = record.evaluation.account
    tables: dict[str, Table | None] = {}
    if account is not None:
        tables = {
            "sources": study.sources(account),
            "demographics": study.demographics(account) if account.splits else None,
            "reference": study.reference_standard(account),
        }
    flow, decided, failures = draw_flow(record.evaluation), decision_table(record), failure_table(record)
    there = parts | {"precision"} | {name for name, table in tables.items() if table is not None}
    there |= {
        name for name, value in (("flow", flow), ("decision", decided), ("failures", failures)) if value is not None
    }
    places = {name: (prefix + IDS.get(name, name), TITLES_OF_PARTS[name]) for name in there}
    if account is not None:
        known = {
            "partition": account.partition, "choice": account.choice, "labels": account.missing_views,
            "written": account.study,
        }  # fmt: skip
        places |= {
            name: (prefix + IDS.get(name, name), TITLES_OF_PARTS[name]) for name, value in known.items() if value
        }
        places |= _of_sources(record, places)
    return {
        "flow": flow,
        "study_tables": [(name, table) for name, table in tables.items() if table is not None],
        "label_table": study.labels(record),
        "precision": study.precision(record),
        "decision_table": decided,
        "failures": failures,
        "checklists": answers(there=places, written=account.study if account is not None else ()),
    }


def _of_sources(record: Record, places: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Places of what data sets say only where they say it: years, origin, reference standard, who read."""
    account = record.evaluation.account
    assert account is not None
    found = {}
    if any(source.first_year is not None for source in account.sources):
        found["dates"] = places["sources"]
    if any(source.origin is not None for source in account.sources):
        found["origin"] = places["sources"]
    if any(source.reference_by is not None for source in account.sources):
        found["readers"] = places["reference"]
    if not any(split.sex or split.age for split in account.splits.values()):
        places.pop("demographics", None)
    elif sum(split.studies > 0 for split in account.splits.values()) > 1:
        found["by split"] = places["demographics"]
    if "reference" in places and not any(source.reference_standard for source in account.sources):
        places.pop("reference")
    return found
