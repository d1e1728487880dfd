"""Which finding of other data is which of a network: by a map, its name, or what data sets call the same."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dualview.config import SourceConfig
from dualview.data.sources import vocabularies
from dualview.data.sources.vocabularies import XRV
from dualview.data.table import StudyTable
from dualview.errors import UserError

How = Literal["map", "name", "vocabulary"]
CXR_LT_TO_XRV = {finding: [name] for finding, name in vocabularies.CXR_LT_RENAMED.items()}
TO_XRV: Mapping[str, Mapping[str, Sequence[str]]] = {
    "chexpert": vocabularies.CHEXPERT_TO_XRV,
    "chexpert_plus": vocabularies.CHEXPERT_TO_XRV,
    "mimic_cxr": vocabularies.CHEXPERT_TO_XRV | CXR_LT_TO_XRV,
    "padchest": vocabularies.PADCHEST_TO_XRV,
    "openi": vocabularies.OPENI_TO_XRV,
    "vindr": vocabularies.VINDR_TO_XRV,
}
"""Source -> pathology of torchxrayvision -> the labels of the source that make it positive."""
LISTS_NAMES = ("padchest", "openi")  # sources that list what a study has; the others have a column for each label


@dataclass(frozen=True, kw_only=True)
class FindingMatch:
    """Where a network's finding stands in one source."""

    theirs: tuple[str, ...]  # findings of the source; with several it is positive with any of them
    by: How


def parse_maps(texts: Sequence[str], *, findings: Sequence[str]) -> dict[str, str]:
    """`Run finding=their finding`, several of them, as a mapping.

    Args:
        findings: of the run.

    Raises:
        UserError: what is no such text, names a finding that the run does not have, or one twice; all together.
    """
    maps: dict[str, str] = {}
    problems = []
    for text in texts:
        # Names of findings may hold an equals sign: the run's finding is the longest that the text begins with.
        starts = [finding for finding in findings if text.strip().startswith(finding)]
        own = next((f for f in sorted(starts, key=len, reverse=True) if _rest(text, f) is not None), None)
        name, equals, given = text.partition("=")
        theirs = _rest(text, own) if own is not None else given.strip()
        if not equals or not theirs:
            problems.append(f"--map '{text}': write 'Run finding=their finding'")
        elif own is None:
            problems.append(f"--map '{text}': the run has no finding '{name.strip()}'")
        elif own in maps:
            problems.append(f"--map '{text}': '{own}' is mapped to '{maps[own]}' already")
        elif theirs in maps.values():
            first = next(finding for finding, other in maps.items() if other == theirs)
            problems.append(f"--map '{text}': '{theirs}' is taken for '{first}' already")
        else:
            maps[own] = theirs
    if problems:
        raise UserError("\n".join([*problems, f"Findings of the run: {', '.join(findings)}"]))
    return maps


def _rest(text: str, finding: str) -> str | None:
    """What stands behind `finding =`, None where something else does."""
    rest = text.strip()[len(finding) :].lstrip()
    return rest[1:].strip() if rest.startswith("=") else None


