"""From YAML files and `section.field=value` overrides to checked sections, or to what is wrong with them."""

import difflib
import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dualview.config.sections import Config, DataConfig, RunConfig, Section, SourceConfig
from dualview.config.uses import NETWORKS, SOURCES
from dualview.errors import UserError, listed

# What a run did before there was the key: runs of then have written their settings without it.
BEFORE_THE_KEY = {"loss.normalise": "known", "train.best_metric": "auroc_all"}


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `3e-4` is a number (YAML 1.2) and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: Path, *, overrides: list[str] | None = None) -> Config:
    """The configuration in a YAML file, with `section.field=value` overrides on top.

    Raises:
        UserError: no such file, no valid YAML, or any key that is unknown, of the wrong type, impossible
            together with another or not used; all of them at once.
    """
    values, problems = read_values(path, overrides=overrides or [])
    return _checked(values, problems, path=path, refuse_unused=True)


def load_of_run(path: Path) -> Config:
    """The configuration that a run was trained with, from the file that it has written, maybe long ago.

    Raises:
        UserError: as `load`, but for keys that are not used, which were once allowed.
    """
    values, problems = read_values(path, overrides=[])
    return _checked(as_it_was_trained(values), problems, path=path, refuse_unused=False)


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """The section `data` of a file whose other sections do not count."""

    data: DataConfig
    seed: int  # seed that the data are drawn and divided by
    shared_patients: bool | None  # what `data.shared_patients` says; None: nothing


def load_data_section(path: Path, *, overrides: list[str]) -> DataSection:
    """The section `data` of a YAML file, with `data.field=value` overrides on top.

    With one source, too, `data.shared_patients` may stand there: it is about patients of other data then.

    Raises:
        UserError: as `load`, of the section alone.
    """
    values, problems = read_values(path, overrides=overrides)
    section = values.get("data")
    if not isinstance(section, dict) or not section:
        raise UserError(f"{path} has no section data; it says what there is to evaluate, such as data.source")
    section = dict(section)
    shared = section.get("shared_patients")
    if not section.get("sources") and isinstance(shared, bool):
        del section["shared_patients"]
    data, value_problems = check(DataConfig, section, at="data")
    problems += value_problems
    problems += _unused_by_sources(data) if data is not None else []
    if problems or data is None:
        raise UserError(f"{path}: {len(problems)} problem(s) in its section data\n{listed(problems)}")
    seed = data.seed
    if seed is None:
        run, _ = check(RunConfig, values.get("run") or {})
        seed = 0 if run is None else run.seed
    return DataSection(data=data, seed=seed, shared_patients=shared if isinstance(shared, bool) else None)


