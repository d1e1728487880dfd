"""From a configuration to the studies of each split and a reader of their images."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from dualview.config import DataConfig, SourceConfig
from dualview.config.uses import SOURCES
from dualview.data.images.files import FileReader, ImageReader
from dualview.data.images.picture import Picture
from dualview.data.images.sample import Sample, darkness, look_at, spread_paths
from dualview.data.images.store import StoreImages, StoreSettings
from dualview.data.remarks import Remark
from dualview.data.shared_patients import equal_identifiers, refuse_other_forms, strictest_given
from dualview.data.sources.image_rows import SourceTable
from dualview.data.sources.readers import read_source
from dualview.data.sources.vocabularies import XRV
from dualview.data.splits import SPLITS, first_in_line, given_splits, places_in_line, split_names
from dualview.data.table import StudyTable, concatenate
from dualview.errors import UserError
from dualview.views import Availability, View

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Studies of each split and how their images are read."""

    train: StudyTable
    val: StudyTable
    test: StudyTable
    read: ImageReader
    files: FileReader | None  # reader of the image files; None where images are not files
    sources: tuple[SourceTable, ...]
    whole_splits: dict[str, StudyTable]  # split -> all its studies, also those that training leaves out

    @property
    def splits(self) -> dict[str, StudyTable]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def with_findings(self, findings: Sequence[str]) -> "Data":
        """The same studies with these findings; see `StudyTable.with_findings`."""
        train, val, test = (table.with_findings(findings) for table in self.splits.values())
        whole = {name: table.with_findings(findings) for name, table in self.whole_splits.items()}
        return replace(self, train=train, val=val, test=test, whole_splits=whole)


def load_data(config: DataConfig, *, seed: int, store: Path | None = None) -> Data:
    """Read the study tables of the configured sources and divide each by patient. No image is read yet.

    With several sources, findings are the union of theirs, patients and images carry the name of
    their source, and what a source does not label is unknown there. With `data.shared_patients`, studies carry
    that name instead of patients, who are divided once. Policies for uncertain labels
    act on the training split; in val and test an uncertain label is unknown. Of the training split the
    patients of `data.split.max_train_patients` are taken, and of these the studies of `data.train_on`.

    Args:
        store: folder of a whole image store to read from instead of the files (`data.store`, or a staged copy).

    Raises:
        UserError: problems of a source, an empty split, or a stale store.
    """
    config = config.effective
    sources = read_sources(config, seed=seed)
    try:
        return _divided(sources, config=config, seed=seed, store=store)
    except UserError as error:
        error.account = error.account or tuple(sources)
        raise


def read_sources(config: DataConfig, *, seed: int) -> list[SourceTable]:
    """The studies of every configured source.

    Raises:
        UserError: the problems of all sources together.
    """
    sources: list[SourceTable] = []
    errors: list[UserError] = []
    for source in config.all_sources:
        try:
            sources.append(read_source(source, data=config, seed=seed))
        except UserError as error:
            errors.append(error)
    if errors:
        problem = UserError("\n".join(map(str, errors)))
        problem.details = [line for error in errors for line in error.details]
        problem.account = (*sources, *(account for error in errors for account in error.account or ()))
        raise problem
    return sources


def _divided(sources: list[SourceTable], *, config: DataConfig, seed: int, store: Path | None) -> Data:
    """The studies of the sources in their splits; see `load_data`."""
    read = image_reader(sources, config=config)
    tables = [_weighted(source.table, section) for source, section in zip(sources, config.all_sources, strict=True)]
    identifiers = [table.patient_ids for table in tables]
    if len(sources) > 1:
        tables = [with_source_name(table, source.name, shared=config.shared_patients)
                  for table, source in zip(tables, sources, strict=True)]  # fmt: skip
        sources = [replace(source, table=table) for source, table in zip(sources, tables, strict=True)]
    names, remarks = names_of_splits(tables, config=config, seed=seed)
    if not config.shared_patients:
        remarks = equal_identifiers(identifiers, names=names)
    sources = [replace(source, remarks=(*source.remarks, *more)) for source, more in zip(sources, remarks, strict=True)]
    parts = [{name: table.select(np.flatnonzero(of_table == name)) for name in SPLITS}
             for table, of_table in zip(tables, names, strict=True)]  # fmt: skip
    trains = [splits["train"] for splits in parts]
    # Patients who stand in several sources stand in line once.
    lines = [concatenate(trains)] if config.shared_patients else trains
    places = [places_in_line(train, seed=seed, number=number) for number, train in enumerate(lines)]
    for number, (splits, section) in enumerate(zip(parts, config.all_sources, strict=True)):
        splits["train"] = with_policies(splits["train"], source=section, seed=seed, number=number)
    whole = {name: _merged([splits[name] for splits in parts], config=config) for name in SPLITS}
    merged = {**whole, "train": _to_train_on(whole["train"], places=np.concatenate(places), config=config)}
    read, files = stored_reader(read, merged, sources=sources, config=config, store=store)
    return Data(**merged, read=read, files=files, sources=tuple(sources), whole_splits=whole)


