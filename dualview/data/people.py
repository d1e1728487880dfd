"""Sex and age of patients as data sets write them, in one form."""

import re

import numpy as np
import pandas as pd

OLDEST = 120  # years; older ages are mistakes of typing, as are ages below 0
IMPLAUSIBLE = f"age is below 0 or above {OLDEST} and is taken as not known"
SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "o": "O", "other": "O"}
"""What stands for a sex, in lower case -> M, F or O as in DICOM (PS3.3, C.7.1.1, PatientSex)."""
AGE = re.compile(r"(>?)\s*(-?\d+(?:\.\d+)?)\s*([YMWD]?)\s*(\+?)", re.IGNORECASE)
NOT_YEARS = {"group", "band", "range", "class", "category", "month", "months", "week", "weeks", "day", "days"}
"""Words beside age in the name of a column that does not hold years."""
DAYS = {"Y": 365.25, "M": 30.4375, "W": 7.0, "D": 1.0}  # of a unit of DICOM's age strings (PS3.5, 6.2, AS)


def is_age(column: str) -> bool:
    """Whether a column of this name holds ages in years.

    >>> is_age("Patient Age"), is_age("age_years"), is_age("age_months"), is_age("stage")
    (True, True, False, False)
    """
    return "age" in _words(column) and not NOT_YEARS & _words(column)


def is_sex(column: str) -> bool:
    """Whether a column of this name holds the sex of patients."""
    return bool({"sex", "gender"} & _words(column))


def _words(column: str) -> set[str]:
    """The words of the name of a column: those of PatientAge, patient_age and "Patient age" are the same."""
    return set(re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column).lower()))


def sex_of(text: str) -> str:
    """M, F, O, or blank where it is not known."""
    return SEXES.get(text.strip().lower(), "")


def years_of(text: str) -> float:
    """Age in years, NaN where the text is none: 61, 061Y, 018M, 90+, >89. May lie outside of what is plausible."""
    found = AGE.fullmatch(text.strip())
    if not found:
        return np.nan
    above, number, unit, _ = found.groups()
    years = float(number) * DAYS[unit.upper() or "Y"] / DAYS["Y"]
    return years + 1 if above else years


def plausible_years(texts: np.ndarray) -> np.ndarray:
    """(N,) float64: ages of (N,) texts in years, NaN where none is known or nobody has such an age."""
    codes, distinct = pd.factorize(texts.astype(str))
    years = np.array([years_of(text) for text in distinct], float)
    return np.where((years >= 0) & (years <= OLDEST), years, np.nan)[codes]


def sexes(texts: "pd.Series[str]") -> "pd.Series[str]":
    """`sex_of` each text."""
    return texts.map({text: sex_of(text) for text in texts.unique()}).astype(object)


def ages(texts: "pd.Series[str]") -> "tuple[pd.Series[str], pd.Series[bool]]":
    """Whole years as text, blank where not known, and which texts are ages that nobody has (`IMPLAUSIBLE`)."""
    years = texts.map({text: years_of(text) for text in texts.unique()}).astype(float)
    is_implausible = (years < 0) | (years > OLDEST)
    known = years.where(~is_implausible)
    whole = known.map(lambda age: f"{np.floor(age):.0f}" if np.isfinite(age) else "").astype(object)
    return whole, is_implausible


def ages_at(dates: "pd.Series[str]", *, born: "pd.Series[str]") -> "pd.Series[str]":
    """Whole years from a birth to a study as text, both YYYYMMDD; blank where one is none."""
    day, birth = (
        pd.to_numeric(column.where(column.str.fullmatch(r"\d{8}"), ""), errors="coerce").astype(float)
        for column in (dates, born)
    )
    # The difference of two numbers YYYYMMDD has the years that are complete in front.
    years: pd.Series[float] = (day - birth) // 10_000
    return years.map(lambda age: f"{age:.0f}" if np.isfinite(age) else "").astype(object)
