"""One reader per data set: from its files as they come to a `SourceTable`."""

from dualview.config import SourceConfig, SplitConfig
from dualview.data.sources import chexpert, covid_cxr, csv_table, dicom_folder, mimic_cxr, openi, padchest
from dualview.data.sources.image_rows import SourceTable

READERS = {
    "covid_cxr": covid_cxr.read,
    "padchest": padchest.read,
    "mimic_cxr": mimic_cxr.read,
    "chexpert": chexpert.read,
    "openi": openi.read,
    "dicom": dicom_folder.read,
}


def read_source(source: SourceConfig, *, split: SplitConfig) -> SourceTable:
    """The studies of one source.

    Raises:
        UserError: all problems of its files together.
    """
    if source.source == "csv":
        return csv_table.read(source, split_column=split.column)
    return READERS[source.source](source)
