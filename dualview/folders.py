"""What a folder holds, what a file is by its first bytes, and why one cannot be read."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HEAD_BYTES = 512  # number of bytes by which a file is known
NOT_READ = frozenset({
    "$recycle.bin", "recycler", "recycled", "recycle", "trash", "system volume information", "lost+found", "@eadir",
    "@recycle", "#recycle", "@recently-snapshot", "#snapshot", "~snapshot", "__macosx",
})  # fmt: skip
"""Names of folders, in small letters, with trash, snapshots, and what file servers keep for themselves."""
SNAPSHOT = "@gmt-"  # how the names of Samba's snapshots begin
ICLOUD = ".icloud"  # suffix of the hidden stand-in for a file that is in the cloud only
PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp"
)  # fmt: skip
DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
NO_FILE = "no such file"
NOT_FETCHED = "is not fetched yet: it is a {} pointer to the file; fetch it with `{}`"
ANNEX = NOT_FETCHED.format("git-annex", "git annex get")
LFS = NOT_FETCHED.format("Git LFS", "git lfs pull")
IN_ICLOUD = "is not fetched yet: it is in iCloud only; download it"
NOT_UTF8 = "has a name that is not UTF-8, so no table can hold it; rename it, as with convmv"
EMPTY = "is empty (0 bytes)"
SPECIAL = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "device"),
           (stat.S_ISBLK, "device"))  # fmt: skip
PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF",
    b"MM\0+": "TIFF", b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"GIF8": "GIF",
}  # fmt: skip
VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)  # DICOM PS3.5, 6.2


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files below a folder, by paths relative to it, in alphabetical order."""

    files: list[str]
    unreadable: list[tuple[str, str]]  # (path, reason) of what is there and cannot be read; folders end with a slash


def list_files(root: Path) -> Listing:
    """The files below `root`, in any depth.

    Folders that are links are followed, each folder once, by its own path where it is below `root`. Hidden files
    and folders, trash and snapshots (`NOT_READ`) are not looked at.
    """
    files: list[str] = []
    unreadable: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    folders = [""]  # paths relative to the root that end with a slash; the root itself is blank
    links: list[str] = []  # the same of links to folders
    while folders or links:
        # Links come last, so that a folder below the root has its own path and not that of a link to it.
        folder = folders.pop() if folders else links.pop(0)
        try:
            state = os.stat(root / folder)
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(root / folder) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append((folder or "./", f"is a folder that cannot be opened ({error.strerror})"))
            continue
        for entry in entries:
            path = folder + entry.name
            if entry.name.startswith("."):
                if entry.name.endswith(ICLOUD):
                    fetched = folder + entry.name[1 : -len(ICLOUD)]
                    unreadable.append((fetched, IN_ICLOUD))
                continue
            kind = _kind(entry)
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            if shown != path:
                unreadable.append((f"{shown}/" if kind == "folder" else shown, NOT_UTF8))
            elif kind == "folder":
                if _is_read(entry.name):
                    (links if entry.is_symlink() else folders).append(f"{path}/")
            elif kind == "file":
                files.append(path)
            else:
                unreadable.append((path, why_unreadable(entry.path) or "cannot be opened"))
    return Listing(files=sorted(files), unreadable=sorted(unreadable))


def _kind(entry: "os.DirEntry[str]") -> Literal["folder", "file", "other"]:
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # A link through a folder that cannot be opened.
        return "other"


def _is_read(folder: str) -> bool:
    """Whether a folder of this name may hold images of its own."""
    name = folder.lower()
    return name not in NOT_READ and not name.startswith(SNAPSHOT)


def may_be_image(path: str) -> bool:
    """Whether a file that cannot be read may be an image, by its name (1.2.840.1 may, a.txt not); a folder may."""
    suffix = Path(path).suffix.lower()
    return path.endswith("/") or suffix in PICTURE_SUFFIXES + DICOM_SUFFIXES or not suffix[1:].isalpha()


def why_unreadable(path: str | Path) -> str:
    """Why a file cannot be opened, or is not the image but a pointer to it; blank where it can."""
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            return next(f"is a {kind}, not a file" for is_kind, kind in SPECIAL if is_kind(state.st_mode))
        if not os.access(path, os.R_OK):
            return f"cannot be opened ({os.strerror(errno.EACCES)})"
        return head_of(path)[1] if 0 < state.st_size <= HEAD_BYTES else ""  # Pointers are small files.
    except OSError as error:
        return why_not_opened(path, error)
    except ValueError:  # A name with a zero byte.
        return NO_FILE


def why_not_opened(path: str | Path, error: OSError) -> str:
    """The reason behind an error of the system, as a part of a sentence."""
    if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return ANNEX if ".git/annex/" in os.readlink(path) else "is a link to a file that is not there"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        folder, name = os.path.split(path)
        return IN_ICLOUD if os.path.exists(os.path.join(folder, f".{name}{ICLOUD}")) else NO_FILE
    return f"cannot be opened ({error.strerror})"


def head_of(path: str | Path, *, num_bytes: int = HEAD_BYTES) -> tuple[bytes, str]:
    """The first bytes of a regular file, and why it cannot be read, blank where it can."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(num_bytes)
    except OSError as error:
        return b"", why_not_opened(path, error)
    if not head:
        return b"", EMPTY
    if head.startswith((b"/annex/objects/", b"../.git/annex/")):
        return head, ANNEX
    if head.startswith(b"version https://git-lfs."):
        return head, LFS
    if len(head) >= HEAD_BYTES and not any(head[:HEAD_BYTES]):
        return head, "begins with zeros alone: it is damaged, or not fetched yet"
    return head, ""


def picture_format(head: bytes) -> str:
    """The format of a picture, such as PNG, by the first bytes of its file; blank for what is no picture."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "BMP"
    return next((name for magic, name in PICTURES.items() if head.startswith(magic)), "")


def begins_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM (PS3.10, 7.1), also without its preamble."""
    if head[128:132] == b"DICM":
        return True
    orders: tuple[Literal["little", "big"], ...] = ("little", "big")
    return any(_begins_with_element(head, order) for order in orders)


def _begins_with_element(head: bytes, order: Literal["little", "big"]) -> bool:
    """Whether an element of group 2 or 8 stands at the beginning, and one that may follow it after."""
    if len(head) < 16:
        return False

    def number(start: int, length: int) -> int:
        return int.from_bytes(head[start : start + length], order)

    group, element = number(0, 2), number(2, 2)
    if group not in (2, 8):
        return False
    if head[4:6] in VRS:
        return True
    end = 8 + number(4, 4)  # PS3.5, 7.1.3: a length of four bytes follows a tag without a VR
    follows = number(end, 2), number(end + 2, 2)
    return end + 4 <= len(head) and follows > (group, element) and follows[0] in (2, 8, 16)
