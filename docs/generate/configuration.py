"""Writes docs/configuration.md from the configuration's own field descriptions.

python docs/generate/configuration.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dualview.config import Config

PAGE = Path(__file__).parents[1] / "configuration.md"
HEAD = """# Configuration

Every key with its default. A value comes from the default, then the YAML file, then `section.field=value` on the
command line; `dualview config CONFIG [section.field=value ...]` prints the result. This page is written by
`python docs/generate/configuration.py`.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type) and issubclass(section, BaseModel)
        parts.append(
            f"\n## {name}\n\n{(section.__doc__ or '').strip()}\n\n| key | default | meaning |\n|---|---|---|\n"
        )
        parts += [f"| `{key}` | `{default}` | {meaning} |\n" for key, default, meaning in rows(section, at=f"{name}.")]
    return "".join(parts)


def rows(section: type[BaseModel], *, at: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and meaning of every field, sections within sections included."""
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from rows(field.annotation, at=f"{at}{name}.")
        else:
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            yield f"{at}{name}", show(field.default), meaning


def show(default: Any) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
