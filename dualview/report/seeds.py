"""Runs that are trainings of one network with several seeds: found among the runs of a page, and what they gain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dualview.comparison.seeds import GainOverSeeds, gain_over_seeds, in_one_order
from dualview.errors import UserError, listed
from dualview.evaluation.statistics.class_patients import class_patients_of_each
from dualview.evaluation.value_of_lateral import BEHIND, VERDICT_TITLES, rank_of, value_of_lateral
from dualview.report.record import Record
from dualview.report.tables import VERDICT_GLYPHS, Cell, Table, interval, share, text
from dualview.report.tables import gain as in_two_intervals
from dualview.run.resume import differing_settings
from dualview.views import ALL_STUDIES, MASKINGS, TITLES, View

NOT_COMPARED = ("run.seed",)  # keys in which trainings of one network may differ


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Trainings of one network with several seeds, tested on the same studies."""

    records: tuple[Record, ...]
    gain: GainOverSeeds | None  # None: the network takes one kind of study only

    @property
    def seeds(self) -> list[int]:
        return [record.config.run.seed for record in self.records if record.config is not None]

    @property
    def sentence(self) -> str:
        """What is over seeds on a page, and whose the rest is."""
        seeds = ", ".join(map(str, self.seeds))
        start = f"{len(self.records)} trainings that differ in run.seed only ({seeds})"
        end = f"Everything else is of the first, {self.records[0].name} (seed {self.seeds[0]})"
        if self.gain is None:
            return f"{start}: a table has the AUROC of each finding over these seeds. {end}"
        few = "" if len(self.records) > 2 else "; two seeds say little of other trainings: 3 or more are better"
        return (
            f"{start}: gains with the lateral and their verdicts are over these seeds and patients{few}. A table has "
            f"the AUROC of each finding over these seeds. {end}"
        )

    @property
    def first(self) -> Record:
        """The first run with the gains of all."""
        record = self.records[0]
        masked = record.evaluation.masked
        if masked is None or self.gain is None:
            return record
        over = replace(masked, value_of_lateral=self.gain.value)
        return replace(record, evaluation=replace(record.evaluation, masked=over))


def why_not_seeds(records: Sequence[Record]) -> list[str]:
    """Why runs are not trainings of one network with several seeds; []: they are."""
    first, problems = records[0], []
    seen = {} if first.config is None else {first.config.run.seed: first.name}
    for record in records[1:]:
        if first.config is None or record.config is None:
            problems.append(f"{(first if first.config is None else record).name} has no settings to compare")
            continue
        keys = [key for key in differing_settings(record.config, first.config) if key not in NOT_COMPARED]
        if keys:
            problems.append(f"{record.name} differs from {first.name} in {', '.join(keys)}")
            continue
        if record.config.run.seed in seen:
            problems.append(f"{record.name} has the same run.seed as {seen[record.config.run.seed]}")
            continue
        here, there = _how(record), _how(first)
        if other := [f"{key} {here[key]}, not {there[key]}" for key in here if here[key] != there[key]]:
            problems.append(f"{record.name} was evaluated otherwise than {first.name} ({'; '.join(other)})")
            continue
        seen[record.config.run.seed] = record.name
        if in_one_order([first.predictions, record.predictions]) is None:
            hint = ": set data.seed, or each run.seed draws its own" if first.config.data.seed is None else ""
            problems.append(f"{record.name} was tested on other studies than {first.name}, or with other labels{hint}")
    return problems


def _how(record: Record) -> dict[str, str]:
    """What an evaluation took of its run, which may differ between runs of one configuration."""
    evaluation = record.evaluation
    checkpoint = None if evaluation.checkpoint is None else evaluation.checkpoint.name
    values = (evaluation.split, checkpoint, evaluation.several_images_at_test or "first")
    return dict(zip(("split", "checkpoint", "several_images_at_test"), map(str, values), strict=True))


def all_seeds(records: Sequence[Record]) -> Seeds:
    """The runs as trainings of one network.

    Raises:
        UserError: there is one, or they are not; with the keys in which they differ.
    """
    if len(records) < 2:
        raise UserError("--seeds is for several runs of one network; give each seed's")
    if problems := why_not_seeds(records):
        raise UserError(
            f"the runs are not trainings of one network with several seeds\n{listed(problems)}\n"
            "Leave --seeds out to see them side by side"
        )
    return _measured(records)


def _measured(records: Sequence[Record]) -> Seeds:
    tables = in_one_order([record.predictions for record in records])
    assert tables is not None
    settings = records[0].evaluation.settings
    gain = None
    if all(record.evaluation.masked is not None for record in records):
        gain = gain_over_seeds(
            tables,
            points=[record.points for record in records],
            num_resamples=settings.resamples,
            seed=settings.seed,
            confidence=settings.confidence,
        )
    return Seeds(records=tuple(records), gain=gain)


