"""Settings that may leave the machine: without paths, which name machines, people and folders."""

from pathlib import Path
from typing import Any

from dualview.config.sections import Config

NOT_SHOWN = "(a path, not shown)"


def public_settings(config: Config) -> dict[str, Any]:
    """The settings without paths, which name machines, people and folders."""
    plain = config.model_dump(mode="json")
    public: dict[str, Any] = _without_paths(config.model_dump(), plain)
    return public


def _without_paths(value: Any, plain: Any) -> Any:
    """`plain` with a notice in the place of every path of `value`, its twin with Python's types."""
    if isinstance(value, Path) or (isinstance(value, str) and _is_absolute(value)):
        return NOT_SHOWN
    if isinstance(value, dict):
        return {
            key: _without_paths(typed, twin) for typed, (key, twin) in zip(value.values(), plain.items(), strict=True)
        }
    if isinstance(value, list | tuple):
        return [_without_paths(typed, twin) for typed, twin in zip(value, plain, strict=True)]
    return plain


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~", "\\\\")) or text[1:3] in (":\\", ":/")
