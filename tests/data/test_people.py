"""Sex and age are read rightly, however a data set writes them."""

import numpy as np
import pandas as pd
import pytest

from dualview.data.people import ages, ages_at, is_age, is_sex, plausible_years, sexes


@pytest.mark.parametrize(
    ("text", "years", "is_implausible"),
    [
        ("61", "61", False), ("61.0", "61", False), ("061Y", "61", False), ("000Y", "0", False), ("018M", "1", False),
        ("023M", "1", False), ("024M", "2", False), ("005D", "0", False), ("052W", "0", False), ("90+", "90", False),
        (">89", "90", False), ("", "", False), ("adult", "", False), ("120", "120", False), ("121", "", True),
        ("414", "", True), ("-1", "", True), ("59.9", "59", False),
    ],
)  # fmt: skip
def test_ages_are_whole_years_that_somebody_can_have(text, years, is_implausible):
    read, implausible = ages(pd.Series([text, "61"]))
    assert read.tolist() == [years, "61"]
    assert implausible.tolist() == [is_implausible, False]
    expected = [float(years) if years and text != "59.9" else np.nan, 61]
    if text not in ("59.9", "018M", "023M", "005D", "052W"):
        np.testing.assert_allclose(plausible_years(np.array([text, "61"])), expected, atol=0.01)


def test_sexes_have_one_form():
    read = sexes(pd.Series(["M", "male", " Female ", "F", "O", "Unknown", "", "nan", "X"]))
    assert read.tolist() == ["M", "M", "F", "F", "O", "", "", "", ""]


def test_a_birthday_counts_from_its_day_on():
    dates = pd.Series(["20110819", "20110820", "20110821", "", "201108", "20110820"])
    born = pd.Series(["19550820", "19550820", "19550820", "19550820", "19550820", ""])
    assert ages_at(dates, born=born).tolist() == ["55", "56", "56", "", "", ""]


def test_columns_are_known_by_their_names():
    assert all(map(is_age, ["age", "Age", "PatientAge", "patient_age", "Age at study", "age_years"]))
    assert not any(
        map(is_age, ["stage", "image", "age_group", "language", "dosage", "AgeBand", "AgeMonths", "age_in_days"])
    )
    assert is_sex("Patient Sex") and is_sex("gender") and not is_sex("essex")
