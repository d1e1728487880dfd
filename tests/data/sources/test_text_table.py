"""Tables as they come: every row with its line, or one sentence on why not. Answers by pandas, and by hand."""

import bz2
import csv
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualview.data.sources.text_table import text_rows, text_table
from dualview.errors import UserError

COLUMNS = ["patient", "study", "view", "path", "A"]
HEADER = ",".join([*COLUMNS, "report"])
ROWS = [f"p{n // 2},s{n // 2},{'PA' if n % 2 else 'L'},img/{n}.png,{n % 2},no report" for n in range(48)]
TABLE = "\n".join([HEADER, *ROWS]) + "\n"
often = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def zipped(text: str, *, junk: bool = False, **options) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **({"compression": zipfile.ZIP_DEFLATED} | options)) as archive:
        if junk:
            archive.writestr("__MACOSX/._images.csv", b"\0\5\x16\7")
            archive.writestr("folder/.DS_Store", b"\0\0\0\1Bud1")
        archive.writestr("folder/images.csv", text)
    return content.getvalue()


def zstd(content: bytes) -> bytes:
    return pyarrow.compress(content, codec="zstd", asbytes=True)


PACKED = {
    "plain.csv": TABLE.encode(),
    "bom.csv": b"\xef\xbb\xbf" + TABLE.encode(),
    "windows.csv": TABLE.replace("\n", "\r\n").encode(),
    "old-mac.csv": TABLE.replace("\n", "\r").encode(),
    "no-end.csv": TABLE.rstrip().encode(),
    "table.csv.gz": gzip.compress(TABLE.encode()),
    "table.csv.bz2": bz2.compress(TABLE.encode()),
    "table.csv.xz": lzma.compress(TABLE.encode()),
    "table.csv.zst": zstd(TABLE.encode()),
    "table.zip": zipped(TABLE),
    "from-a-mac.zip": zipped(TABLE, junk=True),
    "unpacked-by-the-browser.csv.gz": TABLE.encode(),
    "packed-without-a-word.csv": gzip.compress(TABLE.encode()),
}


@pytest.fixture
def read(tmp_path):
    def read(content: "bytes | str", *, name: str = "images.csv", columns=COLUMNS, optional=()):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return text_table(tmp_path / name, columns=columns, hint="", optional=optional)

    return read


@pytest.fixture
def refusal(read):
    def refusal(content: "bytes | str", **options) -> str:
        with pytest.raises(UserError) as caught:
            read(content, **options)
        text = str(caught.value)
        assert len(text.splitlines()) <= 6 and "Traceback" not in text
        return text

    return refusal


@pytest.mark.parametrize("name", PACKED)
def test_a_table_is_read_by_what_it_is_not_by_its_name(read, name):
    table = read(PACKED[name], name=name)
    expected = pd.read_csv(io.StringIO(TABLE), dtype=str)[COLUMNS]
    assert table[COLUMNS].to_numpy().tolist() == expected.to_numpy().tolist()
    assert table["line"].tolist() == list(range(2, 50))


