"""Tables of the page as plain cells; what is undefined says why."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dualview.evaluation.document import Difference, Estimate, FindingResult, Look
from dualview.evaluation.metrics import MACRO
from dualview.evaluation.statistics.class_patients import ClassPatients
from dualview.evaluation.value_of_lateral import (
    VERDICT_TITLES,
    ValueRow,
    no_error_text,
    p_value,
    patients_text,
    rank_of,
)
from dualview.evaluation.value_of_lateral import value_of_lateral as lateral_values
from dualview.report.record import Record
from dualview.run import metric_keys
from dualview.views import ALL_STUDIES, GROUPS, MASKINGS, ROUTES, TITLES, Availability, View

VERDICT_GLYPHS = {"helped": "●", "hurt": "◆", "undecided": "□", "too_few": "△", "undefined": ""}
METRIC_TITLES = {"auroc": "AUROC", "average_precision": "average precision", "brier": "Brier score"}
CALIBRATION_TITLES = {
    "calibration_error": "calibration error, and beneath it what perfect probabilities would show by chance",
    "calibration_intercept": "calibration intercept (log-odds; below 0: probabilities are too high)",
    "calibration_slope": "calibration slope (below 1: probabilities are too extreme)",
}
RATE_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "positive_predictive_value": "PPV",
    "negative_predictive_value": "NPV",
}
WITHHELD = tuple(masking for masking in MASKINGS if masking not in GROUPS)


class Cell(NamedTuple):
    """A value; `detail` stands small beneath it, line by line."""

    text: str
    sort: float | str | None = None  # value to sort by; None comes last
    detail: str = ""
    kind: str = ""  # class in the page's style sheet


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first column holds row headers. `foot` is not sorted."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    foot: list[list[Cell]] = field(default_factory=list)
    sortable: bool = False
    sorted_by: int | None = None  # number of the column that sorts the rows, largest first


def text(value: str, detail: str = "") -> Cell:
    return Cell(value, value.lower(), detail)


def count(value: int | None) -> Cell:
    return Cell("-") if value is None else Cell(f"{value:,}", value)


def interval(estimate: Estimate, *, reason: str | None = None, sign: str = "") -> Cell:
    """An estimate and beneath it its interval; `reason` says why there is none."""
    if estimate.value is None:
        return Cell("undefined", None, reason or "", "undefined")
    detail = "" if estimate.low is None else f"{estimate.low:{sign}.3f} to {estimate.high:{sign}.3f}"
    return Cell(f"{estimate.value:{sign}.3f}", estimate.value, detail)


def share(part: int, whole: int) -> Cell:
    return Cell(f"{part / whole:.1%}", part / whole) if whole else Cell("-")


# -- missing views ---------------------------------------------------------------------------------


def missing_views(record: Record) -> list[Table]:
    """Same patients with views withheld; other patients by the views they came with."""
    evaluation = record.evaluation
    columns = ["", "studies", "patients", *(f"macro {title}" for title in METRIC_TITLES.values())]
    tables = []
    if evaluation.masked is not None:
        rows = [_macro_row(TITLES[masking], look) for masking, look in evaluation.masked.looks.items()]
        tables.append(Table(caption="The same patients, scored three ways", columns=columns, rows=rows))
    rows = [_macro_row(TITLES[group], evaluation.groups[group]) for group in GROUPS]
    if (baseline := evaluation.availability_baseline) is not None:
        all_studies = evaluation.groups[ALL_STUDIES]
        cells = [
            text("which views exist, and nothing else", baseline.score),
            count(all_studies.num_studies), count(all_studies.num_patients), _macro(baseline.macro["auroc"]),
            Cell("-"), Cell("-"),
        ]  # fmt: skip
        rows.append(cells)
    tables.append(Table(caption="Studies as they came", columns=columns, rows=rows))
    return tables


def _macro_row(name: str, look: Look) -> list[Cell]:
    metrics = [_macro(look.macro[metric]) for metric in METRIC_TITLES]
    return [text(name), count(look.num_studies), count(look.num_patients), *metrics]


def _macro(estimate: Estimate) -> Cell:
    return interval(estimate, reason="in no finding defined")


# -- the value of the lateral view -----------------------------------------------------------------


def value_of_lateral(record: Record) -> Table | None:
    """Numbers of the forest plot; None for networks of one view."""
    if record.evaluation.masked is None:
        return None
    value = lateral_values(record.evaluation.masked)
    columns = [
        "finding", "positive", "AUROC, both views", "lateral withheld", "PA withheld", "AUROC gained", "lateral view",
        "p, scores swapped", "p, DeLong", "average precision gained",
    ]  # fmt: skip
    rows = []
    for row in value.rows:
        prevalence = share(row.num_positive, row.num_positive + row.num_negative)
        reason = row.undefined[0] or row.undefined[1]
        rows.append(
            [
                _finding(row.name, is_behind=not row.is_judged),
                Cell(f"{row.num_positive:,}", prevalence.sort, prevalence.text),
                *(
                    _with_pairs(
                        interval(auroc, reason=why), num_positive=row.num_positive, num_negative=row.num_negative
                    )
                    for auroc, why in zip(row.aurocs, row.undefined, strict=True)
                ),
                gain(row.auroc_gained, reason=reason), _verdict(row), *_checks(row),
                gain(row.average_precision_gained, reason=reason),
            ]
        )  # fmt: skip
    ranks = {row.name: rank_of(row.verdict) for row in value.rows}
    rows.sort(key=lambda row: (ranks[row[0].text], float("inf") if row[5].sort is None else -float(row[5].sort)))
    macro = value.macro
    foot = [
        text(macro.name, f"mean of {macro.auroc_gained.num_findings} findings"), Cell(""),
        *map(_macro, macro.aurocs),
        interval(macro.auroc_gained, sign="+"), *[Cell("")] * 3,
        interval(macro.average_precision_gained, sign="+"),
    ]  # fmt: skip
    return Table(
        caption=(
            "Numbers of the plot; beneath a gain its own interval, then the one that holds for all judged findings. "
            "The p of swapped scores holds for all findings together, that of DeLong for one finding alone"
        ),
        columns=columns, rows=rows, foot=[foot], sortable=True, sorted_by=5,
    )  # fmt: skip


def heads(record: Record) -> Table | None:
    """AUROC of every head on complete studies; None for networks without three."""
    if record.evaluation.masked is None or record.evaluation.masked.heads is None:
        return None
    rows = []
    for row in lateral_values(record.evaluation.masked).rows:
        assert row.heads is not None
        aurocs = [row.heads.joint, row.heads.pa, row.heads.lateral, row.heads.vote]
        cells = [
            Cell("undefined", None, "", "undefined") if auroc is None else Cell(f"{auroc:.3f}", auroc)
            for auroc in aurocs
        ]
        said = Cell("under-trained", "under-trained") if row.warning else Cell("")
        gap = Cell("-") if row.heads.shortfall is None else interval(row.heads.shortfall, sign="+")
        rows.append([_finding(row.name, is_behind=not row.is_judged), *cells, gap, said])
    columns = ["finding", "joint head", "PA head", "lateral head", "vote: mean of the three"]
    columns += ["joint minus better branch head", "joint head is"]
    caption = (
        "AUROC of each head, the same complete studies. Under-trained: joint minus better branch head is below 0 with "
        "an interval that holds for all judged findings and both branch heads"
    )
    return Table(caption=caption, columns=columns, rows=rows, sortable=True)


def gain(difference: Difference, *, reason: str | None) -> Cell:
    """A difference with its own interval, and on the next line the simultaneous one."""
    cell = interval(difference, reason=reason, sign="+")
    low, high = difference.simultaneous_low, difference.simultaneous_high
    if low is None or not cell.detail:
        return cell
    return cell._replace(detail=f"{cell.detail}\n{low:+.3f} to {high:+.3f}")


def _verdict(row: ValueRow) -> Cell:
    """The verdict; beneath it why there is none, or what gain would have been found."""
    verdict, detail = row.verdict, ""
    if verdict == "too_few":
        detail = row.patients.replace(" and ", ",\n")
    elif verdict == "undecided" and row.checks is not None and row.checks.detectable_gain is not None:
        detail = f"gains from {row.checks.detectable_gain:.3f}\nfound with 80 % power"
    if row.warning:
        detail = f"{detail}\njoint head\nunder-trained".strip()
    return Cell(f"{VERDICT_GLYPHS[verdict]} {VERDICT_TITLES[verdict]}".strip(), verdict, detail, verdict)


def _checks(row: ValueRow) -> list[Cell]:
    """The tests that stand beside an interval, and never alone."""
    if row.checks is None:
        return [Cell("-", None, "no interval"), Cell("-", None, "no interval")]
    swap, delong = row.checks.swap, row.checks.delong
    return [
        Cell("-") if swap is None else Cell(p_value(swap.p_value_together), swap.p_value_together),
        Cell("undefined", None, "standard error 0", "undefined")
        if delong is None
        else Cell(p_value(delong.p_value), delong.p_value),
    ]


def _finding(name: str, *, is_behind: bool) -> Cell:
    """The name of a finding; one that is not judged stays behind the others, however a table is sorted."""
    return text(name)._replace(kind="behind" if is_behind else "")


def _is_few(result: FindingResult) -> bool:
    counted = ClassPatients(result.num_positive, result.num_negative)
    if result.num_positive_patients is not None and result.num_negative_patients is not None:
        counted = ClassPatients(result.num_positive_patients, result.num_negative_patients)
    return not counted.can_be_judged


# -- per finding -----------------------------------------------------------------------------------


def per_finding(record: Record) -> list[Table]:
    """A table per metric: findings by studies and maskings."""
    evaluation = record.evaluation
    looks = {TITLES[group]: evaluation.groups[group] for group in GROUPS}
    if evaluation.masked is not None:
        looks |= {TITLES[masking]: evaluation.masked.looks[masking] for masking in WITHHELD}
    looks = {title: look for title, look in looks.items() if look.num_studies}
    all_findings = evaluation.groups[ALL_STUDIES].findings
    tables = []
    for metric, title in (METRIC_TITLES | CALIBRATION_TITLES).items():
        rows = []
        for finding in record.findings:
            result = all_findings[finding]
            counts = [count(number) for number in (result.num_positive, result.num_negative, result.num_unknown)]
            metrics = [_metric(look.findings[finding], metric) for look in looks.values()]
            few = _is_few(result)
            name = _finding(finding, is_behind=few)
            rows.append([name._replace(detail=f"too few: {patients_text(result)}") if few else name, *counts, *metrics])
        rows.sort(key=lambda row: bool(row[0].kind))
        foot = []
        if metric in METRIC_TITLES:
            macros = [_macro(look.macro[metric]) for look in looks.values()]
            foot = [[text(MACRO), Cell(""), Cell(""), Cell(""), *macros]]
        columns = ["finding", "positive", "negative", "unknown", *looks]
        caption = title[0].upper() + title[1:]
        tables.append(Table(caption=caption, columns=columns, rows=rows, foot=foot, sortable=True))
    return tables


def _metric(result: FindingResult, metric: str) -> Cell:
    if metric in METRIC_TITLES:
        return auroc_cell(result) if metric == "auroc" else interval(result.metric(metric), reason=result.undefined)
    if metric != "calibration_error":
        estimate: Estimate | None = getattr(result, metric)
        reason = result.undefined or "no finite number fits best"
        return Cell("-") if estimate is None else interval(estimate, reason=reason)
    error, by_chance = result.calibration_error, result.calibration_error_by_chance
    if error is None:
        return Cell("undefined", None, "no study with a known label", "undefined")
    return Cell(f"{error:.3f}", error, "" if by_chance is None else f"{by_chance:.3f} by chance")


def auroc_cell(result: FindingResult) -> Cell:
    """AUROC of a finding; where it is 1, of how many pairs none was in the wrong order."""
    return _with_pairs(
        interval(result.auroc, reason=result.undefined),
        num_positive=result.num_positive,
        num_negative=result.num_negative,
    )


def _with_pairs(cell: Cell, *, num_positive: int, num_negative: int) -> Cell:
    pairs = no_error_text(cell.sort, num_positive=num_positive, num_negative=num_negative)
    return cell._replace(detail=f"{cell.detail}\n{pairs}".strip()) if pairs else cell


# -- operating points ------------------------------------------------------------------------------


def operating_points(record: Record) -> list[Table]:
    """A table per availability that has studies: threshold, decisions, rates."""
    tables = []
    columns = ["finding", "threshold", "true positive", "false positive", "true negative", "false negative"]
    for kind in Availability:
        look = record.evaluation.groups[kind.key]
        if not look.num_studies:
            continue
        rows = []
        for finding in record.findings:
            point = look.findings[finding].operating_point
            if point is None:
                chosen = record.points.routes[kind.key].get(finding)
                reason = (chosen.reason if chosen else None) or look.findings[finding].undefined or ""
                cells = [Cell("undefined", None, reason, "undefined"), *[Cell("-")] * (4 + len(RATE_TITLES))]
            else:
                threshold = point.threshold
                cells = [
                    Cell("-") if threshold is None else Cell(probability(threshold), threshold),
                    *(count(getattr(point, column.replace(" ", "_"))) for column in columns[2:]),
                    *(interval(getattr(point, rate), reason="no study to count") for rate in RATE_TITLES),
                ]
            rows.append([_finding(finding, is_behind=_is_few(look.findings[finding])), *cells])
        rows.sort(key=lambda row: bool(row[0].kind))
        caption = f"{kind.title[0].upper()}{kind.title[1:]}, {look.num_studies:,} studies"
        tables.append(Table(caption=caption, columns=[*columns, *RATE_TITLES.values()], rows=rows, sortable=True))
    return tables


def calibration(record: Record) -> list[Table]:
    """A table per availability that has studies: what makes probabilities of logits, and the error before and after."""
    tables = []
    columns = ["finding", "fitted on val", "log_pos_weight", "slope", "intercept", "error before", "error after"]
    for kind in Availability:
        of_route = record.evaluation.calibration.get(kind.key, {})
        if not of_route or not record.evaluation.groups[kind.key].num_studies:
            continue
        rows = []
        for finding, one in of_route.items():
            numbers = (one.log_pos_weight, one.slope, one.intercept, one.error_before, one.error_after)
            cells = [Cell("-") if number is None else Cell(f"{number:.3f}", number) for number in numbers]
            rows.append([text(finding), text(one.method), *cells])
        tables.append(Table(caption=kind.title, columns=columns, rows=rows, sortable=True))
    return tables


def probability(value: float) -> str:
    """Three digits that matter, near 1 too."""
    return f"{value:.3g}" if value < 0.99 else f"{value:.6g}"


# -- subgroups, data, training ---------------------------------------------------------------------


def subgroups(record: Record) -> list[Table]:
    columns = ["", "studies", "patients", *(f"macro {title}" for title in METRIC_TITLES.values())]
    return [
        Table(caption=column, columns=columns, rows=[_macro_row(part, look) for part, look in parts.items()])
        for column, parts in record.evaluation.subgroups.items()
    ]


def subgroup_gaps(record: Record) -> list[Table]:
    """Per column: the group with the lowest AUROC of each finding, and its difference to the rest."""
    tables = []
    for column, gaps in record.evaluation.subgroup_gaps.items():
        rows = []
        for finding, of_finding in gaps.findings.items():
            few = [group for group, gap in of_finding.groups.items() if gap.verdict in {"too_few", "undefined"}]
            is_behind = of_finding.worst is None
            if of_finding.worst is None:
                cells = [text("-"), Cell("-"), text("too few to judge")]
            else:
                gap = of_finding.groups[of_finding.worst]
                cells = [text(of_finding.worst), gain(gap.auroc, reason=None), text(gap.verdict)]
            # Names of groups of two columns hold a comma.
            said = f"all {len(few)} groups" if len(few) == len(of_finding.groups) else "; ".join(few) or "-"
            rows.append([_finding(finding, is_behind=is_behind), *cells, text(said)._replace(kind="list")])
        rows.sort(key=lambda row: row[2].sort is None)
        columns = ["finding", "lowest AUROC in", "difference to the rest", "verdict", "too few to judge"]
        caption = f"{column}: gaps of AUROC; {gaps.correction}"
        tables.append(Table(caption=caption, columns=columns, rows=rows))
    return tables


def data_card(record: Record) -> list[Table]:
    """Studies by split and availability, labels by finding, images left out."""
    data = record.evaluation.data
    if not data:
        return []
    columns = [
        "",
        "patients",
        "studies",
        *(kind.title for kind in Availability),
        "several frontals",
        "several laterals",
    ]
    rows = []
    for name, counts in (*data["splits"].items(), ("all", data)):
        kinds = [counts["studies"][kind] for kind in ("total", *ROUTES)]
        numbers = [counts["patients"], *kinds, counts["several_frontals"], counts["several_laterals"]]
        rows.append([text(name), *map(count, numbers)])
    tables = [Table(caption="Studies by split and availability", columns=columns, rows=rows[:-1], foot=rows[-1:])]
    splits = list(data["splits"])
    labels = []
    for finding, label_counts in data["findings"].items():
        counts = [label_counts[key] for key in ("positive", "negative", "unknown", "uncertain")]
        in_splits = [data["splits"][split]["findings"][finding] for split in splits]
        shares = [share(each["positive"], each["positive"] + each["negative"]) for each in in_splits]
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
    for view in View:
        _, logged = record.series(metric_keys.rows(view.key))
        _, idled = record.series(metric_keys.idle_micro_batches(view.key))
        per_step = [value for value in logged if value is not None]
        idle = [value for value in idled if value is not None]
        if per_step and idle:
            rows.append(
                [
                    text(view.title),
                    Cell(f"{sum(per_step) / len(per_step):.2f}"),
                    Cell(f"{sum(idle) / len(idle):.3f}"),
                    Cell(f"{max(idle):.3f}"),
                    share(sum(value > 0 for value in idle), len(idle)),
                ]
            )
    columns = ["branch", "rows per step", "idle micro-batches per step", "at most", "log entries with any"]
    return Table(caption="Rows and idle steps per branch", columns=columns, rows=rows) if rows else None


# -- several runs ----------------------------------------------------------------------------------


def comparison(records: list[Record]) -> list[Table]:
    """Runs side by side: what they are and their macro metrics; then AUROC per finding."""
    columns = ["run", "network", "studies", *(TITLES[what] for what in (*GROUPS, *WITHHELD)), "gained with the lateral"]
    tables = []
    for metric, title in METRIC_TITLES.items():
        rows = []
        for record in records:
            evaluation = record.evaluation
            cells = [
                text(record.name),
                text(evaluation.model, f"{evaluation.backbone}\n{evaluation.num_parameters:,} parameters")
                if evaluation.model is not None
                else text("other software"),
                count(evaluation.num_studies),
            ]
            cells += [_macro(evaluation.groups[group].macro[metric]) for group in GROUPS]
            if (masked := evaluation.masked) is not None:
                cells += [_macro(masked.looks[masking].macro[metric]) for masking in WITHHELD]
                cells.append(interval(masked.value_of_lateral.macro[metric], sign="+"))
            else:
                why = {"single": "takes one view", None: "not among its columns"}.get(evaluation.model, "needs both")
                cells += [Cell("-", None, why)] * (len(WITHHELD) + 1)
            rows.append(cells)
        tables.append(Table(caption=f"Macro {title}", columns=columns, rows=rows, sortable=True))
    findings = list(dict.fromkeys(finding for record in records for finding in record.findings))
    rows = []
    for finding in findings:
        cells = [text(finding)]
        for record in records:
            result = record.evaluation.groups[ALL_STUDIES].findings.get(finding)
            cells.append(Cell("-", None, "not of this run") if result is None else _metric(result, "auroc"))
        rows.append(cells)
    names = [record.name for record in records]
    tables.append(
        Table(caption="AUROC per finding, all studies", columns=["finding", *names], rows=rows, sortable=True)
    )
    return tables
