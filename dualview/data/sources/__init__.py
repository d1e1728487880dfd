"""One reader per data set: from its files as they come to a `SourceTable`."""

from dualview.config import SourceConfig, SplitConfig
from dualview.data.sources import chexpert, covid_cxr, csv_table, dicom_folder, mimic_cxr, openi, padchest
from dualview.data.sources.cohort import drop_rare_findings, select
from dualview.data.sources.image_rows import SourceTable

READERS = {
    "covid_cxr": covid_cxr.read,
    "padchest": padchest.read,
    "mimic_cxr": mimic_cxr.read,
    "chexpert": chexpert.read,
    "openi": openi.read,
    "dicom": dicom_folder.read,
}
BY_NAMES = ("padchest", "openi")  # label their studies by names, which rules of `data.cohort` look at before


def read_source(source: SourceConfig, *, split: SplitConfig) -> SourceTable:
    """The studies of one source that `data.cohort` leaves.

    Raises:
        UserError: all problems of its files together.
    """
    if source.source == "csv":
        table = csv_table.read(source, split_column=split.column)
    else:
        table = READERS[source.source](source)
    if source.source not in BY_NAMES:
        table = select(table, cohort=source.cohort)
    return drop_rare_findings(table, min_positive_patients=source.min_positive_patients)
