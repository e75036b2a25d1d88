"""The result of each video as a CSV: survives a kill, and several processes may append to it at once."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock


class Manifest:
    """A CSV that rows are appended to; the last row of a video counts. The first of its `columns` is `video`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = tuple(columns)

    def append(self, *values: object) -> None:
        """Append a row and flush it. Line breaks become spaces; what UTF-8 cannot encode is escaped."""
        row = [" ".join(str(value).splitlines()) for value in values]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(self.path.with_name(f".{self.path.name}.lock")),
            self.path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([row] if file.tell() else [self.columns, row])
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[str, dict[str, str]]:
        """Return the last row of each video, by the video's name. Raises ValueError where the columns differ."""
        if not self.path.exists():
            return {}
        with self.path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or self.columns) != self.columns:
                raise ValueError(
                    f"{self.path}: not a manifest, its first line must be {','.join(self.columns)}"
                )
            # without rows that a full disk cut off
            return {row["video"]: row for row in reader if None not in (*row, *row.values())}
