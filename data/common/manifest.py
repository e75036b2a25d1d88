"""What became of each video, as a CSV that survives a kill and that several processes may write to."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from data.common.atomic_io import atomic_append, exclusive_lock, naming


class Manifest:
    """A CSV whose rows are only ever added; the last one of a video counts. `columns` begin with `video`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)

    def add(self, *values: object) -> None:
        """Add a row, whole and on the disk when this returns. What is no UTF-8, or no single line, is made so."""
        text = [str(value).encode("utf-8", "backslashreplace").decode() for value in values]
        line = _csv_line([" ".join(value.splitlines()) for value in text])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming(self.path), self.path.open("ab") as lock:
            exclusive_lock(lock)
            atomic_append(self.path, _csv_line(self.columns), line)

    def read(self) -> dict[str, dict[str, str]]:
        """The last row of each video, by its name; nothing where there is no file. ValueError for another file."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return {}
        whole = text[: text.rfind("\n") + 1]  # a killed writer may have left half a line
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        if whole and tuple(reader.fieldnames or ()) != self.columns:
            raise ValueError(f"{self.path}: is no ledger, its first line must be {','.join(self.columns)}")
        return {row["video"]: row for row in reader}


def _csv_line(values: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
