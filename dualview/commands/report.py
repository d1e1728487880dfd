"""`dualview report RUN ...`: evaluated runs as one HTML file that opens offline.

Of trainings of one network with several seeds it is the page of the first, with what all of them gain.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from dualview.errors import UserError
from dualview.files import write_whole
from dualview.report.failures import key_of_failures
from dualview.report.page import render
from dualview.report.pictures import ImageRequest, draw
from dualview.report.record import OWN_TEST, Record, read_records
from dualview.report.seeds import Seeds, all_seeds, why_not_seeds
from dualview.run.directory import EvaluationDir, RunDir

logger = logging.getLogger(__name__)


def write_report(
    run_dirs: Sequence[Path],
    *,
    out: Path | None = None,
    images: ImageRequest | None = None,
    evaluation: str = OWN_TEST,
    are_seeds: bool = False,
) -> Path:
    """Write the page of one or several evaluated runs, and beside each evaluation who its wrong answers are.

    Gives the path of the page.

    Several runs that differ in `run.seed` alone, and were tested on the same studies, make one page whose gains are
    over seeds and patients; any others stand side by side.

    Args:
        out: file to write; without it `report.html` in the run, or in the folder that all runs have in common; of
            another evaluation of one run beside that.
        images: which studies to show with Grad-CAM; None shows no image.
        evaluation: folder in each run whose evaluation is shown.
        are_seeds: whether the runs must be trainings of one network with several seeds.

    Raises:
        UserError: a run without an evaluation, with `images` data that cannot be read, or with `are_seeds` runs that
            differ in more than the seed; nothing is written.
    """
    records = read_records(run_dirs, evaluation=evaluation)
    if images is not None and any(record.evaluation.external for record in records):
        raise UserError("--images shows studies of the run's own test; there are none of other data: leave it out")
    over_seeds = _over_seeds(records, are_seeds=are_seeds)
    if over_seeds is not None:
        logger.info("%s", over_seeds.sentence)
        records = records[:1]
    file = out or _default_file(run_dirs, evaluation=evaluation)
    pictures = {record.name: draw(record, request=images) for record in records} if images is not None else {}
    page = render(records, pictures=pictures, over_seeds=over_seeds)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, page)
    for record in records:
        try:
            write_whole(record.folder.wrong_answers, key_of_failures(record))
        except OSError as error:  # Runs that others have made may be there to read only.
            logger.warning("%s cannot be written: %s", record.folder.wrong_answers, error.strerror or error)
    return file


def _over_seeds(records: list[Record], *, are_seeds: bool) -> Seeds | None:
    """The runs as trainings of one network, where all of them are."""
    if are_seeds:
        return all_seeds(records)
    if len(records) < 2:
        return None
    if problems := why_not_seeds(records):
        logger.info("side by side, and no gain is over seeds: %s", "; ".join(problems))
        return None
    return all_seeds(records)


def _default_file(run_dirs: Sequence[Path], *, evaluation: str) -> Path:
    name = RunDir(Path()).report.name if evaluation == OWN_TEST else f"report-{evaluation}.html"
    if len(run_dirs) == 1:
        run = RunDir(run_dirs[0])
        return run.report if evaluation == OWN_TEST else EvaluationDir(run.path / evaluation).report
    common = Path(os.path.commonpath([run_dir.resolve().parent for run_dir in run_dirs]))
    if common == Path(common.anchor):
        raise UserError("the runs have no folder in common; say where the report goes with --out FILE")
    return common / name
