"""Writes the tables of docs/evaluation.md from the types and comments of dualview/evaluation/document.py.

python docs/generate/evaluation.py
"""

import dataclasses
import inspect
import re
from pathlib import Path

from dualview.evaluation import document

PAGE = Path(__file__).parents[1] / "evaluation.md"
BEGIN, END = "<!-- docs/generate/evaluation.py -->\n", "<!-- end -->\n"
FIELD = re.compile(r"^    (\w+): ([^#=]+?)(?:\s*=[^#]*?)?(?:\s*#\s*(.*))?$")


def tables() -> str:
    """A table for each class of the document, the whole first and each class before those that it is made of."""
    classes = [cls for cls in vars(document).values() if dataclasses.is_dataclass(cls)]
    return "\n".join(table(cls) for cls in reversed(classes) if own_fields(cls))


def table(cls: type) -> str:
    """The keys of one class, in the order of the file."""
    says = " ".join((cls.__doc__ or "").split())
    rows = [f"| `{name}` | {kind(type_)} | {escaped(comment)} |" for name, type_, comment in own_fields(cls)]
    return "\n".join([f"### {cls.__name__}\n", f"{says}\n", "| key | holds | meaning |", "|---|---|---|", *rows]) + "\n"


def own_fields(cls: type) -> list[tuple[str, str, str]]:
    """Name, type and comment of the fields that the class itself declares."""
    lines = inspect.getsource(cls).split("\n    @")[0].splitlines()
    return [(match[1], match[2], match[3] or "") for line in lines if (match := FIELD.match(line))]


def escaped(comment: str) -> str:
    """A comment as a cell of a Markdown table."""
    return comment.replace("|", "\\|")


def kind(type_: str) -> str:
    """A type as a reader of JSON calls it."""
    names = {"float": "number", "int": "count", "str": "text", "list": "list", "dict": "object"}
    plain = re.sub(r"Literal\[(.+?)\]", r"\1", type_).replace(" | None", " or null")
    return re.sub(r"\b(" + "|".join(names) + r")\b", lambda match: names[match[0]], plain).replace("|", "\\|")


def with_tables(text: str) -> str:
    """A page whose tables stand between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
