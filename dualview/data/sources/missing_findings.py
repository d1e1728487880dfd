"""Findings of the configuration of whose labels a data set has none, as a part of one may."""

from collections.abc import Collection

from dualview.config import SourceConfig
from dualview.data.remarks import Remark
from dualview.errors import UserError

SHOWN = 30  # names of a data set that a message lists


def findings_there(
    config: SourceConfig, *, there: Collection[str], every_name: bool = False
) -> tuple[dict[str, list[str]], list[Remark]]:
    """The findings of the configuration that have a label among those `there`, and what is remarkable about others.

    Args:
        there: names that the studies of the data set have.
        every_name: whether a finding with one name that is not there counts as missing, unless it is to be dropped.

    Raises:
        UserError: a finding is missing and `data.on_missing_finding` is error, or none is left.
    """
    is_there = {finding: [name for name in names if name in there] for finding, names in config.findings.items()}
    missing = [finding for finding, names in is_there.items() if not names]
    absent = [name for finding, names in config.findings.items() for name in names if name not in is_there[finding]]
    source = config.called
    known = f"there are {', '.join(sorted(there)[:SHOWN])}{' ...' if len(there) > SHOWN else ''}"
    if config.on_missing_finding == "error" and (missing or (every_name and absent)):
        raise UserError(
            f"data.findings names {', '.join(map(repr, absent if every_name else missing))}, and no study of {source} "
            f"has such a label; {known}. Mend the names, or, for a part of a data set, set "
            "data.on_missing_finding=drop (in data.sources: on_missing_finding: drop in the entry)"
        )
    if len(missing) == len(is_there) and missing:
        raise UserError(f"no study of {source} has a label of any finding in data.findings; {known}")
    kept = {finding: names for finding, names in is_there.items() if names}
    half_there = [name for name in absent if any(name in config.findings[finding] for finding in kept)]
    remarks = [
        Remark(kind, len(names), names[0])
        for kind, names in (
            ("finding of data.findings that no study has a label of: it is left out", missing),
            ("label in data.findings that no study has, beside others of its finding", half_there),
        )
        if names
    ]
    return kept, remarks
