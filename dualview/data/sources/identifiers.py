"""Identifiers of patients and studies: texts that must mean one patient each, and mostly are written by spreadsheets.

Two texts that differ only in form (1001 and 1001.0, 01001 and 1001, upper and lower case, blanks) are as good as
certainly one patient, who would stand in train and in test, and whose studies would fall apart.
"""

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
import pandas as pd

from dualview.data.sources.problems import Problems, repeated

NOTHING = frozenset({
    "nan", "none", "null", "na", "nat", "nil", "undefined", "unknown", "missing", "blank", "empty", "notavailable",
    "notapplicable",
})  # fmt: skip
"""The letters of what programs and people write where there is nothing, in lower case."""
EXCEL_ERRORS = frozenset({"#null!", "#ref!", "#value!", "#name?", "#div/0!", "#num!"})
ROUNDED = re.compile(r"[+-]?(\d[.,]\d*e[+-]?\d+|\d+e\+\d+)", re.IGNORECASE)
"""A number as Excel shows a long one, such as 2.16840E+44: its other digits are lost."""
WHOLE = re.compile(r"(\D*?)0*(\d+)(?:[.,]0*)?")
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")
STANDS_FOR_NOTHING = "{} is {}, which stands for nothing (image {}); give each its identifier, or leave the images out"
OR_MEANT = ", or say that it is meant: data.identifiers=exact"
IS_ROUNDED = (
    "{} is {}, a number that a spreadsheet has rounded (image {}): its other digits are lost; export the table again "
    "with the column as text"
)
QUOTE_MARKS = "'\"`\u2018\u2019\u201c\u201d\u00b4"


def form_of(identifier: str) -> str:
    """What identifiers that differ only in form share.

    Unicode's compatibility form, lower case; without blanks, characters without width, and quote marks around it as in
    Excel's ="1001"; dashes are hyphens; whole numbers without leading zeros, thousands separators and ".0", also behind
    letters and signs. Parts between slashes or colons are taken one by one.

    >>> form_of("1001.0") == form_of("01001") == form_of(" 1\\u00a0001") == "1001"
    True
    >>> form_of("P-007/A") == form_of("p\\u20137/a"), form_of("P_007") == form_of("P_7")
    (True, True)
    >>> form_of("1.2.840") == form_of("1.2.84"), form_of("P-1-07") == form_of("P-1-7")
    (False, False)
    """
    text = identifier.lower()
    if not text.isascii() or not text.isprintable():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", identifier).casefold())
        text = "".join(map(_plain, text))
    if text.isalnum():
        return _number_form(text)
    return "".join(part if part in "/:" else _number_form(part) for part in re.split("([/:])", text.replace(" ", "")))


def _plain(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace() or category in ("Cf", "Cc"):
        return ""
    return "-" if category == "Pd" or character == "\u2212" else character


def _number_form(part: str) -> str:
    text = part.removeprefix("=").strip(QUOTE_MARKS)
    if THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    whole = WHOLE.fullmatch(text)
    return f"{whole[1]}{whole[2]}" if whole else text


def stands_for_nothing(text: str) -> bool:
    """Whether a text says that there is no identifier or date, or has neither letter nor digit; a blank says nothing.

    >>> all(map(stands_for_nothing, ("NaN", "n/a", "(null)", "N.A.", "<NA>", "#N/A", "--", "#####", "#REF!")))
    True
    >>> any(map(stands_for_nothing, ("0", "Nan-1", "")))
    False
    """
    letters = "".join(filter(str.isalnum, text.lower()))
    return text != "" and (not letters or letters in NOTHING or text.lower() in EXCEL_ERRORS)


def unusable(identifiers: np.ndarray) -> Iterator[tuple[int, bool]]:
    """Of each identifier that cannot be one, the first row, and whether it is a word for nothing; else it is rounded.

    Args:
        identifiers: (N,) str.
    """
    codes, different = pd.factorize(identifiers)
    for code, identifier in enumerate(different):
        is_nothing = stands_for_nothing(identifier)
        if is_nothing or ROUNDED.fullmatch(identifier):
            yield int(np.flatnonzero(codes == code)[0]), is_nothing


def add_unusable(problems: Problems, frame: pd.DataFrame, *, further_remedy: str = OR_MEANT) -> None:
    """Add patients and studies that are a word for nothing, or a number that Excel has rounded.

    Args:
        frame: with `line`, `patient`, `study` and `path`, a row per image.
        further_remedy: what else can be done about a word for nothing.
    """
    for column in ("patient", "study"):
        for row, is_nothing in unusable(frame[column].to_numpy(object)):
            template = STANDS_FOR_NOTHING + further_remedy if is_nothing else IS_ROUNDED
            line, identifier, path = (frame[name].iloc[row] for name in ("line", column, "path"))
            problems.add(line, template, column, repr(identifier), path, of=column)


def add_alike(problems: Problems, frame: pd.DataFrame) -> None:
    """Add patients, and studies of one patient, that differ only in form from one in an earlier row.

    Args:
        frame: with `line`, `patient` and `study`, a row per image.
    """
    remedy = "write each in one way, or say that the difference is meant: data.identifiers=exact"
    patients = frame.drop_duplicates("patient")
    forms = patients["patient"].map(form_of)
    _add_twins(
        problems, patients, "patient", forms, template="patient {} differs only in form from {} in {}; " + remedy
    )
    studies = frame.drop_duplicates(["patient", "study"])
    forms = studies["patient"] + "\0" + studies["study"].map(form_of)
    template = "study {} differs only in form from {} of the same patient in {}; " + remedy
    _add_twins(problems, studies, "study", forms, template=template)


def _add_twins(problems: Problems, frame: pd.DataFrame, column: str, forms: "pd.Series[str]", *, template: str) -> None:
    identifiers, lines = frame[column].to_numpy(object), frame["line"].to_numpy()
    for row, first in repeated(forms.to_numpy(object)):
        # What cannot be seen is shown as an escape.
        problems.add(
            lines[row], template, ascii(identifiers[row]), ascii(identifiers[first]), problems.line(int(lines[first]))
        )
