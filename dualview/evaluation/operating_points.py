"""What a probability is taken for: the temperature of each route and the threshold of each of its findings.

`operating_points.json` of a run directory, written by `dualview evaluate`:

    {"format": 1, "rule": "youden", "chosen_on": "val",
     "temperature": {"both": 1.2, "pa_only": 1.0, "lateral_only": 0.9},
     "routes": {"both": {"Pneumonia": {"threshold": 0.31, "reason": null},
                         "Hernia": {"threshold": null, "reason": "one class only in val"}}, ...}}

A route's logits are divided by its temperature before the sigmoid. A threshold is on the probability after
that: the decision is 1 where probability >= threshold.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualview.errors import UserError, listed
from dualview.views import Availability

FORMAT = 1
FILE = "operating_points.json"
ROUTES = tuple(kind.name.lower() for kind in Availability)


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Where the positives of one finding begin on one route."""

    threshold: float | None  # probability in [0, 1]; None: no decision can be made
    reason: str | None = None  # why there is no threshold


@dataclass(frozen=True, kw_only=True)
class OperatingPoints:
    """Temperature and thresholds of every route; by `ROUTES`, then by finding."""

    rule: str  # by which thresholds were chosen
    chosen_on: str  # split
    temperature: dict[str, float]
    routes: dict[str, dict[str, OperatingPoint]]

    def calibrated(self, logits: np.ndarray, route: Availability) -> np.ndarray:
        """Probabilities (N, K) float64 of a route's logits (N, K)."""
        return sigmoid(logits.astype(np.float64) / self.temperature[route.name.lower()])

    def decide(
        self, probabilities: np.ndarray, route: Availability, *, findings: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decisions (N, K) bool on calibrated probabilities (N, K), and which of them mean anything (N, K) bool."""
        of_route = self.routes[route.name.lower()]
        thresholds = [of_route[finding].threshold if finding in of_route else None for finding in findings]
        is_known = np.array([threshold is not None for threshold in thresholds], dtype=bool)
        at = np.array([0.0 if threshold is None else threshold for threshold in thresholds])
        known = np.broadcast_to(is_known, probabilities.shape).copy()
        return (probabilities >= at) & known, known

    def write(self, path: Path) -> None:
        """Write to `path` in one go."""
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits)) without overflow."""
    exponential = np.exp(-np.abs(logits))
    probabilities: np.ndarray = np.where(logits >= 0, 1.0, exponential) / (1 + exponential)
    return probabilities


def read(run_dir: Path) -> OperatingPoints | None:
    """The operating points of a run; None where it has none yet.

    Raises:
        UserError: the file is there, and is not what it should be; all problems together.
    """
    file = run_dir / FILE
    remedy = f"Make it anew with: dualview evaluate {run_dir}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}). {remedy}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file} has format {found!r}, this dualview reads format {FORMAT}. {remedy}")
    problems: list[str] = []
    temperature = {route: _temperature(content, route, problems) for route in ROUTES}
    routes = {route: _points(content, route, problems) for route in ROUTES}
    if problems:
        raise UserError(f"{file} has {len(problems)} problem(s)\n{listed(problems)}\n{remedy}")
    return OperatingPoints(
        rule=str(content.get("rule", "")),
        chosen_on=str(content.get("chosen_on", "")),
        temperature=temperature,
        routes=routes,
    )


def _temperature(content: dict[str, Any], route: str, problems: list[str]) -> float:
    of_routes = content.get("temperature")
    value = of_routes.get(route) if isinstance(of_routes, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        problems.append(f"temperature.{route} is {value!r}; it must be a number above 0")
        return 1.0
    return float(value)


def _points(content: dict[str, Any], route: str, problems: list[str]) -> dict[str, OperatingPoint]:
    of_routes = content.get("routes")
    findings = of_routes.get(route) if isinstance(of_routes, dict) else None
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
            threshold=None if threshold is None else float(threshold), reason=value.get("reason")
        )
    return points
