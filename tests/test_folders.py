"""Files below a folder, what they are by their first bytes, and why one cannot be read."""

import os
import socket
from pathlib import Path

import pytest

from dualview.folders import ANNEX, LFS, NOT_UTF8, begins_dicom, head_of, list_files, picture_format, why_unreadable

NOBODY = 65534


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def as_nobody(ask):
    """The answer of a process that permissions bind, also where the tests run as root; None where it cannot be had."""
    if os.geteuid():
        return ask()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(write, repr(ask()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return eval(os.read(read, 10000))  # noqa: S307 - what the lines above have written


@pytest.fixture
def open_folder(tmp_path):
    """A folder that every user may enter."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    return tmp_path


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    touch(root / "z" / "1.dcm")
    touch(elsewhere / "deep" / "2.dcm")
    (root / "a").symlink_to(root / "z")  # its own path counts, though the link comes first by name
    (root / "z" / "up").symlink_to(root)
    (root / "far").symlink_to(elsewhere)
    (root / "far again").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(root)
    assert list_files(root).files == ["far/deep/2.dcm", "z/1.dcm"]
    assert list_files(root).unreadable == []


def test_hidden_files_trash_and_snapshots_are_not_read(tmp_path):
    touch(tmp_path / "kept" / "1.dcm")
    for name in (
        ".Trash-1000",
        "Trash",
        ".snapshot",
        "$RECYCLE.BIN",
        "@eaDir",
        "lost+found",
        "__MACOSX",
        "@GMT-2020.01.01-00.00.00",
    ):
        touch(tmp_path / "kept" / name / "2.dcm")
    touch(tmp_path / "._1.dcm")
    assert list_files(tmp_path).files == ["kept/1.dcm"]


def test_what_cannot_be_read_is_named_with_its_reason(tmp_path):
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "absent")
    (tmp_path / "loop.dcm").symlink_to(tmp_path / "loop.dcm")
    (tmp_path / "annex.dcm").symlink_to(".git/annex/objects/aa/bb/SHA256E-s1--0.dcm/SHA256E-s1--0.dcm")
    os.mkfifo(tmp_path / "fifo.dcm")
    touch(tmp_path / ".cloud.dcm.icloud")
    with socket.socket(socket.AF_UNIX) as opened:
        before = os.getcwd()
        os.chdir(tmp_path)  # The path of a socket must be short.
        opened.bind("socket.dcm")
        os.chdir(before)
        listing = list_files(tmp_path)
    assert listing.files == []
    assert listing.unreadable == [
        ("annex.dcm", ANNEX),
        ("cloud.dcm", "is not fetched yet: it is in iCloud only; download it"),
        ("fifo.dcm", "is a FIFO, not a file"),
        ("gone.dcm", "is a link to a file that is not there"),
        ("loop.dcm", "is a link to a file that is not there"),
        ("socket.dcm", "is a socket, not a file"),
    ]


def test_names_that_no_table_can_hold_are_named(tmp_path):
    touch(tmp_path / os.fsdecode(b"M\xfcller.dcm"))
    touch(tmp_path / os.fsdecode(b"caf\xe9") / "1.dcm")
    touch(tmp_path / "Mü.dcm")
    listing = list_files(tmp_path)
    assert listing.files == ["Mü.dcm"]
    assert listing.unreadable == [("M\\xfcller.dcm", NOT_UTF8), ("caf\\xe9/", NOT_UTF8)]


def test_permissions_are_a_reason_of_their_own(open_folder):
    touch(open_folder / "shut.dcm")
    touch(open_folder / "shut" / "1.dcm")
    (open_folder / "link").symlink_to(open_folder / "shut" / "1.dcm")
    for path, mode in (("shut.dcm", 0), ("shut", 0)):
        (open_folder / path).chmod(mode)
    denied = "cannot be opened (Permission denied)"

    def ask():
        listing = list_files(open_folder)
        paths = [open_folder / "shut.dcm", open_folder / "shut" / "1.dcm"]
        return listing.files, listing.unreadable, [why_unreadable(path) for path in paths], head_of(paths[0])[1]

    files, unreadable, why, head = as_nobody(ask)
    (open_folder / "shut").chmod(0o755)
    assert files == ["shut.dcm"] and why == [denied, denied] and head == denied
    assert unreadable == [("link", denied), ("shut/", f"is a folder that {denied}")]


def test_a_file_that_is_not_fetched_is_known_by_its_content(tmp_path):
    contents = {
        "lfs.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "annex.png": b"/annex/objects/MD5-s1--0\n",
        "empty.png": b"",
        "zeros.png": b"\0" * 5000,
        "good.png": b"\x89PNG\r\n\x1a\n",
    }
    for name, content in contents.items():
        touch(tmp_path / name, content)
    assert {name: head_of(tmp_path / name)[1] for name in contents} == {
        "lfs.png": LFS, "annex.png": ANNEX, "empty.png": "is empty (0 bytes)",
        "zeros.png": "begins with zeros alone: it is damaged, or not fetched yet", "good.png": "",
    }  # fmt: skip
    assert why_unreadable(tmp_path / "lfs.png") == LFS and why_unreadable(tmp_path / "good.png") == ""
    assert why_unreadable(tmp_path / "absent") == "no such file" == why_unreadable("a\0b")
    assert why_unreadable(tmp_path) == "is a folder, not a file"
    touch(tmp_path / ".cloud.png.icloud")
    assert why_unreadable(tmp_path / "cloud.png") == "is not fetched yet: it is in iCloud only; download it"


def test_kinds_are_known_by_the_first_bytes():
    explicit = b"\x08\0\x05\0CS\x0a\0ISO_IR 100"
    implicit = b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100\x08\0\x16\0"
    big_endian = b"\0\x08\0\x05CS\0\x0aISO_IR 100"
    assert all(map(begins_dicom, (b"\0" * 128 + b"DICM", explicit, implicit, big_endian)))
    others = [
        b"",
        b"DICM",
        b"\x08\0",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 600,
        b"PK\x03\x04" + b"\0" * 20,
        b"\x08\0\x05\0" + b"\xff" * 20,
    ]
    assert not any(map(begins_dicom, others))
    names = {
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"\xff\xd8\xff\xe0": "JPEG",
        b"II*\0": "TIFF",
        b"RIFF0000WEBP": "WebP",
        b"text": "",
    }
    assert {head: picture_format(head) for head in names} == names
