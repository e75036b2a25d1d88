"""CSV files of a run: they grow by whole rows, and lose those that no checkpoint has."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.common.atomic_io import atomic_append, atomic_write
from data.common.cli import sanitize

TABLES = "results_s[0-9]*.csv"  # one a start, named after its first epoch; other files are not the run's


class Table:
    """A CSV file that grows by whole rows. Those that could not be written wait for the next `write`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = ""

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.header = _csv_line(rows[0].keys())
        self.waiting += "".join(_csv_line(row.values()) for row in rows)

    def write(self) -> None:
        if self.waiting:
            atomic_append(self.path, self.header, self.waiting)
            self.waiting = ""


def _csv_line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


def cut_results(folder: Path, first_epoch: int) -> None:
    """Drop the rows from `first_epoch` on of all runs before, so that no epoch stands twice; atomic for each file."""
    for path in (path for split in ("train", "val") for path in folder.glob(f"{split}_{TABLES}")):
        with path.open(newline="") as file:
            header, *rows = file.read().splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and _epoch_of(row, path) < first_epoch]
        if not header.endswith("\n"):  # a kill left half of it
            path.unlink()
        elif len(kept) < len(rows):
            atomic_write(path, "".join([header, *kept]))


def validation_scores(folder: Path) -> dict[int, float]:
    """Epoch -> top-1, of the rows of all runs before."""
    scores: dict[int, float] = {}
    for path in folder.glob(f"val_{TABLES}"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                try:
                    scores[int(row["Epoch"])] = float(row["Top1"])
                except (KeyError, TypeError, ValueError):
                    raise ValueError(f"{path}: {sanitize(row)} is not a row Epoch,Top1,Top5,Loss") from None
    return dict(sorted(scores.items()))


def _epoch_of(row: str, path: Path) -> int:
    epoch = row.split(",", maxsplit=1)[0]
    if not epoch.isdecimal():
        raise ValueError(f"{path}: {row.strip()[:80]!r} does not begin with the number of an epoch")
    return int(epoch)
