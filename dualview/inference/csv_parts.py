"""A CSV of answers that is written in parts: by several processes, and through interruptions.

    predictions.csv               the whole, once all parts are there
    predictions.csv.json          what it was made from
    predictions.csv.partial.json  the same, while it is being made
    predictions.csv.parts/        00000012.csv: the rows of chunk 12 of the input, whole or not there

Chunk i is the same studies for any number of processes, so a part is what it is whoever wrote it, and a part
that is there need not be written again.
"""

import csv
import io
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualview.errors import UserError
from dualview.files import whole_file, write_whole

logger = logging.getLogger(__name__)

Fingerprint = dict[str, Any]  # all that the answers depend on; equal ones give the same CSV


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many studies of a whole CSV have an answer."""

    studies: int
    predicted: int


class Parts:
    """The files above, around the CSV `out`."""

    def __init__(self, out: Path, *, fingerprint: Fingerprint) -> None:
        self.out = out
        self.fingerprint = fingerprint
        self.folder = out.with_name(f"{out.name}.parts")
        self.partial = out.with_name(f"{out.name}.partial.json")
        self.about = out.with_name(f"{out.name}.json")

    def claim(self, *, overwrite: bool) -> Counts | None:
        """Make ready to write parts, or to go on; one process calls. Returns the counts of a CSV that is whole already.

        Args:
            overwrite: remove what was made from something else. Parts made from the same are kept in any case.

        Raises:
            UserError: what is there was made from something else, or is not known to be ours; nothing was changed.
        """
        remedy = "Nothing was changed. Choose another --out, or replace it with --overwrite"
        if self.out.is_dir():
            raise UserError(f"--out {self.out} is a folder; give the CSV to write")
        partial = _content(self.partial)
        if partial is not None and partial["fingerprint"] == self.fingerprint:
            self.folder.mkdir(exist_ok=True)
            return None
        if not overwrite:
            if partial is not None:
                raise UserError(f"{self.out} was begun with {self._changes(partial)}. {remedy}")
            if self.out.exists():
                about = _content(self.about)
                if about is None or about.get("bytes") != self.out.stat().st_size:
                    raise UserError(f"{self.out} is there already, and not known to be of this command. {remedy}")
                if about["fingerprint"] != self.fingerprint:
                    raise UserError(f"{self.out} was made with {self._changes(about)}. {remedy}")
                shutil.rmtree(self.folder, ignore_errors=True)  # A kill at the very end leaves it.
                return Counts(studies=about["studies"], predicted=about["predicted"])
            if self.folder.exists():
                raise UserError(f"{self.folder} is there already, and not known to be of this command. {remedy}")
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.about.unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)
            write_whole(self.partial, json.dumps({"fingerprint": self.fingerprint}, indent=2) + "\n")
            self.folder.mkdir()
        except OSError as error:
            raise UserError(f"--out {self.out} cannot be written: {error.strerror}. Choose another --out") from None
        return None

    def done(self) -> list[int]:
        """Numbers of the parts that are there."""
        return sorted(int(path.stem) for path in self.folder.glob("*.csv") if path.stem.isdigit())

    def write(self, number: int, rows: Sequence[Sequence[str]]) -> None:
        """Write the part of one chunk, whole or not at all."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_whole(self._part(number), text.getvalue())

    def join(self, *, num_parts: int, header: Sequence[str]) -> Counts:
        """Put all parts together into `out`, in order, and remove them; one process calls.

        Raises:
            UserError: a part is not there, though every process has written its own.
        """
        missing = sorted(set(range(num_parts)) - set(self.done()))
        if missing:
            raise UserError(
                f"{len(missing)} part(s) are not in {self.folder}, the first is {missing[0]}; --out must be on a disk "
                "that all processes share. Start the same command again to make those that are missing"
            )
        views = list(header).index("views")
        studies = predicted = 0
        with whole_file(self.out) as temporary, temporary.open("w", encoding="utf-8", newline="") as whole:
            csv.writer(whole, lineterminator="\n").writerow(header)
            for number in range(num_parts):
                text = self._part(number).read_text(encoding="utf-8")
                whole.write(text)
                for row in csv.reader(io.StringIO(text, newline="")):
                    studies += 1
                    predicted += row[views] != ""
        about = {"bytes": self.out.stat().st_size, "studies": studies, "predicted": predicted}
        write_whole(self.about, json.dumps({"fingerprint": self.fingerprint, **about}, indent=2) + "\n")
        self.partial.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        return Counts(studies=studies, predicted=predicted)

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08d}.csv"

    def _changes(self, content: dict[str, Any]) -> str:
        """What differs between a fingerprint and ours, as words of a message."""
        theirs = content["fingerprint"]
        names = [name for name, value in self.fingerprint.items() if theirs.get(name) != value]
        return "another " + ", ".join(f"{name} ({theirs.get(name)}, now {self.fingerprint[name]})" for name in names)


def _content(file: Path) -> dict[str, Any] | None:
    """What a JSON file of ours says; None where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("fingerprint"), dict) else None
