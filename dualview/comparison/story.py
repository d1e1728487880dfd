"""A comparison from its file to its table: train what is not there, then put the predictions side by side."""

import json
import logging
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import Progress

from dualview.comparison.plan import Plan
from dualview.comparison.result import GROUPS, MACRO, Row, compare_predictions
from dualview.comparison.runs import RESULT, is_finished, train_all
from dualview.errors import UserError, listed
from dualview.evaluation.prediction_table import read_predictions

logger = logging.getLogger(__name__)

TITLES = {
    "all": "all studies",
    "both": "both views",
    "pa_only": "PA only",
    "lateral_only": "lateral only",
    "lateral_hidden": "both, lateral withheld",
    "pa_hidden": "both, PA withheld",
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a variant costs: parameters, and the median over its runs' logged speeds in training."""

    num_parameters: int
    images_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came out, row by row, and what it cost: (setting, variant) -> Cost."""

    plan: Plan
    rows: list[Row]
    costs: dict[tuple[str, str], Cost]


def compare(
    plan: Plan, *, jobs: int = 1, launch: Path | None = None, only: int | None = None, progress: Progress
) -> Comparison | None:
    """Train the runs of a plan that are not finished, and compare all; None where `only` one run was asked for.

    Args:
        jobs: runs at a time.
        launch: Accelerate configuration file that starts each run on several processes.
        only: number of the one run to train, for a task of a Slurm array.

    Raises:
        UserError: runs that failed, or finished runs with other settings.
        Preempted: a signal came.
    """
    if only is not None and not 0 <= only < len(plan.runs):
        raise UserError(f"--only {only}: the comparison has runs 0 to {len(plan.runs) - 1}")
    wanted = plan.runs if only is None else [plan.runs[only]]
    missing = [run for run in wanted if not is_finished(run)]
    if len(wanted) > len(missing):
        logger.info("%d of %d runs are there already", len(wanted) - len(missing), len(wanted))
    bar = progress.add_task("training runs", total=len(wanted), completed=len(wanted) - len(missing))
    problems = train_all(missing, jobs=jobs, launch=launch, done=lambda _run: progress.advance(bar))
    progress.remove_task(bar)
    if problems:
        raise UserError(
            f"{len(problems)} of {len(missing)} run(s) failed\n{listed(problems)}\n"
            "The others are kept: mend these and start the same command again"
        )
    if only is not None:
        return None
    predictions: dict[tuple[str, str], list[Any]] = {}
    for run in plan.runs:
        predictions.setdefault((run.setting, run.variant), []).append(read_predictions(run.config.run.dir / RESULT))
    rows = compare_predictions(
        predictions,
        baseline=plan.compare.baseline,
        num_resamples=plan.compare.resamples,
        confidence=plan.compare.confidence,
        track=lambda keys: progress.track(keys, description="resampling patients"),
    )
    costs = {
        key: _cost([run.config.run.dir for run in plan.runs if (run.setting, run.variant) == key])
        for key in predictions
    }
    comparison = Comparison(plan=plan, rows=rows, costs=costs)
    _write(comparison)
    return comparison


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown: macro AUROC per group and setting, then complete studies finding by finding."""
    plan = comparison.plan.compare
    level = f"{100 * plan.confidence:g} %"
    parts = [
        f"AUROC on the test split: mean over {len(plan.seeds)} seeds, ± standard deviation. Below it the difference to "
        f"{plan.baseline} on the same patients, with its {level} interval over seeds and patients. - stands where a "
        "network cannot judge these studies.\n"
    ]
    for setting in plan.settings:
        sizes = {row.group: row.num_studies for row in comparison.rows if row.setting == setting}
        columns = {f"{TITLES[group]} ({sizes[group]})": (group, MACRO) for group in GROUPS}
        parts.append(_table(comparison, setting=setting, columns=columns, with_cost=True, title="macro AUROC"))
        findings = dict.fromkeys(row.finding for row in comparison.rows if row.finding != MACRO)
        by_finding = {finding: ("both", finding) for finding in findings}
        parts.append(_table(comparison, setting=setting, columns=by_finding, with_cost=False, title="both views"))
    return "\n".join(parts)


def _table(
    comparison: Comparison, *, setting: str, columns: dict[str, tuple[str, str]], with_cost: bool, title: str
) -> str:
    head = ["network", *(["parameters", "images/s"] if with_cost else []), *columns]
    lines = [
        f"**{f'{setting}: ' if setting else ''}{title}**\n",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for variant in comparison.plan.compare.variants:
        cost = comparison.costs[setting, variant]
        cells = [variant]
        if with_cost:
            speed = "-" if cost.images_per_second is None else f"{cost.images_per_second:.0f}"
            cells += [f"{cost.num_parameters:,}", speed]
        for group, finding in columns.values():
            row = find(comparison.rows, setting=setting, variant=variant, group=group, finding=finding)
            cells.append(cell(row, is_baseline=variant == comparison.plan.compare.baseline))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def find(rows: list[Row], *, setting: str, variant: str, group: str, finding: str, metric: str = "auroc") -> Row:
    """The one row of these."""
    wanted = (setting, variant, group, finding, metric)
    return next(row for row in rows if (row.setting, row.variant, row.group, row.finding, row.metric) == wanted)


def cell(row: Row, *, is_baseline: bool, newline: str = "<br>") -> str:
    """Mean and spread over seeds, and below them the difference to the baseline."""
    if row.mean is None:
        return "-"
    text = f"{row.mean:.3f}" + ("" if row.sd is None else f" ± {row.sd:.3f}")
    if is_baseline or row.difference is None or row.low is None or row.high is None:
        return text
    return f"{text}{newline}{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"


def _cost(run_dirs: list[Path]) -> Cost:
    speeds: list[float] = []
    num_parameters = 0
    for run_dir in run_dirs:
        for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if (speed := record.get("speed/images_per_second")) is not None:
                speeds.append(speed)
            num_parameters = record.get("summary", {}).get("model/num_parameters", num_parameters)
    return Cost(num_parameters=num_parameters, images_per_second=statistics.median(speeds) if speeds else None)


def _write(comparison: Comparison) -> None:
    frame = pd.DataFrame([asdict(row) for row in comparison.rows])
    frame.to_csv(table_file(comparison.plan, ".csv"), index=False)
    table_file(comparison.plan, ".md").write_text(markdown(comparison), encoding="utf-8")


def table_file(plan: Plan, suffix: str) -> Path:
    """Where the table is written; one for each baseline that was asked for."""
    return plan.compare.dir / f"comparison-to-{plan.compare.baseline}{suffix}"
