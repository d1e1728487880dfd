"""Reading operating_points.json: of this dualview, and of earlier ones, which did not undo the weight of positives."""

import json
import math
from pathlib import Path
from typing import Any, TypeGuard, get_args

from dualview.config import SeveralImages
from dualview.errors import UserError, listed
from dualview.evaluation.operating_points import POINTS_FORMAT, OperatingPoint, OperatingPoints
from dualview.evaluation.statistics.calibration import Line
from dualview.views import ROUTES

READ_FORMATS = (1, POINTS_FORMAT)


def read_operating_points(file: Path) -> OperatingPoints | None:
    """The operating points of a run, from its file; None where it has none yet.

    Raises:
        UserError: the file is there, and is not what it should be; all problems together.
    """
    remedy = "Make it anew with: dualview evaluate RUN --set-thresholds"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}). {remedy}") from None
    if not isinstance(content, dict) or content.get("format") not in READ_FORMATS:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file} has format {found!r}, this dualview reads 1 and {POINTS_FORMAT}. {remedy}")
    problems: list[str] = []
    temperature = {route: _temperature(content, route, problems) for route in ROUTES}
    routes = {route: _points(content, route, problems) for route in ROUTES}
    log_pos_weight = _log_pos_weight(content, problems) if content["format"] == POINTS_FORMAT else None
    several = content.get("several_images_at_test", "first")
    if several not in get_args(SeveralImages):
        problems.append(f"several_images_at_test is {several!r}; it must be {', '.join(get_args(SeveralImages))}")
    if problems:
        raise UserError(f"{file} has {len(problems)} problem(s)\n{listed(problems)}\n{remedy}")
    return OperatingPoints(
        rule=str(content.get("rule", "")),
        chosen_on=str(content.get("chosen_on", "")),
        temperature=temperature,
        routes=routes,
        log_pos_weight=log_pos_weight,
        several_images_at_test=several,
    )


def _log_pos_weight(content: dict[str, Any], problems: list[str]) -> dict[str, float] | None:
    weights = content.get("log_pos_weight")
    if weights is None:
        return None
    if not isinstance(weights, dict):
        problems.append(f"log_pos_weight is {type(weights).__name__}; it must hold a number per finding, or be null")
        return None
    for finding, value in weights.items():
        if not _is_number(value):
            problems.append(f"log_pos_weight.{finding} is {value!r}; it must be a number")
    return {finding: float(value) for finding, value in weights.items() if _is_number(value)}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _temperature(content: dict[str, Any], route: str, problems: list[str]) -> float:
    temperatures = content.get("temperature")
    value = temperatures.get(route) if isinstance(temperatures, dict) else None
    if not _is_number(value) or not value > 0:
        problems.append(f"temperature.{route} is {value!r}; it must be a number above 0")
        return 1.0
    return float(value)


def _points(content: dict[str, Any], route: str, problems: list[str]) -> dict[str, OperatingPoint]:
    routes = content.get("routes")
    findings = routes.get(route) if isinstance(routes, dict) else None
    if not isinstance(findings, dict):
        problems.append(f"routes.{route} is {type(findings).__name__}; it must hold an object per finding")
        return {}
    points = {}
    for finding, value in findings.items():
        threshold = value.get("threshold") if isinstance(value, dict) else value
        is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
        if not isinstance(value, dict) or not (threshold is None or (is_number and 0 <= threshold <= 1)):
            problems.append(f"routes.{route}.{finding}.threshold is {threshold!r}; allowed are 0 to 1, and null")
            continue
        points[finding] = OperatingPoint(
            threshold=None if threshold is None else float(threshold),
            reason=value.get("reason"),
            platt=_platt(value.get("platt"), problems, at=f"routes.{route}.{finding}.platt"),
        )
    return points


def _platt(value: Any, problems: list[str], *, at: str) -> Line | None:
    if value is None:
        return None
    slope, intercept = (value.get(name) if isinstance(value, dict) else None for name in Line._fields)
    if not _is_number(slope) or not _is_number(intercept) or not slope > 0:
        problems.append(f"{at} is {value!r}; it must hold a slope above 0 and an intercept, or be null")
        return None
    return Line(float(slope), float(intercept))
