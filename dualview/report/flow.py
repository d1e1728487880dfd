"""The flow of patients as a drawing: what was read, what each rule leaves out, the splits, what was evaluated.

The same boxes twice, side by side for wide pages and one below the other for narrow ones; page.css shows one of them.
"""

import textwrap
from dataclasses import dataclass, field
from html import escape

from markupsafe import Markup

from dualview.data.sources.flow import FlowStep, Left
from dualview.evaluation.account_types import SourceAccount, SplitAccount, StudyAccount
from dualview.evaluation.document import Evaluation
from dualview.views import TITLES

LINE, PADDING, GAP = 18, 10, 16  # px
CHARACTER, BOLD_CHARACTER = 6.9, 7.8  # px, width of a letter at 13 px
TOLD_REASONS = 3  # reasons of a rule that a box lists


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box of the flow: a title and lines."""

    title: str
    lines: list[str]
    kind: str = ""  # out, judged: classes of the style sheet


@dataclass(kw_only=True)
class _Canvas:
    """What has been drawn until now, from above."""

    width: int
    y: float = 0.0
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>')

    def box(self, box: Box, *, x: float, y: float, width: float) -> float:
        """Draw a box; gives its height."""
        letters, bold_letters = (int((width - 2 * PADDING) / each) for each in (CHARACTER, BOLD_CHARACTER))
        lines = [(line, "b") for line in textwrap.wrap(box.title, bold_letters)]
        lines += [(part, "") for line in box.lines for part in textwrap.wrap(line, letters)]
        height = 2 * PADDING + LINE * len(lines) - 4
        texts = "".join(
            f'<text x="{x + PADDING:g}" y="{y + PADDING + LINE * n + 11:g}"{f" class={kind!r}" if kind else ""}>'
            f"{escape(text)}</text>"
            for n, (text, kind) in enumerate(lines)
        )
        rect = f'<rect x="{x + 0.5:g}" y="{y + 0.5:g}" width="{width - 1:g}" height="{height:g}" rx="4"/>'
        self.parts.append(f'<g class="{box.kind}">{rect}{texts}</g>')
        return height


def draw_flow(evaluation: Evaluation) -> Markup | None:
    """Both drawings; None where the evaluation has no account of its data sets."""
    account = evaluation.account
    if account is None or not account.sources:
        return None
    main = [(source, *_boxes_of_source(source)) for source in account.sources]
    splits = [
        _split_box(name, split, is_judged=name == evaluation.split, left_out=account.left_out_of_training)
        for name, split in account.splits.items()
        if split.studies
    ]
    after = _after_splits(evaluation, account)
    drawings = "".join(
        _drawing(main, splits, after, width=width, kind=kind) for width, kind in ((760, "wide"), (340, "narrow"))
    )
    return Markup(drawings)  # noqa: S704 - every text is escaped


def _boxes_of_source(source: SourceAccount) -> tuple[Box, list[Box], Box]:
    """What was read, what each rule leaves out, and what is used."""
    begin = Box(title=f"{source.name}: {source.flow[0].rule}" if source.flow else source.name,
                lines=_counts(source.flow[0].left) if source.flow else [])  # fmt: skip
    steps = [_out_box(step, before=before.left) for before, step in zip(source.flow, source.flow[1:], strict=False)]
    return begin, steps, Box(title="used", lines=_counts(source.flow[-1].left) if source.flow else [])


def _out_box(step: FlowStep, *, before: Left) -> Box:
    out = Left(
        images=before.images - step.left.images,
        studies=_less(before.studies, step.left.studies),
        patients=_less(before.patients, step.left.patients),
    )
    lines = _counts(out)
    told = list(step.reasons.items())[:TOLD_REASONS]
    lines += [f"{number:,}: {reason}" for reason, number in told]
    if len(step.reasons) > len(told):
        lines.append(f"and {len(step.reasons) - len(told)} more")
    return Box(title=f"left out: {step.rule}", lines=lines, kind="out")


def _less(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else before - after


def _counts(left: Left) -> list[str]:
    parts = [f"{left.images:,} images"]
    parts += [f"{number:,} {what}" for number, what in ((left.studies, "studies"), (left.patients, "patients"))
              if number is not None]  # fmt: skip
    return [", ".join(parts)]


def _split_box(name: str, split: SplitAccount, *, is_judged: bool, left_out: dict[str, int]) -> Box:
    kinds = [f"{TITLES[kind]}: {number:,}" for kind, number in split.availability.items()]
    lines = [f"{split.patients:,} patients", f"{split.studies:,} studies", *kinds]
    if split.taken < split.studies:
        lines.append(f"{split.studies - split.taken:,} lack a view that the network needs")
    if name == "train" and left_out.get("studies"):
        number, patients = left_out["studies"], left_out["patients"]
        lines.append(f"left out of it by the settings: {number:,} studies, {patients:,} patients")
    return Box(title=name, lines=lines, kind="judged" if is_judged else "")


def _after_splits(evaluation: Evaluation, account: StudyAccount) -> list[Box]:
    """What was lost when images were read, and what was evaluated."""
    lost = []
    if account.studies_not_read:
        lost.append(f"{account.studies_not_read:,} studies of which no image could be read")
    boxes = [Box(title="left out", lines=lost, kind="out")] if lost else []
    lines = [f"{evaluation.num_studies:,} studies of {evaluation.num_patients:,} patients"]
    lines += [
        f"{TITLES[kind]}: {evaluation.groups[kind].num_studies:,}"
        for kind in ("both", "pa_only", "lateral_only")
        if kind in evaluation.groups
    ]
    if account.studies_with_a_view_not_read:
        lines.append(f"{account.studies_with_a_view_not_read:,} of them without a view that could not be read")
    return [*boxes, Box(title=f"evaluated ({evaluation.split})", lines=lines, kind="judged")]


def _drawing(
    sources: list[tuple[SourceAccount, Box, list[Box], Box]],
    splits: list[Box],
    after: list[Box],
    *,
    width: int,
    kind: str,
) -> str:
    """One drawing as an SVG element."""
    is_wide = kind == "wide"
    canvas = _Canvas(width=width)
    main_width, side = (360, 400) if is_wide else (width, 40)
    middle = main_width / 2 if is_wide else 16
    for number, (_, begin, steps, used) in enumerate(sources):
        canvas.y += GAP if number else 0
        canvas.y += canvas.box(begin, x=0, y=canvas.y, width=main_width)
        for step in steps:
            top = canvas.y + GAP
            height = canvas.box(step, x=side, y=top, width=width - side)
            canvas.line(middle, canvas.y, middle, top + height)
            canvas.line(middle, top + height / 2, side, top + height / 2)
            canvas.y = top + height
        if steps:
            canvas.line(middle, canvas.y, middle, canvas.y + GAP)
            canvas.y += GAP
            canvas.y += canvas.box(used, x=0, y=canvas.y, width=main_width)
    canvas.line(middle, canvas.y, middle, canvas.y + GAP)
    canvas.y += GAP
    columns = len(splits) if is_wide and splits else 1
    # A single split stands under what was read, as one more step.
    box_width = main_width if columns == 1 else (width - (columns - 1) * GAP) / columns
    last, bottom = middle, None
    tops, height = canvas.y, 0.0
    for number, box in enumerate(splits):
        x = number * (box_width + GAP) if is_wide else 0
        if not is_wide and number:
            canvas.line(middle, canvas.y, middle, canvas.y + GAP)
            canvas.y += GAP
        drawn = canvas.box(box, x=x, y=tops if is_wide else canvas.y, width=box_width)
        height = max(height, drawn)
        if not is_wide:
            canvas.y += drawn
        if box.kind == "judged" and is_wide:
            last, bottom = x + box_width / 2, tops + drawn
    if is_wide:
        for number in range(len(splits)):
            x = number * (box_width + GAP) + box_width / 2
            canvas.line(x, tops - GAP / 2, x, tops)
        if columns > 1:
            canvas.line(box_width / 2, tops - GAP / 2, width - box_width / 2, tops - GAP / 2)
        canvas.y = tops + height
    for box in after:
        # The box of the split that was judged may end above the tallest.
        canvas.line(last, canvas.y if bottom is None else bottom, last, canvas.y + GAP)
        bottom = None
        canvas.y += GAP
        x = max(0.0, min(last - main_width / 2, width - main_width))
        canvas.y += canvas.box(box, x=x, y=canvas.y, width=main_width)
    label = "Flow of patients: " + "; ".join(
        f"{box.title}: {', '.join(box.lines)}"
        for box in [*(b for _, begin, steps, used in sources for b in (begin, *steps, used)), *splits, *after]
    )
    return (
        f'<svg class="flow {kind}" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {canvas.y + 1:g}" '
        f'width="{width}" height="{canvas.y + 1:g}">{"".join(canvas.parts)}</svg>'
    )
