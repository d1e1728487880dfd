"""Dates are compared as times, whatever way they are written; the answers are Python's datetimes."""

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualview.config import DataConfig
from dualview.data.sources.dates import NEVER, padded_time, times_of
from dualview.data.sources.readers import read_source
from dualview.errors import UserError

WAYS = [
    "%Y%m%d %H%M%S.%f", "%Y%m%d%H%M%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S.%f",
    "%Y.%m.%d %H:%M:%S.%f", "%Y-%m-%d %I:%M:%S.%f %p", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%S.%f+00:00",
]  # fmt: skip
moments = st.datetimes(datetime(1850, 1, 1), datetime(2300, 1, 1))


@given(times=st.lists(moments, min_size=2, max_size=20), ways=st.lists(st.sampled_from(WAYS), min_size=20, max_size=20))
def test_in_the_order_of_the_moments_whatever_way_they_are_written(times, ways):
    written = [time.strftime(way) for time, way in zip(times, ways, strict=False)]
    order = times_of(written, date_format=None)
    microseconds = [(time - times[0]) // timedelta(microseconds=1) for time in times]
    assert (order - order[0]).tolist() == microseconds, written


@pytest.mark.parametrize("way", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y"])
def test_the_day_is_found_where_the_column_shows_it_and_asked_for_where_not(way):
    days = [datetime(2020, 1, 31), datetime(2020, 3, 4), datetime(2019, 12, 30)]
    written = [day.strftime(way) for day in days]
    assert times_of(written, date_format=None).argsort().tolist() == [2, 0, 1]
    assert times_of(written, date_format=way).argsort().tolist() == [2, 0, 1]
    with pytest.raises(UserError, match=r"can be day and month, or month and day. .*data.date_format=%d/%m/%Y"):
        times_of([written[1]], date_format=None)
    with pytest.raises(UserError, match=r"some dates begin with the day .*, others with the month"):
        times_of(["31/01/2020", "01/31/2020"], date_format=None)


@pytest.mark.parametrize("text", ["2020", "31.1.20", "6 Feb 2020", "43831", "2020-13-01", "20200230", "202011", "soon"])
def test_what_is_no_date_is_refused_with_the_remedy(text):
    with pytest.raises(UserError, match=r"cannot be read: .*data.date_format"):
        times_of([text, "2020-01-01"], date_format=None)
    with pytest.raises(UserError, match=r"not as data\.date_format says, '%d/%m/%Y'"):
        times_of([text], date_format="%d/%m/%Y")


def test_blank_is_last_and_a_day_without_a_time_ends_it():
    texts = ["", "20200101", "20200101 2359", "nan", "20200102 0001", "20200101 00", "20200101 5"]
    order = times_of(texts, date_format=None)
    assert order.argsort(kind="stable").tolist() == [5, 6, 2, 1, 4, 0, 3]
    assert order[0] == order[3] == NEVER


def test_times_that_lost_their_zeros():
    times = pd.Series(["80556.875", "213014.5", "556.875", "0", "", "101"])
    assert padded_time(times).tolist() == ["080556.875", "213014.5", "000556.875", "000000", "", "000101"]


@pytest.mark.parametrize(
    ("dates", "date_format", "first"),
    [
        (("13/02/2020", "01/03/2019"), None, "2"),
        (("04/03/2020", "03/04/2020"), "%d/%m/%Y", "1"),
        (("04/03/2020", "03/04/2020"), "%m/%d/%Y", "2"),
        (("21800506 213014.5", "21800506 80556.875"), None, "2"),
        (("", "2020-01-01"), None, "2"),
    ],
)
def test_the_earliest_study_of_a_patient(tmp_path, dates, date_format, first):
    rows = [f"p,{n},PA,{n}.png,1,{date}" for n, date in enumerate(dates, 1)]
    (tmp_path / "images.csv").write_text("\n".join(["patient,study,view,path,A,date", *rows]))
    config = DataConfig(
        source="csv", csv=tmp_path / "images.csv", check_files=False, findings={"A": ["A"]}, attributes=["date"],
        cohort={"one_study_per_patient": True}, date_format=date_format,
    )  # fmt: skip
    table = read_source(config, data=config, seed=0).table
    assert table.study_ids.tolist() == [first]
    assert table.attributes["date"].tolist() == [dates[int(first) - 1]]


def test_a_format_without_directives_is_refused():
    with pytest.raises(ValueError, match="write it as for strptime"):
        DataConfig(source="csv", root="/x", findings={"A": ["A"]}, date_format="dd/mm/yyyy")
