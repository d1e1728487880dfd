"""`dualview predict`: a CSV or folder of studies through a trained network, into a CSV of answers."""

import itertools
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dualview.config import DataConfig, SeveralImages
from dualview.data.images.files import FileImages
from dualview.data.images.sample import NUM_IMAGES, darkness, look_at, spread_paths
from dualview.data.remarks import Remark, count_remarks, sum_remarks
from dualview.distributed import is_main_by_environment, start
from dualview.errors import Preempted, UserError
from dualview.evaluation.operating_points import OperatingPoints
from dualview.files import sha256_of
from dualview.inference.csv_parts import Counts, Fingerprint, Parts
from dualview.inference.ensemble import MEMBERS, SPREAD, ensemble_id, refuse_unlike_members
from dualview.inference.predictor import (
    BATCH_SIZE,
    NOT_FINITE,
    VIEWS_USED,
    Predictor,
    find_ensemble,
    points_file,
    read_points_of,
    several_images_of,
)
from dualview.inference.studies import ReadBatch, StudyRequest, request_loader
from dualview.inference.studies_csv import RequestCsv
from dualview.inference.studies_folder import list_studies
from dualview.progress import progress_bars
from dualview.run.directory import RunDir
from dualview.run.resume import SEVERAL_IMAGES_KEY, with_overrides
from dualview.run.trained import TrainedNetwork, load_trained
from dualview.views import Availability, View

logger = logging.getLogger(__name__)

MOST_STUDIES_PASSED = 5000  # number of studies over which the images that are looked at are spread
CHUNK_STUDIES = 256  # number of studies in a part of the CSV, all that an interruption can lose per rank
Row = list[str]  # cells of a row of the CSV


@dataclass(frozen=True, kw_only=True)
class PredictionResult:
    """What `predict` has done."""

    out: Path
    counts: Counts | None  # what was counted; None on ranks other than 0
    was_there: bool  # whether the CSV was complete already
    remarks: tuple[Remark, ...] = ()  # what was odd about images that were read now


