"""What was read although it is not as it should be: counted by kind, with an example."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Remark:
    """How often something of a kind was met, and where first."""

    kind: str  # a sentence without a number or a path
    count: int
    example: str  # a path, which can identify a patient: for the user's own screen only

    def __str__(self) -> str:
        return f"{self.count:,}  {self.kind}, such as {self.example}"


def sum_remarks(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """One remark per kind, with the counts of all of that kind and the first one's example."""
    sums: dict[str, Remark] = {}
    for remark in remarks:
        earlier = sums.get(remark.kind)
        sums[remark.kind] = replace(earlier, count=earlier.count + remark.count) if earlier else remark
    return tuple(sums.values())


def count_remarks(found: Iterable[tuple[str, str]]) -> tuple[Remark, ...]:
    """Remarks from (kind, path) pairs, kinds in order of appearance; each has its first path as an example."""
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    for kind, path in found:
        counts[kind] = counts.get(kind, 0) + 1
        examples.setdefault(kind, path)
    return tuple(Remark(kind, count, examples[kind]) for kind, count in counts.items())