def stored_reader(
    read: ImageReader,
    tables: Mapping[str, StudyTable],
    *,
    sources: list[SourceTable],
    config: DataConfig,
    store: Path | None,
) -> tuple[ImageReader, FileReader | None]:
    """The reader of the store where there is one, else of the files; and that of the files, None where there are none.

    Raises:
        UserError: the store is not of these images and settings.
    """
    files = read if isinstance(read, FileReader) else None
    if store is None:
        return read, files
    images = StoreImages(store)
    images.refuse_if_stale(
        [path for table in tables.values() for view in View for study in table.images[view] for path in study],
        settings=store_settings(config),
        reader=files if all(source.check_files for source in config.all_sources) else None,
    )
    return images, files


def look_at_sources(data: Data) -> dict[str, Sample]:
    """Source -> a look at some of its images, from the store where there is one; none where images are not files."""
    reader = data.read if isinstance(data.read, StoreImages) else data.files
    if reader is None:
        return {}
    return {source.name: look_at(spread_paths(source.table.images), read=reader.picture) for source in data.sources}


def too_dark(samples: dict[str, Sample], config: DataConfig) -> list[str]:
    """What to say of each source whose images are too dark to be true, and that does not say which value is white."""
    key = "intensity_max in its entry of data.sources" if config.sources else "data.intensity_max"
    unsaid = [source.called for source in config.all_sources if source.intensity_max is None]
    said = [darkness(sample, source=name, key=key) for name, sample in samples.items() if name in unsaid]
    return [text for text in said if text is not None]


def store_settings(config: DataConfig) -> StoreSettings:
    """What the pixels of the configured store depend on."""
    intensity_max = {
        source.called: source.intensity_max for source in config.all_sources if source.intensity_max is not None
    }
    return StoreSettings(
        image_size_px=config.image_size_px, bits=config.store_bits, aspect=config.aspect, intensity_max=intensity_max
    )


def with_policies(table: StudyTable, *, source: SourceConfig, seed: int, number: int = 0) -> StudyTable:
    """The table with uncertain labels made into what the source's policies say (uncertain.py).

    Smoothed labels are a function of (seed, number of the source, position in the table).
    """
    if table.uncertain is None:
        return table
    labels, label_mask = table.labels.copy(), table.label_mask.copy()
    drawn = np.random.default_rng([seed, 3, number]).random(table.labels.shape, dtype=np.float32)
    for k, finding in enumerate(table.findings):
        bounds = source.uncertain_policy(finding).bounds
        if bounds is not None:
            rows = table.uncertain[:, k]
            labels[rows, k] = bounds[0] + (bounds[1] - bounds[0]) * drawn[rows, k]
            label_mask[rows, k] = True
    return replace(table, labels=labels, label_mask=label_mask, uncertain=table.uncertain & ~label_mask)


def _weighted(table: StudyTable, source: SourceConfig) -> StudyTable:
    return table if source.weight == 1 else replace(table, weight=np.full(len(table), source.weight, np.float32))


def names_of_splits(
    tables: list[StudyTable], *, config: DataConfig, seed: int
) -> tuple[list[np.ndarray], list[tuple[Remark, ...]]]:
    """For each source (S,) the split of each of its studies, and what is remarkable about its patients.

    Raises:
        UserError: a split that was asked for is empty, or a patient is in two.
    """
    given = []
    for table, section in zip(tables, config.all_sources, strict=True):
        has_column = "split.column" in SOURCES[section.source]
        split = config.split if has_column else config.split.model_copy(update={"column": None})
        given.append(given_splits(table, config=split))
    if not config.shared_patients:
        names = [split_names(table, given=of_table, config=config.split, seed=seed)
                 for table, of_table in zip(tables, given, strict=True)]  # fmt: skip
        return names, [() for _ in tables]
    together = concatenate(tables)
    if any(section.identifiers != "exact" for section in config.all_sources):
        refuse_other_forms(together.patient_ids)
    strictest, remarks = strictest_given(together.patient_ids, given=np.concatenate(given))
    names_together = split_names(together, given=strictest, config=config.split, seed=seed)
    ends = np.cumsum([len(table) for table in tables])
    return np.split(names_together, ends[:-1]), [remarks, *[()] * (len(tables) - 1)]


