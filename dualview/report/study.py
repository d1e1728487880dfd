"""Tables of the study beside its results: data sets, patients by split, labels, precision of the test set."""

from dualview.evaluation.account_types import AgeAccount, SourceAccount, SplitAccount, StudyAccount
from dualview.report.record import Record
from dualview.report.tables import Cell, Table, count, share, text
from dualview.views import ALL_STUDIES, ROUTES, Availability

NOT_RECORDED = "not recorded"
READERS = {
    "software": "reports read by software",
    "people": "read by people",
    "software and people": "read by software and by people",
    "construction": "known by construction",
    None: "",
}


def sources(account: StudyAccount) -> Table | None:
    """Data sets: name, origin, dates, terms; None where nothing is recorded."""
    if not account.sources:
        return None
    rows = []
    for source in account.sources:
        title = source.title or NOT_RECORDED
        rows.append([
            text(source.name, title if source.title and source.title != source.name else ""),
            _words(source.origin), _words(years(source)), _words(source.citation), _words(source.licence),
        ])  # fmt: skip
    columns = ["data set", "origin, as its authors say", "years of the studies used", "citation", "terms"]
    return Table(caption="Data sets", columns=columns, rows=rows)


def years(source: SourceAccount) -> str | None:
    """First and last year; None where dates are not recorded."""
    if source.first_year is None:
        return None
    return (
        str(source.first_year)
        if source.first_year == source.last_year
        else f"{source.first_year} to {source.last_year}"
    )


def reference_standard(account: StudyAccount) -> Table | None:
    """Who or what read the images of each data set; None where nothing is recorded."""
    if not account.sources:
        return None
    rows = []
    for source in account.sources:
        by = "; ".join(
            f"{split}: {', '.join(f'{who} {number:,}' for who, number in numbers.items())}"
            for split, numbers in source.labelled_by.items()
            if numbers
        )
        how = READERS[source.reference_by]
        rows.append([text(source.name), _words(how or ("in words" if source.reference_standard else None)),
                     _words(source.reference_standard), _words(by or None)])  # fmt: skip
    columns = ["data set", "read by", "how labels came about", "studies, by who labelled them"]
    return Table(caption="Reference standard", columns=columns, rows=rows)


def demographics(account: StudyAccount) -> Table:
    """A column for each split: patients, sex, age, views."""
    splits = {name: split for name, split in account.splits.items() if split.studies}
    each = list(splits.values())
    rows = [
        [text("patients"), *(count(split.patients) for split in each)],
        [text("studies"), *(count(split.studies) for split in each)],
        [text("age, median", "25th to 75th percentile, years"), *(_age(split.age) for split in each)],
        [text("age not recorded", "patients"), *(_without_age(split) for split in each)],
    ]
    for sex in ("female", "male", "other"):
        rows.append([text(sex), *(_sex(split, sex) for split in each)])
    rows.append([text("sex not recorded"), *(_sex(split, "not recorded") for split in each)])
    for route in ROUTES:
        kind = Availability(ROUTES.index(route))
        cells = [share(split.availability[route], split.studies)._replace(detail=f"{split.availability[route]:,}")
                 for split in each]  # fmt: skip
        rows.append([text(kind.title, "studies"), *cells])
    return Table(caption="Patients by split", columns=["", *splits], rows=rows)


def _age(age: AgeAccount | None) -> Cell:
    if age is None:
        return Cell(NOT_RECORDED)
    return Cell(f"{age.median:g}", age.median, f"{age.lower_quartile:g} to {age.upper_quartile:g}")


def _without_age(split: SplitAccount) -> Cell:
    return count(split.patients - (split.age.num_known if split.age else 0))


def _sex(split: SplitAccount, sex: str) -> Cell:
    if split.sex is None:
        return Cell(NOT_RECORDED if sex != "not recorded" else f"{split.patients:,}")
    return share(split.sex[sex], split.patients)._replace(detail=f"{split.sex[sex]:,}")


def labels(record: Record) -> Table | None:
    """Unknown and uncertain labels by finding; None where nothing is recorded."""
    account = record.evaluation.account
    if account is None or not account.labels:
        return None
    rows = [
        [text(finding), count(one.unknown_in_training), count(one.uncertain_in_training), text(one.policy),
         count(one.unknown_in_split)]
        for finding, one in account.labels.items()
    ]  # fmt: skip
    columns = ["finding", "no label in training", "uncertain in training", "policy for uncertain ones",
               f"no label in {record.evaluation.split}"]  # fmt: skip
    return Table(caption="Missing and uncertain labels, studies", columns=columns, rows=rows, sortable=True)


def precision(record: Record) -> Table:
    """How wide the intervals of this test set are: patients per finding and half the width of the AUROC's interval."""
    masked = record.evaluation.masked
    rows = []
    for finding, result in record.evaluation.groups[ALL_STUDIES].findings.items():
        auroc = result.auroc
        half = None if auroc.low is None or auroc.high is None else (auroc.high - auroc.low) / 2
        cells = [
            count(result.num_positive_patients), count(result.num_negative_patients),
            Cell("-" if auroc.value is None else f"{auroc.value:.3f}", auroc.value),
            Cell("-", None, "too few patients") if half is None else Cell(f"± {half:.3f}", half),
        ]  # fmt: skip
        if masked is not None:
            gain = masked.value_of_lateral.findings[finding].detectable_gain
            cells.append(Cell("-") if gain is None else Cell(f"{gain:.3f}", gain))
        rows.append([text(finding), *cells])
    columns = ["finding", "patients with it", "patients without it", "AUROC, all studies", "half of its interval"]
    if masked is not None:
        columns.append("smallest gain by the lateral found with 80 % power")
    return Table(caption="How precise this test set is", columns=columns, rows=rows, sortable=True)


def _words(value: str | None) -> Cell:
    return Cell(value or NOT_RECORDED, None, "", "words")
