"""Dates and times of studies as they are written, to be compared as times."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dualview.data.sources.identifiers import stands_for_nothing
from dualview.errors import UserError

NEVER = np.iinfo(np.int64).max  # when a study without a date was
WHOLE_DAY = timedelta(days=1) - timedelta(microseconds=1)
YEAR_FIRST = re.compile(r"(\d{4})([-/.]?)(\d{1,2})\2(\d{1,2})(?:\.0)?(?:(?:[T\s]+|(?<=\d{8})(?=(?:\d\d)+(?!\d)))(.+))?")
YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?:\s+(.+))?")
CLOCK = re.compile(r"(\d{1,2}):?(\d{2})?:?(\d{2})?(?:[.,](\d*))?\s*(AM|PM)?\s*(Z|[+-]\d{2}:?\d{2})?", re.IGNORECASE)
EXAMPLES = 3


def times_of(dates: Sequence[str] | np.ndarray, *, date_format: str | None) -> np.ndarray:
    """(N,) int64, larger for later: microseconds; a day whose time is not known ends it, and blank is after all.

    Without a format a date is YYYYMMDD (DICOM PS3.5, 6.2, DA), YYYY-MM-DD, or DD/MM/YYYY and the like where the column
    shows which of the two is the day; a time after it HHMMSS.FFFFFF (TM, also cut short), HH:MM:SS, with AM, PM or the
    difference from UTC.

    Args:
        dates: one text per study.
        date_format: `data.date_format`.

    Raises:
        UserError: texts that are no date, or whose day could be their month.
    """
    codes, different = pd.factorize(np.asarray(dates, object))
    texts = ["" if stands_for_nothing(str(text)) else str(text).strip() for text in different]
    day_first = date_format is None and _is_day_first(texts)
    times, wrong = np.full(len(texts), NEVER), []
    for n, text in enumerate(texts):
        if not text:
            continue
        try:
            moment = _written(text, day_first=day_first) if date_format is None else _formatted(text, date_format)
            times[n] = (moment - datetime.min) // timedelta(microseconds=1)
        except (ValueError, OverflowError):
            wrong.append(text)
    if wrong:
        what = "none that dualview knows" if date_format is None else f"not as data.date_format says, {date_format!r}"
        raise UserError(
            f"{_shown(wrong)} cannot be read: {what}. Say how dates are written with data.date_format, such as "
            "%d.%m.%Y, or write them as YYYY-MM-DD"
        )
    return times[codes]


def padded_time(times: "pd.Series[str]") -> "pd.Series[str]":
    """Times HHMMSS.FFF that were saved as numbers, with the zeros that they lost: 80556.875 is 080556.875."""
    parts = times.str.partition(".")
    return (parts[0].str.zfill(6) + parts[1] + parts[2]).where(times != "", "")


def _formatted(text: str, date_format: str) -> datetime:
    """Raises: ValueError."""
    moment = datetime.strptime(text, date_format)
    if moment.tzinfo is not None:
        moment = moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta())
    has_time = re.search(r"%[HIXcTs]", date_format)
    return moment if has_time else moment + WHOLE_DAY


def _written(text: str, *, day_first: bool) -> datetime:
    """Raises: ValueError."""
    if found := YEAR_FIRST.fullmatch(text):
        year, separator, month, day, clock = found.groups()
        if not separator and len(month + day) != 4:
            raise ValueError
    elif found := YEAR_LAST.fullmatch(text):
        first, _, second, year, clock = found.groups()
        day, month = (first, second) if day_first else (second, first)
    else:
        raise ValueError
    midnight = datetime(int(year), int(month), int(day))
    return midnight + (_since_midnight(clock.strip()) if clock else WHOLE_DAY)


def _since_midnight(clock: str) -> timedelta:
    """Raises: ValueError."""
    digits = re.match(r"\d*", clock)
    if digits and len(digits[0]) in (1, 3, 5) and not clock[len(digits[0]) :].startswith(":"):
        clock = clock.zfill(len(clock) + 6 - len(digits[0]))  # a number that has lost its zeros
    found = CLOCK.fullmatch(clock)
    if not found:
        raise ValueError
    hour, minute, second = (int(part or 0) for part in found.groups()[:3])
    fraction, half, zone = found.groups()[3:]
    if half:
        if not 1 <= hour <= 12:
            raise ValueError
        hour = hour % 12 + (12 if half.upper() == "PM" else 0)
    if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second.
        raise ValueError
    since = timedelta(hours=hour, minutes=minute, seconds=second, microseconds=int(f"{fraction or ''}000000"[:6]))
    if zone and zone.upper() != "Z":
        ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        since -= ahead if zone[0] == "+" else -ahead
    return since


def _is_day_first(texts: Sequence[str]) -> bool:
    """Whether dates with the year at the end begin with the day, as a number above 12 among them shows.

    Raises:
        UserError: nothing shows it, or some begin with the day and others with the month.
    """
    found = [(text, match) for text in texts if (match := YEAR_LAST.fullmatch(text))]
    begins = [text for text, match in found if int(match[1]) > 12]
    ends = [text for text, match in found if int(match[3]) > 12]
    remedy = "Say how dates are written: data.date_format=%d/%m/%Y or data.date_format=%m/%d/%Y"
    if begins and ends:
        raise UserError(f"some dates begin with the day ({begins[0]!r}), others with the month ({ends[0]!r}). {remedy}")
    either = [text for text, match in found if match[1].zfill(2) != match[3].zfill(2)]
    if either and not begins and not ends:
        raise UserError(f"{_shown(either)} can be day and month, or month and day. {remedy}")
    return bool(begins)


def _shown(dates: Sequence[str]) -> str:
    examples = ", ".join(map(repr, dates[:EXAMPLES]))
    return f"the date {examples}" if len(dates) == 1 else f"{len(dates)} dates ({examples})"