@pytest.mark.parametrize("name", ["table.csv.gz", "table.csv.bz2", "table.csv.xz", "table.csv.zst", "table.zip"])
def test_a_damaged_archive_is_one_line(read, refusal, name):
    whole = PACKED[name]
    for cut in (len(whole) // 4, len(whole) // 2, len(whole) - 3):
        assert "cannot be read" in (text := refusal(whole[:cut], name=name)) and len(text.splitlines()) == 1, cut
    for at in range(0, len(whole), len(whole) // 60 + 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        try:
            table = read(bytes(damaged), name=name)
        except UserError as error:
            assert len(str(error).splitlines()) <= 6
        else:
            assert len(table) == 48


def encrypted() -> bytes:
    content = bytearray(zipped(TABLE))
    for start in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[start] |= 1
    return bytes(content)


def of_unknown_compression() -> bytes:
    content = bytearray(zipped(TABLE))
    for start in (content.index(b"PK\x03\x04") + 8, content.index(b"PK\x01\x02") + 10):
        content[start] = 9  # Deflate64, as Windows packs what is long
    return bytes(content)


def archive_of(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, TABLE)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        info = tarfile.TarInfo("images.csv")
        info.size = len(TABLE)
        tar.addfile(info, io.BytesIO(TABLE.encode()))
    return content.getvalue()


NO_TABLES: list[tuple[str | bytes, str]] = [
    (encrypted(), "is an encrypted archive; unpack it"),
    (of_unknown_compression(), "is an archive whose compression Python does not know"),
    (archive_of("a.csv", "b.csv"), "is an archive with several files: a.csv, b.csv"),
    (archive_of("__MACOSX/._a.csv"), "is an archive with no file"),
    (archive_of("[Content_Types].xml", "xl/workbook.xml"), 'is an Excel workbook, not a CSV; open it and save it'),
    (archive_of("mimetype", "content.xml"), "is a workbook of LibreOffice"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is an Excel workbook"),
    (TABLE.encode("utf-16"), "is in UTF-16"),
    (TABLE.encode("utf-16-le"), "is in UTF-16"),
    (TABLE.encode("utf-16-be"), "is in UTF-16"),
    (TABLE.replace("no report", "Größe", 3).encode("latin-1"), "images.csv:2: character 23 is the byte 0xF6"),
    (TABLE.encode()[:900] + bytes(40), "is a NUL byte"),
    (b"", "is empty"),
    (b"\n\n \n", "nothing but blank lines"),
    (gzip.compress(b""), "is empty"),
    (gzip.compress(gzip.compress(TABLE.encode())), "is compressed twice"),
    (tarred(), "is a tar archive"),
    (b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
    (HEADER, "has no rows"),
    (TABLE.replace(",", ";"), "columns separated by semicolons (';'), not by commas; save it as CSV with commas"),
    (TABLE.replace(",", "\t"), "columns separated by tabs"),
    (TABLE.replace(",", '";"').replace("\n", '"\n"'), "columns separated by semicolons"),
    (TABLE.replace("patient", "Patient", 1), "has no column 'patient'; it has Patient, study, view, path, A, "
                                             "report. Upper and lower case matter: there is 'Patient'."),
    (TABLE.replace("report\n", "A\n", 1), "images.csv:1: 2 columns are called 'A' (columns 5, 6)"),
    (TABLE.replace("report\n", " A \n", 1), "2 columns are called 'A'"),
    (TABLE.replace(ROWS[3], ROWS[3] + ",1"), ":5: row has more cells than the header (7 instead of 6)"),
    (TABLE.replace(ROWS[3], "p1,s1,L"), ":5: row has fewer cells than the header (3 instead of 6)"),
    (TABLE + TABLE, ":50: row repeats the header"),
    (TABLE.replace("img/7.png", '"img/7.png'),
     ":9: cell 4 opens a quote that is never closed (the file ends in line 49)"),
    (TABLE.replace("img/7.png", '"img"/7.png'), ":9: text follows the quote that closes cell 4"),
    (TABLE.replace("img/7.png", '"img/7.png').replace("img/30.png", '"img/30.png'),
     ":9: cell 4 opens a quote that is not closed before line 32"),
    (TABLE.replace("img/7.png", '"img/7.png').replace("img/30.png", 'img/30.png"'),
     ":9: path opens a quote that closes in line 32"),
]  # fmt: skip


# The cases are named by what is said of them: the bytes of an archive hold the time at which it was made, and every
# process that runs tests must find the same names.
@pytest.mark.parametrize(("content", "says"), NO_TABLES, ids=[says for _, says in NO_TABLES])
def test_what_is_no_table_says_what_it_is(refusal, content, says):
    assert says in refusal(content)


def with_reports(reports: dict[int, str]) -> str:
    return "\n".join([HEADER, *(row.replace("no report", reports.get(n, "no report")) for n, row in enumerate(ROWS))])


@pytest.mark.parametrize(
    ("opens", "closes", "line"),
    [
        ('"no finding', 'no finding"', 3),  # in one column, of texts that nobody reads
        ('"no finding', 'no, finding"', 3),
        ('"effusion, left', 'none"', 3),
        ('"first line\nsecond', 'none"', 3),
    ],
)
@pytest.mark.parametrize("last", [2, 3, 26])
def test_quotes_that_swallow_rows_are_found_in_columns_that_are_not_read(refusal, opens, closes, line, last):
    """Row 1 opens a quote that only row `last` closes: RFC 4180 reads one row with a long text."""
    text = refusal(with_reports({1: opens, last: closes}))
    shift = opens.count("\n")
    number = last - 1  # of rows that are swallowed
    if number <= 3:
        for swallowed in range(number):
            assert f"images.csv:{line}: a quote that opens here swallows line {line + shift + swallowed + 1}" in text
    else:
        assert f"images.csv: {number} rows (lines {line}): a quote that opens here swallows line" in text


@pytest.mark.parametrize("last", [2, 9])
def test_ditto_marks_in_a_column_that_is_not_read_are_quotes_that_swallow_rows(refusal, last):
    """By RFC 4180 row 1 would go on with the view, path and labels of row `last`: one's label on another's image."""
    marks = {1: '"', last: '"'}
    rows = [",".join([marks.get(n, "ok"), row.rpartition(",")[0]]) for n, row in enumerate(ROWS)]
    text = refusal("\n".join(["report," + ",".join(COLUMNS), *rows]) + "\n")
    assert "a quote that opens here swallows line" in text


@pytest.mark.parametrize("last", [2, 24])
def test_swallowed_rows_are_found_where_names_and_paths_are_of_many_shapes(refusal, last):
    """No two patients have as many parts to their names."""
    rows = [
        f"{'-'.join(['Anna'] * (n + 1))},s{n},PA,{'d/' * (n % 5)}{'_'.join('x' * (n % 7 + 1))}{n}.png,1"
        for n in range(48)
    ]
    marks = {1: '"large', last: 'none"'}
    text = refusal("\n".join([HEADER, *(f"{row},{marks.get(n, 'ok')}" for n, row in enumerate(rows))]) + "\n")
    assert "a quote that opens here swallows line" in text


def test_reports_with_line_breaks_are_read_and_lines_are_those_of_an_editor(read):
    reports = {
        1: '"Findings:\n- effusion, left, small\n- heart normal\n\nImpression: ""none"", a, b, c, d"',
        5: '"a, b, c, d, e\r\nf, g, h, i, j"',
        7: '5" tube in place',
    }
    text = with_reports(reports)
    table = read(text, optional=["report"][:0])
    assert len(table) == 48
    lines = [1 + text[: text.index(f"img/{n}.png")].count("\n") for n in range(48)]
    assert table["line"].tolist() == lines
    assert lines[-1] == 49 + 4 + 1


def test_prose_with_as_many_commas_as_the_table_is_no_row(read):
    text = 'study,report\n1,"no effusion,\nheart normal, lungs clear"\n2,"clear,\nnormal"\n'
    assert read(text, columns=["study"])["line"].tolist() == [2, 4]


@pytest.mark.parametrize("name", ["line", "path", "patient", "view", "index", "cells", "0", ""])
def test_columns_may_have_any_name(tmp_path, name):
    file = tmp_path / "t.csv"
    file.write_text(f"a,{name}\nx,1\n\ny,2\n")
    columns = ["a", name] if name else ["a"]
    rows = text_rows(file, columns=columns, hint="")
    assert rows.cells.columns.tolist() == columns
    assert rows.cells[columns[-1]].tolist() == (["1", "2"] if name else ["x", "y"])
    assert rows.lines.tolist() == [2, 4]


cell = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=12)
flat = cell.map(lambda text: " ".join(text.replace("\r", " ").replace("\n", " ").split()))


@often
@given(rows=st.lists(st.tuples(flat, flat, cell), min_size=1, max_size=30), end=st.sampled_from(["\n", "\r\n"]))
def test_equal_to_pandas_and_to_a_count_of_line_breaks(tmp_path, rows, end):
    content = io.StringIO(newline="")
    # Python before 3.13 does not quote a lone CR where lines end with LF.
    writer = csv.writer(content, lineterminator=end, quoting=csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL)
    lines, at = [], 2
    writer.writerow(["a", "b", "text"])
    for row in rows:
        before = content.tell()
        writer.writerow(row)
        written = content.getvalue()[before:]
        if any(part.strip() for part in row):
            lines.append(at)
        at += written.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    file = tmp_path / "t.csv"
    file.write_bytes(content.getvalue().encode())
    try:
        read = text_rows(file, columns=["a", "b"], hint="")
    except UserError as error:
        assert ("has no rows" in str(error) and not lines) or "looks like a row" in str(error)
        return
    assert read.lines.tolist() == lines
    frame = pd.read_csv(io.StringIO(content.getvalue(), newline=""), dtype=str, keep_default_na=False,
                        skip_blank_lines=False)  # fmt: skip
    frame = frame.map(str.strip)
    frame = frame[(frame != "").any(axis=1)]
    assert read.cells.to_numpy().tolist() == frame[["a", "b"]].to_numpy().tolist()


@often
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(TABLE) - 1), st.sampled_from(['"', ",", "\n", '"\n', '""', "\r", "\0", ";", "é", ""])
        ),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_whatever_is_typed_into_a_table_its_other_rows_are_read_or_it_is_refused(tmp_path, edits):
    """Never fewer rows: each line that is still as it was is a row of its own, or the table is refused in words."""
    text = TABLE
    for at, typed in edits:
        text = text[:at] + typed + text[at + 1 :]
    file = tmp_path / "images.csv"
    file.write_text(text, encoding="utf-8", newline="")
    try:
        table = text_table(file, columns=COLUMNS, hint="")
    except UserError as error:
        assert str(file) in str(error)
        return
    untouched = set(ROWS) & set(text.replace("\r", "\n").split("\n"))
    read = set(map(",".join, table[COLUMNS].to_numpy().tolist()))
    assert {row.rsplit(",", 1)[0] for row in untouched} <= read


def test_a_real_table_with_arrays_of_numpy_in_cells_loses_nothing(tmp_path):
    """As PadChest's labelCUIS: 5,214 of its rows go over several lines, in columns that are not read."""
    cells = [f"\"['C{n}' 'C0024117' 'C0018800'\n 'C0231819']\"" if n % 3 else "['C1']" for n in range(300)]
    file = tmp_path / "t.csv"
    file.write_text("id,cuis,n\n" + "".join(f"i{n},{text},{n}\n" for n, text in enumerate(cells)))
    rows = text_rows(file, columns=["id", "n"], hint="")
    assert rows.cells["n"].tolist() == [str(n) for n in range(300)]
    assert np.array_equal(rows.lines, 2 + np.cumsum([0] + [1 + bool(n % 3) for n in range(299)]))
