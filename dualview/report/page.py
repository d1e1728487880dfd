"""The report as one HTML file: it opens offline, asks for nothing, and names no patient.

plotly.js is written into the page once; a content security policy in its head keeps the page from any request. Tables
and figures are made here as plain values; page.js draws the figures, page.css has all colours.
"""

import json
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dualview import __version__
from dualview.comparison.folds import about_folds
from dualview.config.public import public_settings
from dualview.evaluation.operating_points import NO_RULE
from dualview.evaluation.value_of_lateral import UNDER_TRAINED, value_of_lateral
from dualview.report import figures, forest, tables
from dualview.report.beside import beside
from dualview.report.curves import MAX_VERTICES, group_curves, masked_curves
from dualview.report.decision import decision_figures
from dualview.report.external import external_section
from dualview.report.pictures import Picture
from dualview.report.record import Record
from dualview.report.seeds import Seeds, aurocs_over_seeds, table_over_seeds, warnings_of_seeds
from dualview.views import ALL_STUDIES, TITLES

OPEN_UP_TO = 20  # number of findings up to which a table is shown open


def render(
    records: list[Record], *, pictures: dict[str, list[Picture]] | None = None, over_seeds: Seeds | None = None
) -> str:
    """The page of these runs; of one whose gains are those of several seeds where `over_seeds` has it as its first."""
    environment = Environment(
        loader=PackageLoader("dualview.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    drawn: dict[str, Any] = {}
    runs = [
        _run(record, number=number, drawn=drawn, pictures=(pictures or {}).get(record.name, []), over_seeds=over_seeds)
        for number, record in enumerate(records)
    ]
    compared = None
    if len(records) > 1:
        drawn |= {name: {"": figure} for name, figure in figures.comparison_figures(records).items()}
        compared = {"tables": tables.comparison(records), "warnings": differing_studies(records)}
    return environment.get_template("page.html.j2").render(
        title=records[0].name if len(records) == 1 else f"{len(records)} runs",
        runs=runs,
        compared=compared,
        figures=_for_script(drawn),
        drawn=drawn,
        has_images=pictures is not None and any(pictures.values()),
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - plotly's own file
        version=__version__,
        max_points=MAX_VERTICES,
        orders=forest.FOREST_ORDERS,
        metrics=forest.GAIN_TITLES,
    )


def _run(
    record: Record, *, number: int, drawn: dict[str, Any], pictures: list[Picture], over_seeds: Seeds | None
) -> dict[str, Any]:
    """What the template shows of a run; its figures go to `drawn`."""
    gained = record if over_seeds is None else over_seeds.first
    prefix = f"r{number}-"
    masked, groups = masked_curves(record), group_curves(record)
    variants = figures.curve_figures(record, masked=masked, groups=groups)
    if drawn_forest := forest.forest(gained):
        variants["forest"] = drawn_forest
    if curves := decision_figures(record):
        variants["decision-curve"] = curves
    variants |= {name: {"": figure} for name, figure in figures.training_figures(record).items()}
    drawn |= {prefix + name: figure for name, figure in variants.items()}
    evaluation = record.evaluation
    value = None if gained.evaluation.masked is None else gained.evaluation.masked.value_of_lateral
    warnings = [] if evaluation.masked is None else value_of_lateral(evaluation.masked).warnings
    return {
        "prefix": prefix,
        "name": record.name,
        "evaluation": evaluation,
        "headline": _headline(gained),
        "value": value,
        "undefined": [] if value is None else value.undefined,
        "is_short": len(record.findings) <= OPEN_UP_TO,
        "over_seeds": over_seeds,
        "about_folds": about_folds(record.predictions),
        "lateral_table": tables.value_of_lateral(record) if over_seeds is None else table_over_seeds(over_seeds),
        "heads": tables.heads(record),
        "warnings": warnings if over_seeds is None else warnings_of_seeds(over_seeds),
        "under_trained": UNDER_TRAINED,
        "missing_views": tables.missing_views(record),
        "per_finding": [*([] if over_seeds is None else [aurocs_over_seeds(over_seeds)]), *tables.per_finding(record)],
        "operating_points": tables.operating_points(record),
        "has_thresholds": record.points.rule != NO_RULE,
        "calibration": tables.calibration(record),
        "subgroups": [*tables.subgroups(record), *tables.subgroup_gaps(record)],
        "data_card": tables.data_card(record),
        "external": external_section(record),
        "tested": "of these studies, those" if evaluation.external is not None else "test studies",
        "routing": tables.routing(record),
        "findings": list(enumerate(record.findings)),
        "has_masked": bool(masked),
        "pictures": pictures,
        "settings": None
        if record.config is None
        else yaml.safe_dump(public_settings(record.config), sort_keys=False, allow_unicode=True),
        **beside(record, prefix=prefix, parts=_parts(record, pictures=pictures)),
        "vote": record.config is not None and record.config.model.joint_rule == "vote",
    }


def _parts(record: Record, *, pictures: list[Picture]) -> set[str]:
    """The parts of the page that checklists can point to (`beside.TITLES_OF_PARTS`), as far as they are there."""
    evaluation = record.evaluation
    fitted = [one for of_route in evaluation.calibration.values() for one in of_route.values() if one.method != "none"]
    recalibrated = evaluation.external is not None and evaluation.external.recalibration is not None
    known = {
        "findings": True, "missing": True, "points": record.points.rule != NO_RULE, "lateral": evaluation.masked,
        "subgroups": evaluation.subgroups, "training": record.config, "data": record.config, "images": pictures,
        "settings": record.config, "calibration": evaluation.calibration, "external": evaluation.external,
        "updating": fitted, "recalibration": recalibrated,
    }  # fmt: skip
    return {name for name, value in known.items() if value}


def _headline(record: Record) -> list[dict[str, str]]:
    """The numbers that a reader looks for first: what, value, interval."""
    all_studies, masked = record.evaluation.groups[ALL_STUDIES].macro, record.evaluation.masked
    items = [("macro AUROC, all studies", tables.interval(all_studies["auroc"]))]
    if masked is not None:
        items += [(TITLES[name], tables.interval(look.macro["auroc"])) for name, look in masked.looks.items()]
        gained = masked.value_of_lateral.macro["auroc"]
        items.append(("gained with the lateral", tables.interval(gained, sign="+")))
    else:
        items.append(("macro average precision", tables.interval(all_studies["average_precision"])))
    return [{"what": what, "value": cell.text, "detail": cell.detail} for what, cell in items]


def differing_studies(records: list[Record]) -> list[str]:
    """A warning for every run that was tested on other studies than the first."""
    first = records[0]
    there = set(first.predictions.study_ids)
    warnings = []
    for record in records[1:]:
        if record.studies_digest() != first.studies_digest():
            common = len(there & set(record.predictions.study_ids))
            warnings.append(
                f"{record.name} was tested on other studies than {first.name}: {len(record.predictions):,} and "
                f"{len(first.predictions):,}, {common:,} of them in common. Their numbers do not compare like for like."
            )
    return warnings


def _for_script(values: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element."""
    text = json.dumps(values, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    escaped = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return Markup(escaped)  # noqa: S704 - the text is escaped
