"""Who the patients of MIMIC-CXR are, from MIMIC-IV (Johnson et al. 2023, doi:10.1038/s41597-022-01899-x).

patients.csv(.gz) has subject_id, gender, and a pair of anchor_age and anchor_year: the age in another year is as many
years more or less. admissions.csv(.gz) has a row per stay, with admittime, dischtime, race (in version 1.0
`ethnicity`) and insurance. Dates are shifted by patient, in MIMIC-CXR by as much as in MIMIC-IV.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from dualview.data.people import ages, sexes
from dualview.data.sources.text_table import text_table

HINT = "Is it MIMIC-IV's own table?"


def demographics(
    table: pd.DataFrame, *, folder: Path
) -> tuple[dict[str, "pd.Series[str]"], "pd.Series[bool]", "pd.Series[bool]"]:
    """Attribute -> text per row, of those for which a table lies in the folder; who is in no such table; and whose age
    nobody has.

    Args:
        table: has `subject_id` and `StudyDate` (yyyymmdd).
    """
    attributes: dict[str, pd.Series[str]] = {}
    is_unknown, is_implausible = (pd.Series(False, index=table.index) for _ in range(2))
    if (patients := _beside(folder, "patients")) is not None:
        columns = ["subject_id", "gender", "anchor_age", "anchor_year"]
        known = text_table(patients, columns=columns, hint=HINT).drop_duplicates("subject_id").set_index("subject_id")
        of_row = known.reindex(table["subject_id"])
        year = pd.to_numeric(table["StudyDate"].str[:4], errors="coerce").to_numpy()
        anchor_age, anchor_year = (pd.to_numeric(of_row[name], errors="coerce").to_numpy()
                                   for name in ("anchor_age", "anchor_year"))  # fmt: skip
        age = anchor_age + year - anchor_year
        text = [str(int(years)) if np.isfinite(years) else "" for years in age]
        attributes["sex"] = sexes(pd.Series(of_row["gender"].fillna("").to_numpy(), index=table.index))
        attributes["age"], is_implausible = ages(pd.Series(text, index=table.index, dtype=object))
        is_unknown |= of_row["gender"].isna().to_numpy()
    if (admissions := _beside(folder, "admissions")) is not None:
        stays = text_table(
            admissions,
            columns=["subject_id", "admittime", "dischtime", "insurance"],
            optional=["race", "ethnicity"],
            hint=HINT,
        )
        stays = stays.assign(race=stays["race"].where(stays["race"] != "", stays["ethnicity"]))
        of_row = _stay_of_each_row(table, stays)
        for name in ("race", "insurance"):
            attributes[name] = pd.Series(of_row[name].to_numpy(), index=table.index)
    return attributes, is_unknown, is_implausible


def _stay_of_each_row(table: pd.DataFrame, stays: pd.DataFrame) -> pd.DataFrame:
    """Race and insurance of the stay that holds the date of each row's study, else of the last that began before.

    Blank where there is neither.
    """
    rows = pd.DataFrame({"row": np.arange(len(table)), "subject_id": table["subject_id"].to_numpy(),
                         "day": table["StudyDate"].str[:8].to_numpy()})  # fmt: skip
    studies = rows.drop_duplicates(["subject_id", "day"])
    stays = stays.assign(begin=_day(stays["admittime"]), end=_day(stays["dischtime"]))
    pairs = studies.drop(columns="row").merge(stays, on="subject_id")
    pairs = pairs[pairs["begin"] <= pairs["day"]]
    pairs = pairs.assign(holds=pairs["day"] <= pairs["end"]).sort_values(["holds", "begin"], kind="stable")
    last = pairs.drop_duplicates(["subject_id", "day"], keep="last")[["subject_id", "day", "race", "insurance"]]
    return rows.merge(last, on=["subject_id", "day"], how="left").sort_values("row")[["race", "insurance"]].fillna("")


def _day(times: "pd.Series[str]") -> "pd.Series[str]":
    """yyyymmdd of texts such as 2180-05-06 22:23:00."""
    return times.str[:10].str.replace("-", "")


def _beside(folder: Path, name: str) -> Path | None:
    return next((path for gz in ("", ".gz") if (path := folder / f"{name}.csv{gz}").is_file()), None)
