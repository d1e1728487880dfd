"""Feed the readers of tables mutated bytes; each must give an account of every row, or one clear error.

    python -m tests.faults.fuzz_tables FOLDER --cases 20000 --seed 0

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
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dualview.config import DataConfig
from dualview.data.counts import count_data, dropped_images
from dualview.data.load import load_data
from dualview.data.sources.vocabularies import CHEXPERT, VINDR
from dualview.errors import UserError
from dualview.inference.studies_csv import RequestCsv
from tests.faults.fuzz_images import MORE_MEMORY_BYTES, SECONDS_EACH, memory_bytes, mutated, out_of_time

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
    image: str = ""  # column that names the image, where several rows are of one image


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
    mimic = table(
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,StudyDate,StudyTime",
        [f"d{n}-{view},{people[n]},5{n:07},CHEST (PA AND LAT),{'PA' if view == 'PA' else 'LATERAL'},3056,"
         f"2180050{1 + n // 3},21303{n}.875" for n, view in images],
    )  # fmt: skip

    def plus(n: int, view: str) -> str:
        number, name = (1, "frontal") if view == "PA" else (2, "lateral")
        return f"{('train', 'valid')[n % 2]}/patient{n:05}/study1/view{number}_{name}"

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
                "mimic-cxr-2.0.0-metadata.csv": mimic,
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
        "cxr_lt": DataSet(
            config={"source": "mimic_cxr", "labeler": "cxr_lt", "split": {"official": False}},
            files={
                "mimic-cxr-2.1.0-metadata.csv": mimic,
                "labels.csv": table("dicom_id,subject_id,study_id,split,Edema,Hernia", [
                    f"d{n}-{view},{people[n]},5{n:07},{('train', 'development')[n % 2]},{n % 2},0"
                    for n, view in images]),
                "patients.csv": table("subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod", [
                    f"{people[n]},F,5{n},2180,2011 - 2013," for n in range(NUM_PATIENTS)]),
                "admissions.csv": table("subject_id,hadm_id,admittime,dischtime,insurance,race", [
                    f"{people[n]},2{n},2180-05-0{1 + n // 3} 22:23:00,2180-05-09 17:15:00,Medicare,WHITE"
                    for n in range(NUM_PATIENTS)]),
            },
            image_tables=("mimic-cxr-2.1.0-metadata.csv",),
        ),
        "openi_nlm": DataSet(
            config={"source": "openi"},
            files={
                "nlmcxr_dicom_metadata.csv": table("imageid,View Position,Patient's Sex", [
                    f"CXR{n}_IM-{n:04}-{1 + (view == 'L')}001,{view if view == 'PA' else 'LATERAL'},M"
                    for n, view in images]),
                "nlmcxr_tsne_pa.csv": table("imageid,tsne-view", [
                    f"CXR{n}_IM-{n:04}-1001,PA" for n in range(NUM_PATIENTS)]),
                "NLMCXR_reports.tgz": reports_archive(),
            },
            image_tables=("nlmcxr_dicom_metadata.csv",),
        ),
        "nih": DataSet(
            config={"source": "nih"},
            files={
                "Data_Entry_2017_v2020.csv": table(
                    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
                    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
                    [f"0000{n:04}_00{k}.png,{'Cardiomegaly|Effusion' if n % 2 else 'No Finding'},{k},{n + 1},5{n},M,PA,"
                     f"2682,2749,0.143,0.143" for n in range(NUM_PATIENTS) for k in range(1 + n % 2)],
                ).replace(b"OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]", b"a,b,c,d"),
                "train_val_list.txt": "\n".join(
                    f"0000{n:04}_00{k}.png" for n in range(6) for k in range(1 + n % 2)).encode(),
                "test_list.txt": "\n".join(
                    f"0000{n:04}_00{k}.png" for n in range(6, NUM_PATIENTS) for k in range(1 + n % 2)).encode(),
            },
            image_tables=("Data_Entry_2017_v2020.csv",),
        ),
        "vindr": DataSet(
            config={"source": "vindr"},
            files={
                f"image_labels_{split}.csv": table(
                    ",".join(("image_id", *(("rad_id",) if split == "train" else ()), *VINDR)),
                    [",".join((f"{split}{n:04}a", *((f"R{k}",) if split == "train" else ()),
                               *(str(int(column == n)) for column in range(len(VINDR)))))
                     for n in range(NUM_PATIENTS) for k in range(3 if split == "train" else 1)],
                ) for split in ("train", "test")
            },
            image_tables=("image_labels_train.csv", "image_labels_test.csv"),
            image="image_id",
        ),
        "vindr_boxes": DataSet(
            config={"source": "vindr"},
            files={"train.csv": table("image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", [
                f"{n:04}a,{'No finding' if n % 2 else 'Cardiomegaly'},3,R{k},1,2,3,4"
                for n in range(NUM_PATIENTS) for k in range(3)])},
            image_tables=("train.csv",),
            image="image_id",
        ),
        "chexpert_plus": DataSet(
            config={"source": "chexpert_plus"},
            files={
                "df_chexpert_plus_240401.csv": table(
                    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,age,sex,race,split,report",
                    [f"{plus(n, view)}.jpg,x.dcm,{'Frontal' if view == 'PA' else 'Lateral'},PA,patient{n:05},5{n}.0,F,"
                     f'White,{("train", "valid")[n % 2]},"Narrative: a ""word"", {n}"' for n, view in images],
                ),
                "impression_fixed.json": "\n".join(
                    json.dumps({"path_to_image": f"{plus(n, view)}.jpg", **dict.fromkeys(CHEXPERT), "Edema": n % 2})
                    for n, view in images).encode(),
            },
            image_tables=("df_chexpert_plus_240401.csv",),
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


def reports_archive() -> bytes:
    """Open-i's reports in XML, as the NLM packs them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for n in range(NUM_PATIENTS):
            images = "".join(f'<parentImage id="CXR{n}_IM-{n:04}-{k}001"/>' for k in (1, 2))
            report = (
                f'<eCitation><uId id="CXR{n}"/>{images}<MeSH><major>Opacity/lung</major></MeSH></eCitation>'.encode()
            )
            member = tarfile.TarInfo(f"ecgen-radiology/{n}.xml")
            member.size = len(report)
            archive.addfile(member, io.BytesIO(report))
    return buffer.getvalue()


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
    rows = independent_rows(content) if file.endswith(".csv") else []
    try:
        num_rows = read(name, data_set, folder, file=file)
    except UserError as error:
        assert 20 < len(str(error)) < 20_000 and "Traceback" not in str(error), str(error)
        return False
    assert rows is not None, f"{name}: {file} is read, although Python cannot"
    assert not rows or not hides_a_row(content, data_set.files[file]), (
        f"{name}: {file} is read, although a quoted cell hides a row"
    )
    if name == "predict":
        by_study = {"pa", "lateral"} & set(rows[0])
        studies = len(rows) if by_study else len({(row.get("patient"), row["study"]) for row in rows})
        assert num_rows == studies, f"{file} gives {num_rows} studies, Python's reader finds {studies}"
        return True
    tables = {name: independent_rows(data_set.files[name]) for name in data_set.image_tables} | {file: rows}
    of_images = [row for name in data_set.image_tables for row in tables[name] or []]
    expected = len({row[data_set.image] for row in of_images} if data_set.image else of_images)
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