def match_findings(
    findings: Sequence[str],
    tables: Sequence[StudyTable],
    *,
    sources: Sequence[SourceConfig],
    maps: Mapping[str, str],
) -> list[dict[str, FindingMatch]]:
    """For each source, finding of the network -> where it stands there; those that a source lacks are left out.

    Args:
        findings: of the network.
        tables, sources: what is read, and by which settings.
        maps: of `parse_maps`, which go before everything else.

    Raises:
        UserError: a map names a finding that no source has, two of a source could be the same, or nothing matches.
    """
    there = list(dict.fromkeys(name for table in tables for name in table.findings))
    lists = f"Findings of these data: {', '.join(there) or 'none'}\nFindings of the run: {', '.join(findings)}"
    problems = [
        f"--map '{own}={theirs}': these data have no finding '{theirs}'"
        for own, theirs in maps.items()
        if theirs not in there
    ]
    matches = []
    for table, source in zip(tables, sources, strict=True):
        found: dict[str, FindingMatch] = {}
        free = [name for name in table.findings if name not in maps.values()]
        for finding in findings:
            if finding in maps:
                if maps[finding] in table.findings:
                    found[finding] = FindingMatch(theirs=(maps[finding],), by="map")
            elif finding in free:
                found[finding] = FindingMatch(theirs=(finding,), by="name")
            elif names := _labels_of(finding, free, source=source):
                found[finding] = FindingMatch(theirs=names, by="vocabulary")
            else:
                others = [name for name in free if name not in findings]
                alike = [name for name in others if _form(name) == _form(finding)]
                how: How = "name" if alike else "vocabulary"
                alike = alike or [name for name in others if _means(name) and _means(name) == _means(finding)]
                if len(alike) > 1:
                    problems.append(
                        f"'{finding}' could be {' or '.join(map(repr, alike))}: say which with --map '{finding}=...'"
                    )
                if alike:
                    found[finding] = FindingMatch(theirs=(alike[0],), by=how)
        matches.append(found)
    if problems:
        raise UserError("\n".join([*dict.fromkeys(problems), lists]))
    if not any(matches):
        raise UserError(
            "no finding of these data is one of the run: there is nothing to compare. Say which is which, as often as "
            f"needed, with --map 'Run finding=their finding'\n{lists}"
        )
    return matches


def _labels_of(finding: str, free: Sequence[str], *, source: SourceConfig) -> tuple[str, ...]:
    """The several labels of a public data set that together are a finding; none where it is one label, or not known."""
    labels = TO_XRV.get(source.source, {}).get(_means(finding) or "", ())
    if len(labels) < 2 or source.vocabulary == "xrv":
        return ()
    wanted = set(map(_form, labels))
    names = tuple(name for name in free if _form(name) in wanted)
    # A label that a list of names never has is negative everywhere. One that is left out by the settings, or that has
    # no column, is not: what it would make positive would be called negative.
    may_lack = source.source in LISTS_NAMES and not source.findings and not source.min_positive_patients
    return names if may_lack or len(names) == len(labels) else ()


def _means(name: str) -> str | None:
    """The pathology of torchxrayvision that a name means: its own, or that of which it is some data set's one label."""
    form = _form(name)
    for pathology in XRV:
        if _form(pathology) == form:
            return pathology
    for labels_of in TO_XRV.values():
        for pathology, labels in labels_of.items():
            if len(labels) == 1 and _form(labels[0]) == form:
                return pathology
    return None


def _form(name: str) -> str:
    """A name without regard to case, blanks, hyphens and underscores.

    >>> _form("Pleural_Thickening") == _form("pleural thickening") == _form("PleuralThickening")
    True
    """
    return re.sub(r"[\s_-]+", "", name).casefold()


def with_matched(table: StudyTable, *, findings: Sequence[str], matches: Mapping[str, FindingMatch]) -> StudyTable:
    """The studies with a network's findings; one that has no match is unknown in all.

    Of several labels, a study is positive with any, negative where all are known to be negative, else unknown; it is
    uncertain where it is unknown and one of them is uncertain.
    """
    shape = (len(table), len(findings))
    labels, mask, uncertain = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    for k, finding in enumerate(findings):
        if finding not in matches:
            continue
        columns = [table.findings.index(name) for name in matches[finding].theirs]
        if len(columns) == 1:
            labels[:, k], mask[:, k] = table.labels[:, columns[0]], table.label_mask[:, columns[0]]
        else:
            positive = table.positive[:, columns].any(axis=1)
            labels[:, k], mask[:, k] = positive, positive | table.label_mask[:, columns].all(axis=1)
        if table.uncertain is not None:
            uncertain[:, k] = ~mask[:, k] & table.uncertain[:, columns].any(axis=1)
    return replace(
        table,
        findings=tuple(findings),
        labels=labels,
        label_mask=mask,
        uncertain=None if table.uncertain is None else uncertain,
    )
