"""What a probability is taken for: the temperature of each route and the threshold of each of its findings.

`operating_points.json` of a run directory, written when training ends and by `dualview evaluate`:

    {"format": 1, "rule": "youden", "chosen_on": "val",
     "temperature": {"both": 1.2, "pa_only": 1.0, "lateral_only": 0.9},
     "routes": {"both": {"Pneumonia": {"threshold": 0.31, "reason": null},
                         "Hernia": {"threshold": null, "reason": "one class only in val"}}, ...}}

A route's logits are divided by its temperature before the sigmoid. A threshold is on the probability after
that: the decision is 1 where probability >= threshold.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from dualview.errors import UserError, listed
from dualview.evaluation.metrics import why_undefined
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.calibration import fit_temperature
from dualview.evaluation.statistics.thresholds import YOUDEN, ThresholdRule, choose
from dualview.files import write_whole
from dualview.views import ROUTES, Availability

POINTS_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Where the positives of one finding begin on one route."""

    threshold: float | None  # probability in [0, 1]; None: no decision can be made
    reason: str | None = None  # why there is no threshold; None: there is one


@dataclass(frozen=True, kw_only=True)
class OperatingPoints:
    """Temperature and thresholds of every route; by `views.ROUTES`, then by finding."""

    rule: str  # rule by which thresholds were chosen
    chosen_on: str  # split on which thresholds were chosen
    temperature: dict[str, float]
    routes: dict[str, dict[str, OperatingPoint]]

    def calibrated(self, logits: np.ndarray, route: Availability) -> np.ndarray:
        """Probabilities (N, K) float64 of a route's logits (N, K)."""
        return to_probabilities(logits, temperature=self.temperature[route.key])

    def thresholds(self, findings: Sequence[str], route: Availability) -> np.ndarray:
        """(K,) thresholds of a route on calibrated probabilities, NaN where no decision can be made."""
        points = [self.routes[route.key].get(finding) for finding in findings]
        values = [None if point is None else point.threshold for point in points]
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def decide(
        self, probabilities: np.ndarray, route: Availability, *, findings: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decisions (N, K) bool on calibrated probabilities (N, K), and which of them mean anything (N, K) bool."""
        thresholds = self.thresholds(findings, route)
        known = np.broadcast_to(np.isfinite(thresholds), probabilities.shape).copy()
        return probabilities >= thresholds, known  # no probability reaches a NaN

    def write(self, path: Path) -> None:
        """Write to `path` whole or not at all."""
        write_whole(path, json.dumps({"format": POINTS_FORMAT, **asdict(self)}, indent=2) + "\n")


# -- from logits to probabilities ------------------------------------------------------------------


def to_probabilities(logits: np.ndarray, *, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """sigmoid(logits / temperature) as float64, NaN where there is no logit. Every probability is made here.

    By scipy's expit, which gives a logit the same probability wherever it stands in an array. The sigmoid of torch does
    not, to the last digit, and a study that lies on its threshold would be decided by its neighbours.
    """
    probabilities: np.ndarray = expit(logits.astype(np.float64) / temperature)
    return probabilities


def calibrated_scores(table: PredictionTable, *, score: str, temperature: dict[str, float]) -> np.ndarray:
    """(S, K) probabilities of a score, by the temperature of the route that it takes for each study."""
    by_route = np.array([temperature[route] for route in ROUTES])
    return to_probabilities(table.logits[score], temperature=by_route[table.judged_by(score)][:, None])


# -- chosen on val ---------------------------------------------------------------------------------


def choose_operating_points(
    val: PredictionTable, *, rule: ThresholdRule = YOUDEN, temperatures: dict[str, float] | None = None
) -> OperatingPoints:
    """Thresholds per route and finding from the val split.

    A route of one view is judged on every val study that has the view, complete ones with the other withheld.
    """
    temperatures = temperatures or dict.fromkeys(ROUTES, 1.0)
    routes = {}
    for kind in Availability:
        probabilities = to_probabilities(logits_from(kind, val), temperature=temperatures[kind.key])
        routes[kind.key] = {
            finding: _choose(probabilities[:, k], positive=val.positive[:, k], known=val.label_mask[:, k], rule=rule)
            for k, finding in enumerate(val.findings)
        }
    return OperatingPoints(rule=str(rule), chosen_on="val", temperature=temperatures, routes=routes)


def _choose(
    probabilities: np.ndarray, *, positive: np.ndarray, known: np.ndarray, rule: ThresholdRule
) -> OperatingPoint:
    known = known & np.isfinite(probabilities)
    truth = positive[known]
    chosen = choose(probabilities[known], positive=truth, rule=rule)
    if chosen is None:
        reason = why_undefined(num_positive=int(truth.sum()), num_negative=int((~truth).sum()))
        return OperatingPoint(threshold=None, reason=f"on val, {reason}")
    return OperatingPoint(threshold=chosen.threshold)


def fit_temperatures(val: PredictionTable) -> dict[str, float]:
    """A temperature per route from the val split; 1 where a route has no labels of both kinds there."""
    fitted = {}
    for kind in Availability:
        logits = logits_from(kind, val)
        known = val.label_mask & np.isfinite(logits)
        fitted[kind.key] = fit_temperature(logits, positive=val.positive, known=known) or 1.0
    return fitted


def logits_from(kind: Availability, table: PredictionTable) -> np.ndarray:
    """(S, K) logits as if only the views of this kind existed, of every study that has them; NaN for others."""
    logits = np.full(table.labels.shape, np.nan)
    as_they_came = table.evaluated & (table.availability == kind)
    logits[as_they_came] = table.logits["route"][as_they_came]
    if kind != Availability.BOTH:
        complete = table.evaluated & (table.availability == Availability.BOTH)
        logits[complete] = table.logits[kind.views[0].other.hidden_key][complete]
    return logits


# -- the file --------------------------------------------------------------------------------------


def read_operating_points(file: Path) -> OperatingPoints | None:
    """The operating points of a run, from its file; None where it has none yet.

    Raises:
        UserError: the file is there, and is not what it should be; all problems together.
    """
    remedy = f"Make it anew with: dualview evaluate {file.parent}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}). {remedy}") from None
    if not isinstance(content, dict) or content.get("format") != POINTS_FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{file} has format {found!r}, this dualview reads format {POINTS_FORMAT}. {remedy}")
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
    temperatures = content.get("temperature")
    value = temperatures.get(route) if isinstance(temperatures, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
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
            threshold=None if threshold is None else float(threshold), reason=value.get("reason")
        )
    return points
