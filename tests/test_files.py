"""Files that are there whole or not at all, and JSON lines of which a kill has torn the last."""

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from dualview.files import read_json_lines, sha256_of, temporary_of, whole_file, write_whole


def test_what_is_written_is_read(tmp_path):
    for content in ("Größe\r\n\n", b"\x00\xff", ""):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def write_half():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_half()
    assert path.read_text() == "before"
    assert not temporary_of(path).exists()


def test_a_kill_in_the_middle_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    script = """
import os, pathlib, signal, sys
from dualview.files import whole_file
with whole_file(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script, path], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_text() == "before"
    assert temporary_of(path).read_text() == "half"
    write_whole(path, "after")
    assert path.read_text() == "after" and not temporary_of(path).exists()


def test_content_is_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    """Without the flush, a machine that loses power can keep the name and lose the content."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    write_whole(tmp_path / "file", "content")
    assert flushed == [str(temporary_of(tmp_path / "file")), str(tmp_path)]


@pytest.mark.parametrize("torn", [b"", b'{"step": 3', b'{"step": 3}', b'{"name": "\xc3'])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert read_json_lines(file) == [{"step": 1}, {"step": 2}]


def test_no_file_has_no_lines(tmp_path):
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_checksum(tmp_path):
    (tmp_path / "file").write_bytes(b"dualview")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"dualview").hexdigest()
