"""Checks of frame stores, and the repair of `n_frames` files and indexes."""

import functools
import random
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import simplejpeg

from data.common.atomic_io import atomic_write
from data.frame_store import (
    COUNT,
    DATABASE,
    HALF_TABLE,
    ROW_ID_IS_FRAME,
    FrameStore,
    FrameStoreError,
    Size,
    frame_number,
    jpeg_size,
    open_database,
)
from data.label_files import Annotation
from data.store_writer import edit_database
from data.video_list import other_spellings


class StoreReport(NamedTuple):
    """The result of a check.

    `status`: "found", "missing" or "corrupt". `frames`: number of valid rows. `issues`: errors. `repairable`: what
    `repair_store` can write, "index" and "n_frames", without which a store is valid, but slow to read. `fixed`: what it
    has written. `short`: 1 for a found store with fewer frames than a clip.
    """

    status: str
    short: int = 0
    frames: int = 0
    issues: Sequence[str] = ()
    repairable: Sequence[str] = ()
    fixed: Sequence[str] = ()


class _Row(NamedTuple):
    number: int
    row_id: int
    num_bytes: int


def check_store(folder: Path, *, random_frames: int = 3, full: bool = False) -> StoreReport:
    """Check a store's rows and `n_frames`, and decode its first, last and smallest frame and some random ones.

    A truncated JPEG is smaller than the others. `full` decodes all frames.
    """
    try:
        if not (folder / DATABASE).is_file():
            return StoreReport("missing", issues=[f"missing (no {DATABASE})"])
        count = ""
        if (folder / COUNT).is_file():
            count = (folder / COUNT).read_text(errors="replace").strip()[:40]
        with open_database(folder / DATABASE) as connection:
            rows, issues = _read_rows(connection)
            chosen = rows if full else _sample(rows, random_frames, random.Random(folder.name))
            has_half_level = FrameStore(folder).has_half_level
            issues += [*_check_numbers(rows), *_check_jpegs(connection, chosen, has_half_level)]
            has_index = _has_index(connection)
    except (FrameStoreError, OSError) as error:
        return StoreReport("corrupt", issues=[f"unreadable ({error})"])
    repairable = []
    if not issues:
        repairable = ["index"] * (not has_index) + ["n_frames"] * (count != str(len(rows)))
    if count not in ("", str(len(rows))):
        issues.append(f"wrong n_frames ({count}, but the database has {len(rows)} frames)")
    status = "corrupt" if issues else "found"
    return StoreReport(status, frames=len(rows), issues=issues, repairable=repairable)


def _read_rows(connection: sqlite3.Connection) -> tuple[list[_Row], list[str]]:
    """Return the rows sorted by frame number, without their images, and an issue if a row is not a frame."""
    is_ours = connection.execute("PRAGMA user_version").fetchone()[0] == ROW_ID_IS_FRAME
    rows, issues = [], []
    for row_id, name, num_bytes in connection.execute("SELECT rowid, ObjId, length(frames) FROM Images"):
        number = frame_number(name)
        if number is None or (is_ours and number != row_id):
            issues = [f"wrong name (row {row_id} has ObjId {str(name)[-80:]!r})"]
        else:
            rows.append(_Row(number, row_id, num_bytes or 0))
    return sorted(rows), issues


def _has_index(connection: sqlite3.Connection) -> bool:
    (*_, plan) = connection.execute("EXPLAIN QUERY PLAN SELECT rowid FROM Images WHERE ObjId = ''").fetchone()
    return plan.startswith("SEARCH")


def _sample(rows: list[_Row], random_frames: int, generator: random.Random) -> list[_Row]:
    if not rows:
        return []
    smallest = min(rows, key=lambda row: row.num_bytes)
    return sorted({rows[0], rows[-1], smallest, *generator.choices(rows, k=random_frames)})


def _check_numbers(rows: list[_Row]) -> Iterator[str]:
    """Yield the first gap or duplicate in the frame numbers, which must count from 1."""
    if not rows:
        yield "missing frame (all)"
    for expected, row in enumerate(rows, start=1):
        if row.number != expected:
            error = "missing" if row.number > expected else "duplicate"
            yield f"{error} frame ({min(row.number, expected)})"
            return


def _check_jpegs(connection: sqlite3.Connection, rows: list[_Row], has_half_level: bool) -> Iterator[str]:
    """Yield the first frame that does not decode, has another size than the first one, or no half in a half level."""
    sizes = []
    for row in rows:
        query, what = "SELECT frames FROM Images WHERE rowid = ?", "JPEG"
        try:
            (jpeg,) = connection.execute(query, (row.row_id,)).fetchone()
            sizes.append(jpeg_size(jpeg))
            simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
            if has_half_level:
                what = "half level"
                _check_half(connection, row, sizes[-1])
        except (ValueError, TypeError) as error:
            yield f"corrupt {what} (frame {row.number}: {error})"
            return
        if sizes[-1] != sizes[0]:
            yield f"wrong size (frame {row.number} has height and width {sizes[-1]}, the first {sizes[0]})"
            return


def _check_half(connection: sqlite3.Connection, row: _Row, size: Size) -> None:
    """Raise ValueError unless the half level has a frame of this height and width at half its lines."""
    query = f"SELECT frames, height, width FROM {HALF_TABLE} WHERE rowid = ?"
    half = connection.execute(query, (row.row_id,)).fetchone()
    if half is None:
        raise ValueError("it is missing")
    shape = simplejpeg.decode_jpeg(half[0], colorspace="BGR").shape[:2]
    if half[1:] != size or shape != tuple((side + 1) // 2 for side in size):
        raise ValueError(f"height and width {shape}, of the whole {size}, listed {half[1:]}")


def repair_store(folder: Path) -> StoreReport:
    """Decode all frames of a store and, if they are valid, write what is `repairable`; return the report after that.

    Files are replaced atomically, so other processes can read the store meanwhile.
    """
    report = check_store(folder, full=True)
    try:
        if "index" in report.repairable:
            with edit_database(folder) as connection:
                connection.execute("CREATE UNIQUE INDEX Images_key ON Images (ObjId)")
        if "n_frames" in report.repairable:
            atomic_write(folder / COUNT, f"{report.frames}\n")
    except OSError as error:
        return report._replace(status="corrupt", issues=[*report.issues, f"not fixed ({error})"])
    return check_store(folder, full=True)._replace(fixed=report.repairable)


def verify_store(folder: Path, *, random_frames: int, full: bool, fix: bool, clip_length: int) -> StoreReport:
    """Check a store; with `fix`, repair it after all of its frames were decoded."""
    report = check_store(folder, random_frames=random_frames, full=full)
    if fix and report.repairable:
        report = repair_store(folder)
    return report._replace(short=int(report.status == "found" and report.frames < clip_length))


def verify_stores(
    rows: Sequence[Annotation], *, workers: int, root: Path, **options: Any
) -> Iterator[StoreReport]:
    """Yield the report of each row in order, from `workers` threads: decoding and SQLite release Python's lock."""
    spelled = other_spellings(root)
    folders = [root / spelled.get(row.folder, row.folder) for row in rows]
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(functools.partial(verify_store, **options), folders)
