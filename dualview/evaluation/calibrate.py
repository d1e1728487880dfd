"""What `dualview evaluate --calibrate` fits on val: Platt's two numbers where labels allow, else one per route."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dualview.evaluation.document import FindingCalibration
from dualview.evaluation.operating_points import OperatingPoints, calibrated_scores, logits_from, shift_of
from dualview.evaluation.prediction_table import PredictionTable
from dualview.evaluation.statistics.calibration import Line, calibration_error, fit_platt, fit_temperature
from dualview.views import TITLES, Availability

FEWEST = 30
"""Positive and negative studies each that a fit needs: with fewer it follows chance."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted; by `views.ROUTES`."""

    temperature: dict[str, float]  # divides the logits of findings without a line; 1: too few labels for that, too
    platt: dict[str, dict[str, Line]]  # then by finding, only those that have one
    said: tuple[str, ...]  # a sentence per route: which findings are calibrated by what


def fit_calibration(val: PredictionTable, *, log_pos_weight: Mapping[str, float] | None = None) -> Calibration:
    """Calibrate each route on every val study that has its views, complete ones with the other view withheld.

    A finding gets a line where val has at least `FEWEST` positives and negatives of it there and the line keeps the
    order of studies. The others share the temperature of all findings of the route, where val has that many labels of
    both kinds altogether.
    """
    temperature, platt, said = {}, {}, []
    for kind in Availability:
        logits = logits_from(kind, val) - shift_of(log_pos_weight, findings=val.findings)
        known, positive = val.label_mask & np.isfinite(logits), val.positive
        lines = {}
        for k, finding in enumerate(val.findings):
            use = known[:, k]
            if _are_enough(positive[use, k]):
                line = fit_platt(logits[use, k], positive=positive[use, k])
                lines.update({} if line is None else {finding: line})
        fitted = fit_temperature(logits, positive=positive, known=known) if _are_enough(positive[known]) else None
        temperature[kind.key], platt[kind.key] = fitted or 1.0, lines
        others = [finding for finding in val.findings if finding not in lines]
        said.append(f"{TITLES[kind.key]}: {_sentence(lines=len(lines), others=others, temperature=fitted)}")
    return Calibration(temperature=temperature, platt=platt, said=tuple(said))


def calibration_of(table: PredictionTable, *, points: OperatingPoints) -> dict[str, dict[str, FindingCalibration]]:
    """Route -> finding -> how it is calibrated, and its calibration error on the studies that came on that route."""
    before = calibrated_scores(table, score="route", points=points.uncalibrated())
    after = calibrated_scores(table, score="route", points=points)
    found: dict[str, dict[str, FindingCalibration]] = {}
    for kind in Availability:
        of_route = found[kind.key] = {}
        for k, finding in enumerate(table.findings):
            use = (table.availability == kind) & table.label_mask[:, k] & np.isfinite(after[:, k])
            positive, scale = table.positive[use, k], points.scale(kind, finding)
            weights = points.log_pos_weight
            of_route[finding] = FindingCalibration(
                method=points.method(kind, finding),
                log_pos_weight=None if weights is None else weights.get(finding, 0.0),
                slope=1 / scale.temperature,
                intercept=scale.intercept,
                error_before=calibration_error(before[use, k], positive=positive),
                error_after=calibration_error(after[use, k], positive=positive),
            )
    return found


def _are_enough(positive: np.ndarray) -> bool:
    return bool(min(positive.sum(), (~positive).sum()) >= FEWEST)


def _sentence(*, lines: int, others: list[str], temperature: float | None) -> str:
    parts = [f"Platt for {lines} finding(s)"] if lines else []
    if others:
        what = "nothing" if temperature is None else f"temperature {temperature:.3g}"
        parts.append(f"{what} for {len(others)} ({', '.join(others)})")
    return ", ".join(parts)
