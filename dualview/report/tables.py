"""Tables of the page as plain cells; what is undefined says why."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dualview.evaluation.assess import Document, verdict
from dualview.evaluation.prediction_table import ROUTES
from dualview.report.curves import GROUPS, MASKED
from dualview.report.record import Record

GLYPHS = {"helped": "●", "hurt": "◆", "undecided": "□", "undefined": ""}
METRICS = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score"}
RATES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "positive_predictive_value": "PPV",
    "negative_predictive_value": "NPV",
}


class Cell(NamedTuple):
    """A value; `detail` stands small beneath it, line by line."""

    text: str
    sort: float | str | None = None  # None comes last
    detail: str = ""
    kind: str = ""  # class of the page's style


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first column holds row headers. `foot` is not sorted."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    foot: list[list[Cell]] = field(default_factory=list)
    sortable: bool = False
    sorted_by: int | None = None  # column by which the rows come in descending order


def text(value: str, detail: str = "") -> Cell:
    return Cell(value, value.lower(), detail)


def count(value: int | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:,}", value)


def interval(of: Document, *, reason: str | None = None, sign: str = "") -> Cell:
    """An estimate and beneath it its interval; `reason` says why there is none."""
    value = of["value"]
    if value is None:
        return Cell("undefined", None, reason or "", "undefined")
    detail = "" if of.get("low") is None else f"{of['low']:{sign}.3f} to {of['high']:{sign}.3f}"
    return Cell(f"{value:{sign}.3f}", value, detail)


def share(part: int, whole: int) -> Cell:
    return Cell(f"{part / whole:.1%}", part / whole) if whole else Cell("-")


# -- missing views ---------------------------------------------------------------------------------


def missing_views(record: Record) -> list[Table]:
    """Same patients with views withheld; other patients by the views they came with."""
    document = record.document
    columns = ["", "studies", "patients", *(f"macro {title}" for title in METRICS.values())]
    tables = []
    if (masked := document["masked"]) is not None:
        rows = [_macro_row(name, masked[what]) for what, name in MASKED.items()]
        tables.append(Table(caption="The same patients, scored three ways", columns=columns, rows=rows))
    rows = [_macro_row(name, document["groups"][what]) for what, name in GROUPS.items()]
    if (baseline := document["availability_baseline"]) is not None:
        of_all = document["groups"]["all"]
        cells = [
            text("which views exist, and nothing else", baseline["score"]),
            count(of_all["num_studies"]), count(of_all["num_patients"]), _macro(baseline["macro"]["auroc"]),
            Cell("-"), Cell("-"),
        ]  # fmt: skip
        rows.append(cells)
    tables.append(Table(caption="Studies as they came", columns=columns, rows=rows))
    return tables


def _macro_row(name: str, look: Document) -> list[Cell]:
    metrics = [_macro(look["macro"][metric]) for metric in METRICS]
    return [text(name), count(look["num_studies"]), count(look["num_patients"]), *metrics]


def _macro(of: Document) -> Cell:
    return interval(of, reason="in no finding defined")


# -- the value of the lateral view -----------------------------------------------------------------


def value_of_lateral(record: Record) -> Table | None:
    """Numbers of the forest plot; None for networks of one view."""
    masked = record.document["masked"]
    if masked is None:
        return None
    value = masked["value_of_lateral"]
    columns = [
        "finding", "positive", "AUROC, both views", "lateral withheld", "PA withheld", "AUROC gained", "lateral view",
        "average precision gained",
    ]  # fmt: skip
    rows = []
    for name in record.findings:
        looks = [masked[what]["findings"][name] for what in MASKED]
        prevalence = share(looks[0]["num_positive"], looks[0]["num_positive"] + looks[0]["num_negative"])
        reason = looks[0]["undefined"] or looks[1]["undefined"]
        auroc, precision = (value["findings"][name][metric] for metric in ("auroc", "average_precision"))
        rows.append(
            [
                text(name), Cell(f"{looks[0]['num_positive']:,}", prevalence.sort, prevalence.text),
                *(interval(look["auroc"], reason=look["undefined"]) for look in looks),
                _gain(auroc, reason=reason), _verdict(auroc), _gain(precision, reason=reason),
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: -float("inf") if row[5].sort is None else float(row[5].sort), reverse=True)
    macro = value["macro"]
    foot = [
        text("macro", f"mean of {macro['auroc']['num_findings']} findings"), Cell(""),
        *(_macro(masked[what]["macro"]["auroc"]) for what in MASKED),
        interval(macro["auroc"], sign="+"), Cell(""), interval(macro["average_precision"], sign="+"),
    ]  # fmt: skip
    return Table(
        caption="Numbers of the plot; beneath a gain its own interval, then the one that holds for all findings",
        columns=columns, rows=rows, foot=[foot], sortable=True, sorted_by=5,
    )  # fmt: skip


def _gain(difference: Document, *, reason: str | None) -> Cell:
    """A difference with its own interval, and on the next line the simultaneous one."""
    cell = interval(difference, reason=reason, sign="+")
    low, high = difference["simultaneous_low"], difference["simultaneous_high"]
    return cell if low is None else cell._replace(detail=f"{cell.detail}\n{low:+.3f} to {high:+.3f}")


def _verdict(difference: Document) -> Cell:
    what = verdict(difference)
    return Cell(f"{GLYPHS[what]} {what}".strip(), what, "", what)


# -- per finding -----------------------------------------------------------------------------------


def per_finding(record: Record) -> list[Table]:
    """A table per metric: findings by studies and maskings."""
    document = record.document
    masked = document["masked"]
    looks = {("as they came", what): document["groups"][what] for what in GROUPS}
    names = {("as they came", what): name for what, name in GROUPS.items()}
    if masked is not None:
        for what in ("lateral_hidden", "pa_hidden"):
            looks["masked", what] = masked[what]
            names["masked", what] = MASKED[what]
    shown = [key for key, look in looks.items() if look["num_studies"]]
    of_all = document["groups"]["all"]["findings"]
    tables = []
    for metric, title in (*METRICS.items(), ("calibration_error", "calibration error")):
        rows = []
        for finding in record.findings:
            counts = [count(of_all[finding][what]) for what in ("num_positive", "num_negative", "num_unknown")]
            rows.append([text(finding), *counts, *(_metric(looks[key]["findings"][finding], metric) for key in shown)])
        foot = []
        if metric in METRICS:
            macros = [_macro(looks[key]["macro"][metric]) for key in shown]
            foot = [[text("macro"), Cell(""), Cell(""), Cell(""), *macros]]
        columns = ["finding", "positive", "negative", "unknown", *(names[key] for key in shown)]
        caption = title[0].upper() + title[1:]
        tables.append(Table(caption=caption, columns=columns, rows=rows, foot=foot, sortable=True))
    return tables


def _metric(of_finding: Document, metric: str) -> Cell:
    value = of_finding[metric]
    if isinstance(value, dict):
        return interval(value, reason=of_finding["undefined"])
    return (
        Cell("undefined", None, "no study with a known label", "undefined")
        if value is None
        else Cell(f"{value:.3f}", value)
    )


# -- operating points ------------------------------------------------------------------------------


def operating_points(record: Record) -> list[Table]:
    """A table per availability that has studies: threshold, decisions, rates."""
    tables = []
    columns = ["finding", "threshold", "true positive", "false positive", "true negative", "false negative"]
    for route in ROUTES:
        look = record.document["groups"][route]
        if not look["num_studies"]:
            continue
        rows = []
        for finding in record.findings:
            point = look["findings"][finding]["operating_point"]
            if point is None:
                chosen = None if record.points is None else record.points.routes[route].get(finding)
                reason = (chosen.reason if chosen else None) or look["findings"][finding]["undefined"] or ""
                cells = [Cell("undefined", None, reason, "undefined"), *[Cell("-")] * (4 + len(RATES))]
            else:
                threshold = point["threshold"]
                cells = [
                    Cell("-") if threshold is None else Cell(probability(threshold), threshold),
                    *(count(point[column.replace(" ", "_")]) for column in columns[2:]),
                    *(interval(point[rate], reason="no study to count") for rate in RATES),
                ]
            rows.append([text(finding), *cells])
        caption = f"{GROUPS[route][0].upper()}{GROUPS[route][1:]}, {look['num_studies']:,} studies"
        tables.append(Table(caption=caption, columns=[*columns, *RATES.values()], rows=rows, sortable=True))
    return tables


def probability(value: float) -> str:
    """Three digits that matter, near 1 too."""
    return f"{value:.3g}" if value < 0.99 else f"{value:.6g}"


# -- subgroups, data, training ---------------------------------------------------------------------


def subgroups(record: Record) -> list[Table]:
    columns = ["", "studies", "patients", *(f"macro {title}" for title in METRICS.values())]
    return [
        Table(caption=column, columns=columns, rows=[_macro_row(part, look) for part, look in parts.items()])
        for column, parts in record.document["subgroups"].items()
    ]


def data_card(record: Record) -> list[Table]:
    """Studies by split and availability, labels by finding, images left out."""
    data = record.document["data"]
    columns = ["", "patients", "studies", *(GROUPS[route] for route in ROUTES), "several frontals", "several laterals"]
    rows = []
    for name, counts in (*data["splits"].items(), ("all", data)):
        kinds = [counts["studies"][kind] for kind in ("total", *ROUTES)]
        numbers = [counts["patients"], *kinds, counts["several_frontals"], counts["several_laterals"]]
        rows.append([text(name), *map(count, numbers)])
    tables = [Table(caption="Studies by split and availability", columns=columns, rows=rows[:-1], foot=rows[-1:])]
    splits = list(data["splits"])
    labels = []
    for finding, of_finding in data["findings"].items():
        counts = [of_finding[key] for key in ("positive", "negative", "unknown", "uncertain")]
        in_splits = [data["splits"][split]["findings"][finding] for split in splits]
        shares = [share(of["positive"], of["positive"] + of["negative"]) for of in in_splits]
        labels.append([text(finding), *map(count, counts), *shares])
    columns = [
        "finding",
        "positive",
        "negative",
        "unknown",
        "of these uncertain",
        *(f"positive in {s}" for s in splits),
    ]
    tables.append(Table(caption="Labels, studies of all splits", columns=columns, rows=labels, sortable=True))
    if dropped := data["images"]["dropped"]:
        rows = [[text(reason), count(number)] for reason, number in list(dropped.items())[:20]]
        tables.append(Table(caption="Images left out, and why", columns=["because", "images"], rows=rows))
    return tables


def routing(record: Record) -> Table | None:
    """Mean rows of each branch, and how often it had none; None where nothing was logged."""
    rows = []
    for key, name in (("pa", "PA"), ("lateral", "lateral")):
        _, logged = record.series(f"routing/rows_{key}")
        _, idled = record.series(f"routing/idle_micro_batches_{key}")
        per_step = [value for value in logged if value is not None]
        idle = [value for value in idled if value is not None]
        if per_step and idle:
            rows.append(
                [
                    text(name), Cell(f"{sum(per_step) / len(per_step):.2f}"), Cell(f"{sum(idle) / len(idle):.3f}"),
                    Cell(f"{max(idle):.3f}"), share(sum(value > 0 for value in idle), len(idle)),
                ]
            )  # fmt: skip
    columns = ["branch", "rows per step", "idle micro-batches per step", "at most", "log entries with any"]
    return Table(caption="Rows and idle steps per branch", columns=columns, rows=rows) if rows else None


# -- several runs ----------------------------------------------------------------------------------


def comparison(records: list[Record]) -> list[Table]:
    """Runs side by side: what they are and their macro metrics; then AUROC per finding."""
    columns = ["run", "network", "studies", *GROUPS.values(), *list(MASKED.values())[1:], "gained with the lateral"]
    tables = []
    for metric, title in METRICS.items():
        rows = []
        for record in records:
            document = record.document
            cells = [
                text(record.name),
                text(document["model"], f"{document['backbone']}\n{document['num_parameters']:,} parameters"),
                count(document["num_studies"]),
            ]  # fmt: skip
            cells += [_macro(document["groups"][group]["macro"][metric]) for group in GROUPS]
            if (masked := document["masked"]) is not None:
                cells += [_macro(masked[what]["macro"][metric]) for what in list(MASKED)[1:]]
                cells.append(interval(masked["value_of_lateral"]["macro"][metric], sign="+"))
            else:
                why = "takes one view" if document["model"] == "single" else "needs both"
                cells += [Cell("-", None, why)] * len(MASKED)
            rows.append(cells)
        tables.append(Table(caption=f"Macro {title}", columns=columns, rows=rows, sortable=True))
    findings = list(dict.fromkeys(finding for record in records for finding in record.findings))
    rows = []
    for finding in findings:
        cells = [text(finding)]
        for record in records:
            of_finding = record.document["groups"]["all"]["findings"].get(finding)
            cells.append(Cell("-", None, "not of this run") if of_finding is None else _metric(of_finding, "auroc"))
        rows.append(cells)
    names = [record.name for record in records]
    tables.append(
        Table(caption="AUROC per finding, all studies", columns=["finding", *names], rows=rows, sortable=True)
    )
    return tables
