"""Which studies of a data set take part (`data.cohort`), and labels from the names that a study is given."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from dualview.config import CohortConfig, SourceConfig
from dualview.data.remarks import Remark
from dualview.data.sources.dates import times_of
from dualview.data.sources.flow import FlowStep, count_studies
from dualview.data.sources.image_rows import SourceTable
from dualview.data.sources.missing_findings import findings_there
from dualview.data.table import StudyTable
from dualview.errors import UserError
from dualview.views import ROUTES, Availability, View

VIEW_NOT_USED = "view is not used in this cohort"
SEVERAL_IMAGES = "study has several images of one view"
KIND_NEEDS = {kind.key: kind.views for kind in Availability}


def select(source: SourceTable, *, cohort: CohortConfig, date_format: str | None = None) -> SourceTable:
    """The studies that the rules leave.

    With `one_study_per_patient` each kind of `availability` is taken in turn, as the authors do it
    (`extract_cohort.py --mode joint`, then `--mode pa` without the patients of the first): among the
    studies with one image of each view the kind needs, a patient's earliest; a view the kind does not
    need is then not used. Without it, kinds are those of the studies as they are.

    Args:
        source: its table has the attribute `date` where `one_study_per_patient` is wanted.
            The rules on labels look at its label names.
        date_format: `data.date_format`.

    Raises:
        UserError: no study is left, rules on labels for a data set without label names, or on dates for one
            without dates.
    """
    if cohort == CohortConfig():
        return source
    table = source.table
    names = _names(source, cohort=cohort)
    out = _Reasons(len(table))
    if cohort.labelled_only:
        out.leave_out(_each(names, lambda labels: not labels), "study has no label")
    if cohort.one_study_per_patient:
        times = _times(table, date_format=date_format)
        kind_of = _one_per_patient(table, out, times=times, cohort=cohort, names=names)
    else:
        if cohort.one_image_per_view:
            out.leave_out(np.any(table.num_images > 1, axis=1), SEVERAL_IMAGES)
        kind_of = np.array([Availability(kind).key for kind in table.availability], object)
        if cohort.availability:
            out.leave_out(~np.isin(kind_of, cohort.availability), f"study is not {' or '.join(cohort.availability)}")
        out.leave_out(_have(names, cohort.drop_labels), _drop_reason(cohort))
        out.leave_out(_say_nothing(names, cohort), "study has no label that says something")
    kept = np.flatnonzero(out.reason == "")
    if not len(kept):
        raise UserError(f"data.cohort leaves no study of {source.name}")
    dropped = [source.dropped]
    images = []
    for view in View:
        paths_of = table.images[view].copy()
        unused = np.array([view not in KIND_NEEDS[kind] for kind in kind_of])
        unused &= out.reason == ""
        for rows, reasons in (
            (np.flatnonzero(out.reason != ""), out.reason),
            (np.flatnonzero(unused), np.full(len(table), VIEW_NOT_USED, object)),
        ):
            paths = [(path, reasons[row]) for row in rows for path in paths_of[row]]
            dropped.append(pd.DataFrame(paths, columns=["path", "reason"], dtype=object))
        for row in np.flatnonzero(unused):
            paths_of[row] = ()
        images.append(paths_of)
    table = replace(table, images=(images[View.PA], images[View.LATERAL])).select(kept)
    label_names = source.label_names and replace(source.label_names, studies=names[kept])
    flow = (*source.flow, *_flow(source.table, out, kept=table))
    return replace(
        source, table=table, label_names=label_names, dropped=pd.concat(dropped, ignore_index=True), flow=flow
    )


def _flow(table: StudyTable, out: "_Reasons", *, kept: StudyTable) -> list[FlowStep]:
    """What each rule leaves of the studies of a table, and the last step the images of views that are not used."""
    steps = []
    is_left = np.ones(len(table), bool)
    last = sorted(set(out.reason) - {"", *out.rules}, key=lambda rule: int(np.argmax(out.reason == rule)))
    for rule in [*(rule for rule in dict.fromkeys(out.rules) if (out.reason == rule).any()), *last]:
        is_left &= out.reason != rule
        left = table.select(np.flatnonzero(is_left))
        steps.append(FlowStep(rule=rule, left=count_studies(left, num_images=int(left.num_images.sum())), reasons={}))
    num_images = int(kept.num_images.sum())
    if num_images < int(table.num_images[is_left].sum()):
        steps.append(FlowStep(rule=VIEW_NOT_USED, left=count_studies(kept, num_images=num_images), reasons={}))
    return steps


def _names(source: SourceTable, *, cohort: CohortConfig) -> np.ndarray:
    """(S,) of frozenset[str]: the label names of each study; without any where no rule needs them.

    Raises:
        UserError: a rule needs them.
    """
    if source.label_names is not None:
        return source.label_names.studies
    if cohort.labelled_only or cohort.drop_labels or cohort.neutral_labels:
        raise UserError(f"data.cohort has rules on labels, but {source.name} has findings in columns, not label names")
    return np.full(len(source.table), frozenset(), object)


class _Reasons:
    """Why each study is left out; blank where it is not."""

    def __init__(self, num_studies: int) -> None:
        self.reason = np.full(num_studies, "", object)
        self.rules: list[str] = []  # in the order in which they were applied

    def leave_out(self, mask: np.ndarray, reason: str) -> None:
        self.reason[mask & (self.reason == "")] = reason
        self.rules.append(reason)


def _times(table: StudyTable, *, date_format: str | None) -> np.ndarray:
    """(S,) when each study was, as `times_of`.

    Raises:
        UserError: there are no dates, or some cannot be read.
    """
    if "date" not in table.attributes:
        raise UserError("data.cohort.one_study_per_patient takes the earliest study, but this data set has no dates")
    try:
        return times_of(table.attributes["date"], date_format=date_format)
    except UserError as error:
        raise UserError(f"data.cohort.one_study_per_patient takes the earliest study, but {error}") from None


def _one_per_patient(
    table: StudyTable, out: _Reasons, *, times: np.ndarray, cohort: CohortConfig, names: np.ndarray
) -> np.ndarray:
    """(S,) kind that each study is taken for; studies not taken get their reason in `out`."""
    kinds: list[str] = [*cohort.availability] if cohort.availability else [*ROUTES]
    bad, neutral = _have(names, cohort.drop_labels), _say_nothing(names, cohort)
    patient = np.unique(table.patient_ids.astype(str), return_inverse=True)[1]
    kind_of = np.full(len(table), kinds[0], object)
    usable = out.reason == ""
    taken = np.zeros(len(table), bool)
    is_of_no_kind = f"study is not {' or '.join(kinds)}"
    reason = np.full(len(table), is_of_no_kind, object)
    for kind in kinds:
        needed = table.num_images[:, KIND_NEEDS[kind]]
        fits = (needed > 0).all(axis=1) & usable
        if cohort.one_image_per_view:
            has_several = fits & (needed > 1).any(axis=1)
            reason[has_several & (reason == is_of_no_kind)] = SEVERAL_IMAGES
            fits &= ~has_several
        reason[fits & bad] = _drop_reason(cohort)
        rows = np.flatnonzero(fits & ~bad)
        ties = [
            hashlib.sha256(f"{cohort.tie_seed}/{kind}/{study}".encode()).digest() for study in table.study_ids[rows]
        ]
        order = rows[np.lexsort((np.array(ties), times[rows]))]
        _, first = np.unique(patient[order], return_index=True)
        chosen = np.zeros(len(table), bool)
        chosen[order[first]] = True
        is_represented = np.isin(patient, patient[taken])  # by a study of a kind before this one
        reason[fits & ~bad & ~taken & (~chosen | is_represented)] = "patient has a study that comes before"
        reason[chosen & neutral & ~taken & ~is_represented] = "study has no label that says something"
        chosen &= ~neutral & ~is_represented
        kind_of[chosen] = kind
        taken |= chosen
    untaken = ~taken & (out.reason == "")
    out.reason[untaken] = reason[untaken]
    return kind_of


def _drop_reason(cohort: CohortConfig) -> str:
    return f"study has label {' or '.join(cohort.drop_labels)}"


def _each(names: np.ndarray, test: Callable[[frozenset[str]], bool]) -> np.ndarray:
    return np.fromiter(map(test, names), bool, len(names))


def _have(names: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
    """(S,) bool: the study has one of these labels."""
    these = frozenset(wanted)
    return _each(names, lambda labels: bool(labels & these))


def _say_nothing(names: np.ndarray, cohort: CohortConfig) -> np.ndarray:
    """(S,) bool: the study has labels, and all of them are neutral."""
    neutral = frozenset(cohort.neutral_labels)
    return _each(names, lambda labels: bool(neutral) and labels <= neutral)


def label_by_names(source: SourceTable, *, config: SourceConfig) -> SourceTable:
    """Labels for a data set that lists the names of what a study has; another one as it is.

    A finding is positive where the study has one of its names and negative where it has others; a study
    without any name is unknown. Findings are those of the configuration; of the vocabulary; or all names.

    Raises:
        UserError: the configuration names findings of which no study has a label, and does not drop them.
    """
    if source.label_names is None:
        return source
    table, names, to_xrv = source.table, source.label_names.studies, source.label_names.to_xrv
    there = frozenset().union(*names)
    findings, remarks = dict(config.findings), list[Remark]()
    if config.vocabulary == "xrv":
        wanted = list(findings) or list(to_xrv)
        findings = {name: list(to_xrv[name]) for name in wanted if name in to_xrv}
    elif not findings:
        findings = {name: [name] for name in sorted(there - frozenset(source.label_names.not_findings))}
    else:
        findings, remarks = findings_there(config, there=there)
    kinds, kind_of = _distinct(names)
    labels = np.array(
        [[bool(kind & frozenset(positive)) for positive in findings.values()] for kind in kinds], np.float32
    )
    known = np.array([len(kind) > 0 for kind in kinds])
    table = replace(
        table,
        findings=tuple(findings),
        labels=labels.reshape(len(kinds), len(findings))[kind_of],
        label_mask=np.repeat(known[kind_of][:, None], len(findings), axis=1),
        uncertain=None,
    )
    return replace(source, table=table, remarks=(*source.remarks, *remarks))


def _distinct(names: np.ndarray) -> tuple[list[frozenset[str]], np.ndarray]:
    """The distinct sets, and which of them each study has."""
    position: dict[frozenset[str], int] = {}
    kind_of = np.fromiter((position.setdefault(labels, len(position)) for labels in names), np.int64, len(names))
    return list(position), kind_of


def drop_rare_findings(source: SourceTable, *, min_positive_patients: int) -> SourceTable:
    """The source without findings that fewer patients have."""
    table = source.table
    if not min_positive_patients:
        return source
    positive = table.positive
    counts = [len(set(table.patient_ids[positive[:, k]])) for k in range(len(table.findings))]
    kept = [name for name, count in zip(table.findings, counts, strict=True) if count >= min_positive_patients]
    return replace(source, table=table.with_findings(kept))