def with_source_name(table: StudyTable, name: str, *, shared: bool) -> StudyTable:
    """The table with its source's name before every image, and before every patient, as several may use the same.

    Args:
        shared: equal patients are the same people; then the name stands before every study instead.
    """
    prefix = f"{name}:"
    images = []
    for view in View:
        named = np.empty(len(table), object)
        for row, paths in enumerate(table.images[view]):
            named[row] = tuple(prefix + path for path in paths)
        images.append(named)
    return replace(
        table,
        patient_ids=table.patient_ids if shared else prefix + table.patient_ids,
        study_ids=prefix + table.study_ids if shared else table.study_ids,
        images=(images[View.PA], images[View.LATERAL]),
        attributes={**table.attributes, "source": np.full(len(table), name, object)},
    )


class SeveralSources:
    """Reader of paths that begin with the name of their source."""

    def __init__(self, readers: dict[str, FileReader]) -> None:
        self.readers = readers

    def __call__(self, path: str) -> Tensor:
        """The image at `NAME:path`; raises as the source's own reader does."""
        reader, within = self._reader(path)
        return reader(within)

    def unit(self, path: str) -> Tensor:
        """The image at `NAME:path` in [0, 1], as `FileImages.unit` of the source gives it."""
        reader, within = self._reader(path)
        return reader.unit(within)

    def picture(self, path: str) -> Picture:
        """The image at `NAME:path` as it is decoded."""
        reader, within = self._reader(path)
        return reader.picture(within)

    def unit_of(self, path: str, picture: Picture) -> Tensor:
        """The `picture` of this path as `unit` gives it."""
        reader, within = self._reader(path)
        return reader.unit_of(within, picture)

    def file(self, path: str) -> Path:
        """Where the image at `NAME:path` is."""
        reader, within = self._reader(path)
        return reader.file(within)

    def _reader(self, path: str) -> tuple[FileReader, str]:
        name, _, within = path.partition(":")
        return self.readers[name], within


def image_reader(sources: list[SourceTable], *, config: DataConfig) -> ImageReader:
    """Reader of the images of all sources."""
    readers = {
        source.name: source.open_images(image_size_px=config.image_size_px, aspect=config.aspect) for source in sources
    }
    if len(readers) == 1:
        return readers[sources[0].name]
    files = {name: reader for name, reader in readers.items() if isinstance(reader, FileReader)}
    assert len(files) == len(readers)  # DataConfig does not mix phantoms with other data.
    return SeveralSources(files)


def _merged(tables: list[StudyTable], *, config: DataConfig) -> StudyTable:
    table = concatenate(tables) if len(tables) > 1 else tables[0]
    if all(source.vocabulary == "xrv" and not source.findings for source in config.all_sources):
        return table.with_findings(XRV)
    return table


def _to_train_on(train: StudyTable, *, places: np.ndarray, config: DataConfig) -> StudyTable:
    """What is trained on: of the first patients in line, the studies of the wanted kinds.

    Raises:
        UserError: no training study is left.
    """
    kept = np.ones(len(train), bool)
    if config.split.max_train_patients is not None:
        kept &= first_in_line(train, places=places, num_patients=config.split.max_train_patients)
    if config.train_on:
        kept &= np.isin(train.availability, [Availability[kind.upper()] for kind in config.train_on])
    if not kept.any():
        raise UserError(
            f"data.train_on is {', '.join(config.train_on)}, and no study of the train split is of this kind, with "
            f"data.split.max_train_patients {config.split.max_train_patients}; the split has {len(train)} studies"
        )
    return train if kept.all() else train.select(np.flatnonzero(kept))


def check_labels(train: StudyTable) -> None:
    """Raises: UserError where no finding has both classes; findings with one class are named in the log."""
    one_class = []
    positive = train.positive
    for k, finding in enumerate(train.findings):
        num_positive = int(positive[:, k].sum())
        num_negative = int(train.label_mask[:, k].sum()) - num_positive
        if not num_positive or not num_negative:
            one_class.append(f"{finding} ({num_positive} positive, {num_negative} negative)")
    if len(one_class) == len(train.findings):
        raise UserError(
            f"no finding has both positive and negative studies in the training split: {', '.join(one_class)}. "
            "There is nothing to learn; check data.findings and the table"
        )
    if one_class:
        logger.warning("one class only in the training split: %s; nothing can be learned of it", ", ".join(one_class))
