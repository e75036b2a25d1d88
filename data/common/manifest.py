"""The result of each video as a CSV: survives a kill, and several processes may append to it at once."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

LONGEST_ROW = 65536  # bytes


class Manifest:
    """A CSV that rows are appended to; the last row of a video counts. The first of its `columns` is `video`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)

    def append(self, *values: object) -> None:
        """Append a row and flush it. Line breaks become spaces; what UTF-8 cannot encode is escaped."""
        text = [str(value).encode("utf-8", "backslashreplace").decode() for value in values]
        row = [" ".join(value.splitlines()) for value in text]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")), self.path.open("ab+") as file:
            start = max(0, file.seek(0, os.SEEK_END) - LONGEST_ROW)
            file.seek(start)
            end = start + file.read().rfind(b"\n") + 1
            file.truncate(end)  # an incomplete last line of a killed writer
            file.write("".join(map(_csv_line, [row] if end else [self.columns, row])).encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[str, dict[str, str]]:
        """Return the last row of each video, by the video's name. Raises ValueError where the columns differ."""
        if not self.path.exists():
            return {}
        text = self.path.read_text("utf-8")
        whole_lines = text[: text.rfind("\n") + 1]
        reader = csv.DictReader(io.StringIO(whole_lines, newline=""))
        if whole_lines and tuple(reader.fieldnames or ()) != self.columns:
            raise ValueError(f"{self.path}: not a manifest, its first line must be {','.join(self.columns)}")
        return {row["video"]: row for row in reader}


def _csv_line(values: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()
