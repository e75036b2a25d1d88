"""CSV files of a run: append rows, and drop those after the resume point."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.common.atomic_io import atomic_write
from data.common.cli import sanitize

RESULTS = "results_s[0-9]*.csv"  # after train_ or val_; one file per start, named after its first epoch


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row and flush it to disk; a new file begins with the header."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def truncate_results(folder: Path, first_epoch: int) -> None:
    """Drop the rows of `first_epoch` and later, and partial rows left by a kill, so that no epoch is duplicated."""
    for path in folder.glob(f"*_{RESULTS}"):
        with path.open(newline="") as file:
            header, *rows = file.read().splitlines(keepends=True) or [""]
        kept = [row for row in rows if row.endswith("\n") and _epoch_of(row, path) < first_epoch]
        if not header.endswith("\n"):
            path.unlink()
        elif len(kept) < len(rows):
            atomic_write(path, "".join([header, *kept]))


def _epoch_of(row: str, path: Path) -> int:
    epoch = row.split(",", maxsplit=1)[0]
    if not epoch.isdecimal():
        raise ValueError(f"{path}: row {sanitize(row, 80)!r} does not begin with an epoch number")
    return int(epoch)


def validation_scores(folder: Path) -> dict[int, float]:
    """Return epoch -> validation top-1 from all results files of a folder."""
    scores: dict[int, float] = {}
    for path in folder.glob(f"val_{RESULTS}"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                try:
                    scores[int(row["Epoch"])] = float(row["Top1"])
                except (KeyError, TypeError, ValueError):
                    raise ValueError(f"{path}: {sanitize(row)} is not a row Epoch,Top1,Top5,Loss") from None
    return dict(sorted(scores.items()))
