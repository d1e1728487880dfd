"""Feed the readers of tables mutated bytes; each must give an account of every row, or one clear error.

    python tests/faults/fuzz_tables.py FOLDER --cases 20000 --seed 0

A mutant is one file of a small whole data set, of every reader in turn: bytes flipped, cut, repeated, quotes,
separators, line ends, NULs, byte order marks and other encodings put in, and all of it compressed, before or after
that. What ends the program is a fault: another exception than UserError, a warning, more than 10 seconds or 2 GiB, a
text that is no UTF-8 and is read all the same, an account with another number of rows than Python's own CSV reader
finds, or of a table that hides a row in a quoted cell. `FOLDER` then holds the culprit. Prints one JSON object.
"""

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import random
import resource
import signal
import sys
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fuzz_images import MORE_MEMORY_BYTES, SECONDS_EACH, memory_bytes, mutated, out_of_time

from dualview.config import DataConfig
from dualview.data.counts import count_data, dropped_images
from dualview.data.load import load_data
from dualview.data.sources.vocabularies import CHEXPERT
from dualview.errors import UserError
from dualview.inference.studies_csv import RequestCsv

NUM_PATIENTS = 9
INSERTED = (
    b'"', b'""', b'"\n', b",", b";", b"\t", b"|", b"\r", b"\n", b"\r\n", b"\r\r\n", b"\x00", b"\xef\xbb\xbf", b"\xe9",
    b"\xff\xfe", b"\xc3\xa9", b"e\xcc\x81", b"\xe2\x80\xa8", b"\xc2\x85", b"\x0b", b"\x0c", b"\x1c", b" ", b"nan",
    b"None", b"#", b"'", b"\\", b"2.16840E+44", b"1001.0", b"=1+1",
    b"\xed\xa0\x80", b"\xf0\x9f\xab\x81", b"\x1a", b"[", b"--1",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A small whole data set of one reader."""

    config: dict[str, object]
    files: dict[str, bytes]  # name -> content
    image_tables: tuple[str, ...]  # files with a row per image, which the account counts


def table(header: str, rows: list[str]) -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode()


def data_sets() -> dict[str, DataSet]:
    """One of every reader, without images, as rows are what this is about."""
    images = [(n, view) for n in range(NUM_PATIENTS) for view in ("PA", "L")[: 1 + n % 2]]
    marks = ",".join("1.0" if k == 3 else "" for k in range(len(CHEXPERT)))
    names = ",".join(CHEXPERT)

    def chexpert(split: str, number: int) -> bytes:
        return table(
            f"Path,Sex,Age,Frontal/Lateral,AP/PA,{names}",
            [f"CheXpert-v1.0/{split}/patient{number}{n:04}/study1/view{1 + (view == 'L')}_"
             f"{'frontal' if view == 'PA' else 'lateral'}.jpg,Male,5{n},{'Frontal' if view == 'PA' else 'Lateral'},"
             f"{'PA' if view == 'PA' else ''},{marks}" for n, view in images],
        )  # fmt: skip

    padchest = (
        "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
        "MethodProjection,Pediatric,Manufacturer_DICOM,Rows_DICOM,Columns_DICOM,ReportID,Report,MethodLabel,Labels"
    )
    people = [f"10{n:06}" for n in range(NUM_PATIENTS)]
    return {
        "csv": DataSet(
            config={"source": "csv", "findings": ["A", "B"], "split": {"file": None}, "attributes": ["note"]},
            files={
                "metadata.csv": table(
                    "patient,study,view,path,A,B,note",
                    [f'{n:03}a,s{n},{view},img/{n}_{view}.png,{n % 2},{n // 2 % 2 or ""},"seen, twice"'
                     for n, view in images],
                ),
                "split.csv": table("patient,split", [
                    f"{n:03}a,{('train', 'val', 'test')[n % 3]}" for n in range(NUM_PATIENTS)]),
            },
            image_tables=("metadata.csv",),
        ),
        "padchest": DataSet(
            config={"source": "padchest"},
            files={"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv": table(padchest, [
                f"{n}_{view}.png,{n},2014010{n},21684{n},{n}86484,1950.0,F,POSTERO_ANTERIOR,{view},Manual,No,Philips,4280,"
                f"3520,48{n},\"sin hallazgos , normal {n}\",Physician,\"['normal', ' nodule{n % 2}']\""
                for n, view in images])},
            image_tables=("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",),
        ),
        "mimic_cxr": DataSet(
            config={"source": "mimic_cxr", "split": {"official": False}},
            files={
                "mimic-cxr-2.0.0-metadata.csv": table(
                    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,StudyDate,StudyTime",
                    [f"d{n}-{view},{people[n]},5{n:07},CHEST (PA AND LAT),{'PA' if view == 'PA' else 'LATERAL'},3056,"
                     f"2180050{n},21303{n}.875" for n, view in images],
                ),
                "mimic-cxr-2.0.0-split.csv": table("dicom_id,study_id,subject_id,split", [
                    f"d{n}-{view},5{n:07},{people[n]},train" for n, view in images]),
                "mimic-cxr-2.0.0-chexpert.csv": table(f"subject_id,study_id,{names}", [
                    f"{people[n]},5{n:07},{marks}" for n in range(NUM_PATIENTS)]),
            },
            image_tables=("mimic-cxr-2.0.0-metadata.csv",),
        ),
        "chexpert": DataSet(
            config={"source": "chexpert"},
            files={f"{split}.csv": chexpert(split, k) for k, split in enumerate(("train", "valid", "test"))},
            image_tables=("train.csv", "valid.csv", "test.csv"),
        ),
        "openi": DataSet(
            config={"source": "openi"},
            files={
                "indiana_projections.csv": table("uid,filename,projection", [
                    f"{n},{n}_IM-{n}-{view}.dcm.png,{'Frontal' if view == 'PA' else 'Lateral'}" for n, view in images]),
                "indiana_reports.csv": table(
                    "uid,MeSH,Problems,image,indication,comparison,findings,impression",
                    [f'{n},{"normal" if n % 2 else "Opacity/lung/base/left;Nodule"},x,"Xray Chest, 2 views",pain,None,'
                     f'"Clear. ""No"" change, {n}",None' for n in range(NUM_PATIENTS)],
                ),
            },
            image_tables=("indiana_projections.csv",),
        ),
        "covid_cxr": DataSet(
            config={"source": "covid_cxr", "findings": {"COVID-19": ["COVID-19"]}},
            files={"metadata.csv": table("patientid,offset,sex,age,finding,view,folder,filename,clinical_notes", [
                f'{n},{3 * n or ""},M,6{n},"{"COVID-19, ARDS" if n % 2 else "SARS"}",{view},images,{n}{view}.png,"a, b"'
                for n, view in images])},
            image_tables=("metadata.csv",),
        ),
        "predict": DataSet(
            config={"source": "csv", "findings": ["A"]},
            files={
                "studies.csv": table("study,pa,lateral", [
                    f"s{n},{n}PA.png,{f'{n}L.png' if n % 2 else ''}" for n in range(NUM_PATIENTS)]),
                "images.csv": table("patient,study,view,path", [
                    f"{n},s{n},{view},img/{n}{view}.png" for n, view in images]),
            },
            image_tables=("studies.csv", "images.csv"),
        ),
    }  # fmt: skip


def mutant_of(whole: bytes, generator: random.Random) -> bytes:
    """One to three changes to the text, or its bytes, or the bytes of its archive."""
    content = whole
    for _ in range(generator.randint(1, 3)):
        kind = generator.randrange(8)
        if kind == 0:
            content = mutated(content, generator)
        elif kind <= 3:
            at = generator.randint(0, len(content))
            content = content[:at] + generator.choice(INSERTED) + content[at:]
        elif kind == 4:
            content = lines_changed(content, generator)
        elif kind == 5:
            content = content.replace(b"\n", generator.choice((b"\r\n", b"\r", b"\n\n", b" \n", b",\n", b"\n,,\n")))
        elif kind == 6 and generator.random() < 0.3:
            content = content.replace(b",", generator.choice((b";", b"\t", b", ", b" ,", b'","')))
        elif kind == 7 and generator.random() < 0.3:
            encoding = generator.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"))
            content = content.decode("utf-8", errors="replace").encode(encoding, errors="replace")
    if generator.random() < 0.25:
        content = packed(content, generator)
        if generator.random() < 0.5:
            content = mutated(content, generator)
    return content


def lines_changed(content: bytes, generator: random.Random) -> bytes:
    """Lines left out, repeated, exchanged or quoted."""
    lines = content.split(b"\n")
    a, b = generator.randrange(len(lines)), generator.randrange(len(lines))
    kind = generator.randrange(5)
    if kind == 0:
        del lines[a]
    elif kind == 1:
        lines.insert(b, lines[a])
    elif kind == 2:
        lines[a], lines[b] = lines[b], lines[a]
    elif kind == 3:
        lines[a] = b'"' + lines[a] + b'"'
    else:  # Two cells that open a quote: what is between is one cell.
        for n in (a, b):
            lines[n] = lines[n].replace(b",", b',"', 1)
    return b"\n".join(lines)


def packed(content: bytes, generator: random.Random) -> bytes:
    """The content in an archive of some kind."""
    kind = generator.randrange(5)
    if kind < 3:
        return (gzip.compress, bz2.compress, lzma.compress)[kind](content)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if kind == 3 else zipfile.ZIP_STORED) as archive:
        archive.writestr("table.csv", content)
        if generator.random() < 0.3:
            archive.writestr("__MACOSX/._table.csv", b"\0\5\x16\7")
    return buffer.getvalue()


def independent_rows(content: bytes) -> list[dict[str, str]] | None:
    """Rows below the header that are not blank, by Python's CSV reader; None where it cannot read the bytes.

    Raises nothing: whatever keeps Python from reading is a reason to refuse.
    """
    try:
        text = unpacked(content).decode("utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except Exception:
        return None
    header, *rows = [row for row in rows if any(row)] or [[]]
    return None if "\0" in text or not header else [dict(zip(header, row, strict=False)) for row in rows]


def unpacked(content: bytes) -> bytes:
    for magic, unpack in ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress)):
        if content.startswith(magic):
            return unpack(content)
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            tables = [name for name in archive.namelist() if name.endswith(".csv") and "__MACOSX" not in name]
            return archive.read(tables[0] if tables else archive.namelist()[0])
    return content


def hides_a_row(content: bytes, whole: bytes) -> bool:
    """Whether a line of the whole table stands, as it is, within a quoted cell of the mutant."""
    text = unpacked(content).decode("utf-8-sig")
    lines = set(whole.decode().splitlines()[1:])
    return any(
        part.strip() in lines
        for row in csv.reader(io.StringIO(text, newline=""))
        for cell in row
        if "\n" in cell or "\r" in cell
        for part in cell.splitlines()[1:-1]
    )


def read(name: str, data_set: DataSet, folder: Path, *, file: str) -> int:
    """Number of rows in the account of a data set that `dualview data` would read, or `dualview predict`.

    Raises:
        UserError: as these commands do.
    """
    data = {**data_set.config, "root": folder, "check_files": False}
    if name == "csv":
        data["split"] = {"file": folder / "split.csv"} if file == "split.csv" else {}
    config = DataConfig.model_validate(data)
    if name == "predict":
        requests = RequestCsv(folder / file, source=config)
        num_studies = requests.check()
        studies = list(requests)
        assert len(studies) == num_studies, (len(studies), num_studies)
        return num_studies
    loaded = load_data(config, seed=0)
    counts = count_data(loaded)
    num_dropped = len(dropped_images(loaded.sources))
    assert counts["images"]["read"] == counts["images"]["used"] + num_dropped, counts["images"]
    assert len(set(loaded.train.patient_ids) & set(loaded.test.patient_ids)) == 0
    return int(counts["images"]["read"])


def check(name: str, data_set: DataSet, folder: Path, *, file: str, content: bytes) -> bool:
    """Read a data set of which one file is a mutant; whether it gave an account. Any fault is an exception."""
    rows = independent_rows(content)
    try:
        num_rows = read(name, data_set, folder, file=file)
    except UserError as error:
        assert 20 < len(str(error)) < 20_000 and "Traceback" not in str(error), str(error)
        return False
    assert rows is not None, f"{name}: {file} is read, although Python cannot"
    assert not hides_a_row(content, data_set.files[file]), f"{name}: {file} is read, although a quoted cell hides a row"
    if name == "predict":
        by_study = {"pa", "lateral"} & set(rows[0])
        studies = len(rows) if by_study else len({(row.get("patient"), row["study"]) for row in rows})
        assert num_rows == studies, f"{file} gives {num_rows} studies, Python's reader finds {studies}"
        return True
    others = [independent_rows(data_set.files[other]) for other in data_set.image_tables if other != file]
    expected = sum(len(other or []) for other in others) + (len(rows) if file in data_set.image_tables else 0)
    assert num_rows == expected, f"{name}: {file} gives {num_rows} rows, Python's reader finds {expected}"
    return True


def main(folder: Path, *, cases: int, seed: int, only: str | None = None) -> dict[str, object]:
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", ResourceWarning)  # A file that is refused is closed when its error is forgotten.
    generator = random.Random(seed)  # noqa: S311
    sets = {name: data_set for name, data_set in data_sets().items() if only in (None, name)}
    for name, data_set in sets.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, content in data_set.files.items():
            (folder / name / file).write_bytes(content)
        for file in data_set.files:  # what is whole is read
            assert check(name, data_set, folder / name, file=file, content=data_set.files[file])
    before = memory_bytes("VmRSS")
    limit = memory_bytes("VmSize") + MORE_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, out_of_time)
    counts = {name: {"accounts": 0, "refusals": 0} for name in sets}
    for _ in range(cases):
        name = generator.choice(list(sets))
        data_set = sets[name]
        file = generator.choice(list(data_set.files))
        content = mutant_of(data_set.files[file], generator)
        (folder / name / file).write_bytes(content)
        signal.alarm(SECONDS_EACH)
        try:
            is_read = check(name, data_set, folder / name, file=file, content=content)
        finally:
            signal.alarm(0)
        counts[name]["accounts" if is_read else "refusals"] += 1
        (folder / name / file).write_bytes(data_set.files[file])
    return {**counts, "more_mib": (memory_bytes("VmHWM") - before) // 2**20}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="name of one data set")
    arguments = parser.parse_args()
    print(json.dumps(main(arguments.folder, cases=arguments.cases, seed=arguments.seed, only=arguments.only)))
    sys.exit(0)
