"""CSV files of a run: append rows, and drop those after the resume point."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.common.atomic_io import atomic_write
from data.common.cli import sanitize

METRICS = ("Top1", "Top5", "Loss")
Row = dict[str, Any]
RESULTS = "results_s[0-9]*.csv"  # after train_ or val_; one file per start, named after its first epoch


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row and flush it to disk; a new file begins with the header."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())


def truncate_results(folder: Path, first_epoch: int) -> None:
    """Drop the rows of `first_epoch` and later, and partial rows left by a kill, so that no epoch is duplicated."""
    for path in folder.glob(f"*_{RESULTS}"):
        with path.open(newline="", encoding="utf-8") as file:
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


def read_rows(folder: Path, split: str) -> list[Row]:
    """Return the rows of all `<split>_results_s*.csv` of a run by epoch: numbers, NaN for empty fields; text `Batches`.

    Raise ValueError for an invalid row.
    """
    rows: list[Row] = []
    for path in sorted(folder.glob(f"{split}_{RESULTS}")):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file, strict=True)
            try:
                rows += map(_parse_row, reader)
                if missing := {"Epoch", *METRICS}.difference(reader.fieldnames or ()):
                    raise ValueError(f"no column {', '.join(sorted(missing))}")
            except (csv.Error, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: invalid row: {error!r}") from None
    return sorted(rows, key=lambda row: row["Epoch"])


def _parse_row(row: Mapping[str, str]) -> Row:
    numbers = {name: float(text or "nan") for name, text in row.items() if name != "Batches"}
    return {**numbers, "Epoch": int(row["Epoch"]), "Batches": row.get("Batches", "")}