def predict(
    run_dirs: Path | Sequence[Path],
    *,
    overrides: Sequence[str] = (),
    csv: Path | None = None,
    folder: Path | None = None,
    root: Path | None = None,
    out: Path,
    checkpoint: str = "best",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    batch_size: int = BATCH_SIZE,
    num_workers: int | None = None,
    intensity_max: float | None = None,
    overwrite: bool = False,
) -> PredictionResult:
    """Predict every study of a CSV or a folder; all processes of a job call.

    Studies go by in chunks of `CHUNK_STUDIES`. Each is predicted by one process, in batches of one availability, and
    written as one part, so that neither the number of processes nor an interruption changes the CSV.

    Args:
        run_dirs: of the training; of several the logits of each route are averaged (inference/ensemble.py).
        overrides: `data.several_images_at_test=...` in another way than that of the operating points.
        csv, folder: one of them; see inference/studies_csv.py and inference/studies_folder.py.
        root: folder that the paths of `csv` are relative to; without it that of the CSV.
        out: the CSV to write: study, views used, per finding probability and decision, reason; of several networks
            also how many have judged, and per finding the spread of their logits.
        checkpoint: `best`, `last` or a step.
        batch_size: studies per forward pass.
        num_workers: processes that read images for each rank; without it as in the training, at most one per core.
        intensity_max: the stored value that is white (`data.intensity_max`); None: as in training.
        overwrite: replace a CSV of other content at `out`.

    Raises:
        UserError: no run, problems of the input, or an `out` that was made from something else.
        Preempted: a rank was told to stop; the chunks that are done are kept.
    """
    _check_options(csv=csv, folder=folder, root=root, intensity_max=intensity_max)
    run_dirs = [run_dirs] if isinstance(run_dirs, Path) else run_dirs
    networks = [load_trained(RunDir(run_dir), name=checkpoint) for run_dir in run_dirs]
    refuse_unlike_members(networks)
    config = networks[0].config
    points, log_pos_weights = read_points_of(networks, warn=is_main_by_environment())
    several = _several_images(networks, points=points, overrides=overrides)
    asked = _open_input(
        csv or folder, is_table=csv is not None, root=root, config=config.data, takes_all=several != "first"
    )
    num_studies = asked.num_studies
    fingerprint = _fingerprint(networks) | {
        "input": asked.identity, "root": str(asked.root.resolve()), "batch size": batch_size,
        **({} if intensity_max is None else {"intensity max": intensity_max}),
        **({} if several == "first" else {"several images of a view": several}),
    }  # fmt: skip
    num_workers = min(config.data.num_workers, os.cpu_count() or 1) if num_workers is None else num_workers

    with start(config.run.model_copy(update={"device": device}), distributed=config.distributed) as job:
        if len(job.gather_texts([json.dumps(fingerprint)])) > 1:
            raise UserError("the processes do not see the same input and run; put both on a disk that all share")
        parts = Parts(out, fingerprint=fingerprint)
        there = parts.claim(overwrite=overwrite) if job.is_main else None
        if job.share(there is not None):
            return PredictionResult(out=out, counts=there, was_there=True)
        num_chunks = -(-num_studies // CHUNK_STUDIES)
        done = set(job.share(parts.done()))
        to_do = [number for number in range(num_chunks) if number not in done]
        if job.is_main:
            logger.info(
                "%s, on %s: %d studies%s",
                ", ".join(f"{one.config.model.name}, checkpoint of step {one.step}" for one in networks),
                job.device.type, num_studies,
                f", {len(done)} of {num_chunks} parts are there" if done else "",
            )  # fmt: skip
        predictor = Predictor(
            networks, points=points, device=job.device, several_images_at_test=several, log_pos_weights=log_pos_weights
        )
        files = predictor.files(root=asked.root, intensity_max=intensity_max)
        if job.is_main:
            _warn_of_darkness(asked, files=files[0])
        rounds = [to_do[first : first + job.world_size] for first in range(0, len(to_do), job.world_size)]
        mine = [numbers[job.rank] for numbers in rounds if job.rank < len(numbers)]
        loader = request_loader(
            predictor.dataset(files=files),
            batches=_Batches(asked.studies, chunks=mine, batch_size=batch_size),
            num_workers=num_workers if mine else 0,
            pin_memory=job.device.type == "cuda",
        )
        remarks: list[Remark] = []
        answered = _chunks(
            loader, predictor=predictor, chunks=mine, num_studies=num_studies, has_patients=asked.has_patients,
            remarks=remarks, batch_size=batch_size,
        )  # fmt: skip
        with progress_bars(shown=job.is_main) as progress:
            sizes = {number: _chunk_size(number, num_studies=num_studies) for number in range(num_chunks)}
            bar = progress.add_task("predicting", total=num_studies, completed=sum(sizes[number] for number in done))
            for numbers in rounds:
                # Every rank goes through all rounds (C9), with or without a chunk of its own.
                if job.rank < len(numbers):
                    parts.write(*next(answered))
                if job.sum_numbers([job.stop_requested])[0] and numbers is not rounds[-1]:
                    raise Preempted(f"stopped by a signal; the studies done so far are kept beside {out}")
                progress.advance(bar, sum(sizes[number] for number in numbers))
        job.barrier()
        counts = None
        if job.is_main:
            header = _header(predictor, has_patients=asked.has_patients)
            counts = parts.join(num_parts=num_chunks, header=header)
        job.barrier()
        everyones = job.gather_texts([json.dumps([job.rank, vars(remark)]) for remark in remarks])
        told = sum_remarks(Remark(**json.loads(text)[1]) for text in everyones)
        return PredictionResult(out=out, counts=counts, was_there=False, remarks=told)


def _check_options(*, csv: Path | None, folder: Path | None, root: Path | None, intensity_max: float | None) -> None:
    """Raises: UserError for options that do not go together, or mean nothing."""
    if (csv is None) == (folder is None):
        raise UserError("give either --csv or --folder")
    if folder is not None and root is not None:
        raise UserError("--root goes with --csv; the paths of --folder are its own")
    if intensity_max is not None and not 0 < intensity_max < math.inf:
        raise UserError(f"--intensity-max is {intensity_max:g}; give the stored value that is white, such as 4095")


@dataclass(frozen=True, kw_only=True)
class _Input:
    """The studies that are asked about."""

    studies: Iterable[StudyRequest]  # can be gone through again and again
    num_studies: int
    identity: str  # what changes when the input does
    root: Path  # folder that paths are relative to
    has_patients: bool


def _several_images(
    networks: Sequence[TrainedNetwork], *, points: OperatingPoints | None, overrides: Sequence[str]
) -> SeveralImages:
    """What counts of several images of a view: as is asked for, else as for the operating points, or in training.

    Raises:
        UserError: another override, or a value that is none.
    """
    if others := [override for override in overrides if override.partition("=")[0] != SEVERAL_IMAGES_KEY]:
        raise UserError(
            f"{', '.join(others)}: predict takes run directories and {SEVERAL_IMAGES_KEY}=first, mean or max; where "
            "the images are say --csv, --folder and --root"
        )
    if overrides:
        return with_overrides(networks[0].config, list(overrides)).data.several_images_at_test
    return several_images_of(networks, points=points)


def _open_input(path: Path | None, *, is_table: bool, root: Path | None, config: DataConfig, takes_all: bool) -> _Input:
    """Read a CSV once for what is wrong with it, or list a folder.

    Raises:
        UserError: problems of the input.
    """
    assert path is not None
    if not is_table:
        studies, listing = list_studies(path, sources=config.all_sources, takes_all=takes_all)
        identity = f"{path.resolve()} {listing}"
        return _Input(studies=studies, num_studies=len(studies), identity=identity, root=path, has_patients=False)
    table = RequestCsv(path, source=config)
    return _Input(
        studies=table, num_studies=table.check(), identity=_file_identity(path), root=root or path.parent,
        has_patients=table.has_patients,
    )  # fmt: skip


def _warn_of_darkness(asked: _Input, *, files: FileImages) -> None:
    """Look at images among the first studies, and say so where most are too dark to be true."""
    if files.intensity_max is not None:
        return
    num_studies = min(asked.num_studies, MOST_STUDIES_PASSED)
    looked = list(itertools.islice(asked.studies, 0, num_studies, max(num_studies // NUM_IMAGES, 1)))
    columns = (np.empty(len(looked), object), np.empty(len(looked), object))
    for view in View:
        for row, study in enumerate(looked):
            columns[view][row] = () if study.images[view] is None else (study.images[view],)
    sample = look_at(spread_paths(columns), read=files.picture)
    key = "--intensity-max (data.intensity_max in training)"
    if text := darkness(sample, source="images to predict", key=key):
        logger.warning(text)


class _Batches:
    """The studies of some chunks, in batches of one availability; reads its input anew for every pass."""

    def __init__(self, studies: Iterable[StudyRequest], *, chunks: list[int], batch_size: int) -> None:
        self.studies = studies
        self.chunks = chunks
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[StudyRequest]]:
        chunks, studies = set(self.chunks), iter(self.studies)
        for number in itertools.count():
            chunk = list(itertools.islice(studies, CHUNK_STUDIES))
            if not chunk or not chunks:
                return
            if number not in chunks:
                continue
            chunks.remove(number)
            for kind in (*Availability, None):
                same_kind = [study for study in chunk if _kind(study) == kind]
                for first in range(0, len(same_kind), self.batch_size):
                    yield same_kind[first : first + self.batch_size]


def _kind(study: StudyRequest) -> Availability | None:
    return Availability.of(study.view_mask) if any(study.view_mask) else None


def _chunk_size(number: int, *, num_studies: int) -> int:
    return min(CHUNK_STUDIES, num_studies - number * CHUNK_STUDIES)


def _chunks(
    batches: Iterable[ReadBatch],
    *,
    predictor: Predictor,
    chunks: list[int],
    num_studies: int,
    has_patients: bool,
    remarks: list[Remark],
    batch_size: int,
) -> Iterator[tuple[int, list[Row]]]:
    """The number of each of these chunks with its rows, in the order of the input; `remarks` takes what was odd."""
    batches = iter(batches)
    for number in chunks:
        rows: dict[int, Row] = {}
        while len(rows) < _chunk_size(number, num_studies=num_studies):
            read = next(batches)
            if read.errors:
                raise UserError(read.errors[0])
            remarks[:] = sum_remarks([*remarks, *count_remarks(read.remarks)])
            answered = _rows(read, predictor=predictor, batch_size=batch_size)
            for study, row in zip(read.studies, answered, strict=True):
                rows[study.row] = [study.study, *([study.patient] if has_patients else []), *row]
        yield number, [rows[row] for row in sorted(rows)]


def _rows(read: ReadBatch, *, predictor: Predictor, batch_size: int) -> list[Row]:
    """What `_header` names, from the views used to the reason, of the studies of a batch."""
    is_ensemble = predictor.is_ensemble
    blank = [""] * (len(_header(predictor, has_patients=False)) - 2)
    rows = [[*blank, reason] for reason in read.reasons]
    answers = predictor.answer(read.images, batch_size=batch_size)
    for n, position in enumerate(read.served):
        if not answers.is_finite[n]:
            rows[position] = [*blank, NOT_FINITE]
            continue
        row = [VIEWS_USED[Availability(answers.availability[n])]]
        row += [str(answers.num_members[n])] * is_ensemble
        for k in range(len(predictor.findings)):
            row.append(f"{answers.probabilities[n, k]:.6g}")
            row.append(str(int(answers.decisions[n, k])) if answers.decided[n, k] else "")
            if is_ensemble:
                row.append(f"{answers.spread[n, k]:.6g}" if np.isfinite(answers.spread[n, k]) else "")
        rows[position] = [*row, read.reasons[position]]
    return rows


def _header(predictor: Predictor, *, has_patients: bool) -> list[str]:
    members, spread = ([MEMBERS], [SPREAD]) if predictor.is_ensemble else ([], [])
    columns = [name for finding in predictor.findings
               for name in (finding, *(f"{finding}_{what}" for what in ("decision", *spread)))]  # fmt: skip
    return ["study", *(["patient"] if has_patients else []), "views", *members, *columns, "reason"]


def _fingerprint(networks: Sequence[TrainedNetwork]) -> Fingerprint:
    """What of the runs the answers depend on."""
    if len(networks) == 1:
        points = points_file(networks[0])
    else:
        home = find_ensemble(networks) or networks[0].run.ensemble(ensemble_id(networks))
        points = home.operating_points
    return {
        "format": 1,
        "checkpoint": " and ".join(network.weights_sha256 for network in networks),
        "operating points": sha256_of(points) if points.exists() else None,
        "chunk": CHUNK_STUDIES,
    }


def _file_identity(file: Path) -> str:
    state = file.stat()
    return f"{file.resolve()}, {state.st_size} bytes, changed at {state.st_mtime_ns} ns"
