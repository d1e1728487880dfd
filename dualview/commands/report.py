"""`dualview report RUN ...`: evaluated runs as one HTML file that opens offline."""

import os
from collections.abc import Sequence
from pathlib import Path

from dualview.errors import UserError
from dualview.files import write_whole
from dualview.report.page import render
from dualview.report.pictures import ImageRequest, draw
from dualview.report.record import OWN_TEST, read_records
from dualview.run.directory import EvaluationDir, RunDir


def write_report(
    run_dirs: Sequence[Path],
    *,
    out: Path | None = None,
    images: ImageRequest | None = None,
    evaluation: str = OWN_TEST,
) -> Path:
    """Write the page of one or several evaluated runs; gives its path.

    Args:
        out: file to write; without it `report.html` in the run, or in the folder that all runs have in common; of
            another evaluation of one run beside that.
        images: which studies to show with Grad-CAM; None shows no image.
        evaluation: folder in each run whose evaluation is shown.

    Raises:
        UserError: a run without an evaluation, or with `images` data that cannot be read; nothing is written.
    """
    records = read_records(run_dirs, evaluation=evaluation)
    if images is not None and any(record.evaluation.external for record in records):
        raise UserError("--images shows studies of the run's own test; there are none of other data: leave it out")
    file = out or _default_file(run_dirs, evaluation=evaluation)
    pictures = {record.name: draw(record, request=images) for record in records} if images is not None else {}
    page = render(records, pictures=pictures)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, page)
    return file


def _default_file(run_dirs: Sequence[Path], *, evaluation: str) -> Path:
    name = RunDir(Path()).report.name if evaluation == OWN_TEST else f"report-{evaluation}.html"
    if len(run_dirs) == 1:
        run = RunDir(run_dirs[0])
        return run.report if evaluation == OWN_TEST else EvaluationDir(run.path / evaluation).report
    common = Path(os.path.commonpath([run_dir.resolve().parent for run_dir in run_dirs]))
    if common == Path(common.anchor):
        raise UserError("the runs have no folder in common; say where the report goes with --out FILE")
    return common / name