def table_over_seeds(seeds: Seeds) -> Table | None:
    """What the trainings gain with the lateral, finding by finding; None for networks of one view."""
    masked, gain = seeds.records[0].evaluation.masked, seeds.gain
    if masked is None or gain is None:
        return None
    number = len(seeds.records)
    of_first = seeds.records[0].predictions
    complete = of_first.select(of_first.availability == 0)
    patients = class_patients_of_each(complete.patient_ids, positive=complete.positive, known=complete.label_mask)
    rows = []
    for k, finding in enumerate(of_first.findings):
        value, look = gain.value.findings[finding], masked.both.findings[finding]
        of_classes, prevalence = patients[k], share(look.num_positive, look.num_positive + look.num_negative)
        verdict = Cell(
            f"{VERDICT_GLYPHS[value.verdict]} {VERDICT_TITLES[value.verdict]}".strip(),
            value.verdict,
            f"{of_classes.num_positive:,} positive,\n{of_classes.num_negative:,} negative patients"
            if value.verdict == "too_few"
            else "",
            value.verdict,
        )
        rows.append(
            [
                text(finding)._replace(kind="behind" if value.verdict in BEHIND else ""),
                Cell(f"{look.num_positive:,}", prevalence.sort, prevalence.text),
                *(_spread(gain.aurocs[masking][:, k]) for masking in MASKINGS),
                in_two_intervals(value.auroc, reason=look.undefined),
                verdict,
                Cell(", ".join(f"{one:+.3f}" for one in gain.gains[:, k]) if value.auroc.value is not None else "-"),
                in_two_intervals(value.average_precision, reason=look.undefined),
            ]
        )
    verdicts = {finding: value.verdict for finding, value in gain.value.findings.items()}
    rows.sort(
        key=lambda row: (rank_of(verdicts[row[0].text]), float("inf") if row[5].sort is None else -float(row[5].sort))
    )
    macro = gain.value.macro
    foot = [
        text("macro", f"mean of {macro['auroc'].num_findings} findings"), Cell(""),
        *(_spread(np.nanmean(gain.aurocs[masking], axis=1)) for masking in MASKINGS),
        interval(macro["auroc"], sign="+"), Cell(""), Cell(""), interval(macro["average_precision"], sign="+"),
    ]  # fmt: skip
    columns = [
        "finding", "positive", "AUROC, both views", TITLES[View.LATERAL.hidden_key], TITLES[View.PA.hidden_key],
        f"AUROC gained over {number} seeds", "lateral view", f"seeds {', '.join(map(str, seeds.seeds))}",
        "average precision gained",
    ]  # fmt: skip
    return Table(
        caption=(
            f"Gained over {number} seeds. AUROC: mean over the seeds, ± their standard deviation, and from the lowest "
            "to the highest. Beneath a gain its own interval over seeds and patients, then the one that holds for all "
            "judged findings"
        ),
        columns=columns, rows=rows, foot=[foot], sortable=True, sorted_by=5,
    )  # fmt: skip


def aurocs_over_seeds(seeds: Seeds) -> Table:
    """AUROC of each finding on all studies: its spread over seeds, and each of them."""
    looks = [record.evaluation.groups[ALL_STUDIES] for record in seeds.records]
    rows = []
    for finding in seeds.records[0].findings:
        values = [look.findings[finding].auroc.value for look in looks]
        known = np.array([np.nan if value is None else value for value in values])
        each = [Cell("undefined" if value is None else f"{value:.3f}", value) for value in values]
        rows.append([text(finding), _spread(known), *each])
    macros = [look.macro["auroc"].value for look in looks]
    foot = [text("macro"), _spread(np.array([np.nan if value is None else value for value in macros])),
            *(Cell("undefined" if value is None else f"{value:.3f}", value) for value in macros)]  # fmt: skip
    columns = ["finding", "mean ± standard deviation", *(f"seed {seed}" for seed in seeds.seeds)]
    caption = "AUROC of all studies over seeds; beneath the mean the lowest and the highest"
    return Table(caption=caption, columns=columns, rows=rows, foot=[foot], sortable=True)


def warnings_of_seeds(seeds: Seeds) -> list[str]:
    """Findings whose joint head is under-trained, seed by seed."""
    return [
        f"seed {seed}: {warning}"
        for seed, record in zip(seeds.seeds, seeds.records, strict=True)
        if record.evaluation.masked is not None
        for warning in value_of_lateral(record.evaluation.masked).warnings
    ]


def _spread(values: np.ndarray) -> Cell:
    """Mean and spread over seeds."""
    if not np.isfinite(values).all():
        return Cell("undefined", None, "", "undefined")
    return Cell(
        f"{values.mean():.3f} ± {values.std(ddof=1):.3f}",
        float(values.mean()),
        f"{values.min():.3f} to {values.max():.3f}",
    )