def as_it_was_trained(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that a run has written, with what it did where it did not know a key yet."""
    values = {name: dict(section) if isinstance(section, dict) else section for name, section in values.items()}
    for key, value in BEFORE_THE_KEY.items():
        section, name = key.split(".")
        if isinstance(values.setdefault(section, {}), dict):
            values[section].setdefault(name, value)
    return values


def _checked(values: dict[str, Any], problems: list[str], *, path: Path, refuse_unused: bool) -> Config:
    config, value_problems = check(Config, values)
    problems += value_problems
    if refuse_unused:
        data = config.data if config is not None else check(DataConfig, values.get("data") or {})[0]
        problems += _unused_by_sources(data) if data is not None else []
        problems += _unused_by_network(config) if config is not None else []
    if problems or config is None:
        raise UserError(f"{path}: {len(problems)} problem(s) in the configuration\n{listed(problems)}")
    return config


def changed(config: Config, *, overrides: list[str]) -> Config:
    """A configuration with `section.field=value` overrides on top.

    Raises:
        UserError: as `load`.
    """
    values = config.model_dump(mode="json")
    problems = _apply(overrides, to=values)
    result, value_problems = check(Config, values)
    problems += value_problems
    if problems or result is None:
        raise UserError(f"{len(problems)} problem(s) in the configuration\n{listed(problems)}")
    return result


def read_values(path: Path, *, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The sections of a YAML file as plain values with overrides on top, and what is wrong with these.

    Raises:
        UserError: no such file, no valid YAML, or no sections in it.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) or {}  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        nearby = sorted(str(other) for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(
            f"no such config file: {path}" + (f". There are: {', '.join(nearby)}" if nearby else "")
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(
            f"{path} must hold sections ({', '.join(Config.model_fields)}), found a {type(values).__name__}"
        )
    return values, _apply(overrides, to=values)


def _unused_by_sources(data: DataConfig) -> list[str]:
    """A problem for each source whose reader does not use what is set for it."""
    sections: list[tuple[str, SourceConfig]] = [("data", data)]
    sections += [(f"data.sources.{number}", entry) for number, entry in enumerate(data.sources)]
    problems = []
    for at, section in sections:
        if unused := section.unused_keys:
            used = ", ".join(sorted(SOURCES[section.source]))
            problems.append(
                f"{at}: source '{section.source}' does not use {', '.join(unused)}; remove what it does not use. It "
                f"uses {used}"
            )
    return problems


def _unused_by_network(config: Config) -> list[str]:
    """A problem where the network does not use what is set for it."""
    unused, name = config.unused_keys, config.model.name
    if not unused:
        return []
    used = ", ".join(sorted(key.format(view=config.model.view) for key in NETWORKS[name].keys))
    return [
        f"model.name '{name}' does not use {', '.join(unused)}; remove what it does not use. Of the keys that not "
        f"every network has a use for, it uses {used}"
    ]


AnySection = TypeVar("AnySection", bound=Section)


def check(kind: type[AnySection], values: Any, *, at: str = "") -> tuple[AnySection | None, list[str]]:
    """The section that plain values make, or None, and what is wrong with them; `at` is where they stand."""
    try:
        return kind.model_validate(values), []
    except ValidationError as error:
        return None, [_describe(detail, kind=kind, at=at) for detail in error.errors()]


def set_value(values: dict[str, Any], *, key: str, value: Any) -> str | None:
    """Put a value at `section.field` of nested values; returns what is wrong with the key."""
    parts = key.split(".")
    if len(parts) < 2 or not all(parts):
        where = _likely_key(parts[-1])
        return f"'{key}' is no section.field" + (f"; did you mean {where}?" if where else "")
    section = values
    for part in parts[:-1]:
        if not isinstance(section.get(part), dict):
            section[part] = {}
        section = section[part]
    section[parts[-1]] = value
    return None


def _apply(overrides: list[str], *, to: dict[str, Any]) -> list[str]:
    """Write `section.field=value` texts into nested `to`; returns what is wrong with their form."""
    problems = []
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = key.split(".")
        if not equals or len(parts) < 2 or not all(parts):
            where = _likely_key(parts[-1])
            hint = f"; did you mean {where}={text}?" if where and equals else ""
            problems.append(f"override '{override}': write section.field=value, such as train.max_steps=100{hint}")
            continue
        try:
            value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except yaml.YAMLError:
            value = text
        set_value(to, key=key, value=value)
    return problems


def _describe(detail: ErrorDetails, *, kind: type[Section], at: str = "") -> str:
    """One pydantic error as: key path, what was found, what is allowed."""
    location = tuple(part for part in detail["loc"] if isinstance(part, str | int))
    key = ".".join(str(part) for part in ((at,) if at else ()) + location)
    if detail["type"] == "extra_forbidden":
        allowed = list(_section_at(location[:-1], within=kind).model_fields)
        close = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        elsewhere = _likely_key(str(location[-1]))
        if close:
            hint = f"did you mean '{close[0]}'?"
        elif elsewhere:
            hint = f"did you mean {elsewhere}?"
        else:
            hint = f"allowed here: {', '.join(allowed)}"
        return f"{key}: unknown key; {hint}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":  # dualview's own validators name what they found.
        return f"{key}: {message}" if key else message
    return f"{key}: found {detail['input']!r}; {message[0].lower()}{message[1:]}"


def _section_at(location: tuple[str | int, ...], *, within: type[Section]) -> type[Section]:
    section = within
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Section):
            break
        section = field.annotation
    return section


def _likely_key(name: str) -> str | None:
    """`section.field` whose field is called like `name`, for hints."""
    known = {
        field: f"{section}.{field}"
        for section, info in Config.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
        for field in info.annotation.model_fields
    }
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return known[close[0]] if close else None
