"""What can be wrong with a frame store, found without trusting it, and what of that can be put right."""

import os
import shutil
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg

from data.common.atomic_io import atomic_write, flush_to_disk, naming, open_without_waiting, remove_leftovers
from data.frame_store import COUNT, DATABASE, FRAME_NUMBER, ROW_ID_IS_FRAME, DatabaseError, jpeg_size, opened

MAGIC = b"SQLite format 3\0"

# what is wrong
NO_FILE = "no file"
UNREADABLE = "unreadable"
EMPTY_FILE = "empty file"
NOT_SQLITE = "not SQLite"
DAMAGED = "damaged database"
NO_TABLE = "no table"
WRONG_NAME = "wrong name"
MISSING_FRAME = "missing frame"
EXTRA_FRAME = "extra frame"
WRONG_COUNT = "wrong n_frames"
BROKEN_JPEG = "broken JPEG"
WRONG_SIZE = "wrong size"
BESIDE_THE_ROWS = {WRONG_COUNT, MISSING_FRAME, EXTRA_FRAME}  # where the rows themselves have no gap
# what is allowed, but makes reading slow
NO_COUNT = "no n_frames"
NO_KEY = "no key"


class Finding(NamedTuple):
    """One thing that is wrong: which of the kinds above, and where."""

    kind: str
    detail: str


class StoreReport(NamedTuple):
    """What was found in a store of `frames` frames (rows, as far as they could be read).

    `slow`: what is allowed, but slow. `continuous`: the rows number the frames from 1 on, each once, without a gap.
    """

    frames: int
    continuous: bool
    wrong: list[Finding]
    slow: list[str]

    @property
    def fixable(self) -> bool:
        """Whether the rows are sound, so that only what is beside them may be wrong."""
        return self.continuous and {finding.kind for finding in self.wrong} <= BESIDE_THE_ROWS


class _FaultError(Exception):
    """Ends an inspection: what is behind this cannot be read."""

    def __init__(self, kind: str, detail: object) -> None:
        super().__init__(kind, str(detail))
        self.finding = Finding(kind, str(detail))


class _Row(NamedTuple):
    row_id: int
    number: int
    length: int


def inspect_store(folder: Path, *, seed: int, random_frames: int = 3, full: bool = False) -> StoreReport:
    """Look at everything but the pictures, and decode the first, the last, the shortest and some random frames.

    `full` decodes all. A JPEG that was cut off is shorter than others, hence the one with the fewest bytes.
    """
    path = folder / DATABASE
    wrong: list[Finding] = []
    slow: list[str] = []
    rows: list[_Row] = []
    try:
        _check_file(path)
        with _opened(path) as connection:
            columns = _check_table(connection)
            slow += [] if _has_key(connection) else [NO_KEY]
            rows, faults = _read_rows(connection)
            wrong += faults
            count = _stated_count(folder)
            slow += [NO_COUNT] if count is None else []
            wrong += _check_numbers([row.number for row in rows], count)
            chosen = rows if full else _choose(rows, np.random.default_rng(seed), random_frames)
            wrong += _check_pictures(connection, chosen, "size" in columns)
    except _FaultError as fault:
        wrong.append(fault.finding)
    numbers = [row.number for row in rows]
    return StoreReport(len(rows), bool(rows) and numbers == list(range(1, len(rows) + 1)), wrong, slow)


def repair_store(folder: Path, inspection: StoreReport) -> list[str]:
    """Write `n_frames` anew and add a key, where `inspection`, a full one, says that the frames are sound.

    What was done. Every file is there as a whole, the old one or the new one, at any time; no frame, row or file is
    removed. Raises OSError where the disk does not let it.
    """
    if not inspection.fixable:
        return []
    remove_leftovers(folder)  # of one that was killed
    done = []
    if NO_COUNT in inspection.slow or inspection.wrong:
        atomic_write(folder / COUNT, f"{inspection.frames}\n")
        done.append(COUNT)
    if NO_KEY in inspection.slow:
        _add_key((folder / DATABASE).resolve())
        done.append("key")
    return done


def _add_key(path: Path) -> None:
    """Index a copy beside its place, compare, and rename: who reads meanwhile sees the old file or the new one."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(staging):
            shutil.copyfile(path, staging)
        with closing(sqlite3.connect(staging, isolation_level=None)) as copy, _opened(path) as original:
            copy.execute("PRAGMA journal_mode = OFF")  # a copy that is not finished is thrown away
            copy.execute("CREATE UNIQUE INDEX Images_key ON Images (ObjId)")
            rows, _ = _read_rows(original)
            if all(row.row_id == row.number for row in rows):
                copy.execute(f"PRAGMA user_version = {ROW_ID_IS_FRAME}")
            everything = "SELECT rowid, * FROM Images ORDER BY rowid"
            for before, after in zip(original.execute(everything), copy.execute(everything), strict=True):
                if before != after:
                    raise OSError(f"{path}: row {before[0]} was copied wrongly, nothing was changed")
        if os.geteuid() == 0:
            os.chown(staging, path.stat().st_uid, path.stat().st_gid)
        shutil.copymode(path, staging)
        flush_to_disk(staging)
        staging.replace(path)
    except (sqlite3.Error, _FaultError) as error:
        raise OSError(f"{path}: could not be given a key, {error}") from error
    finally:
        staging.unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _FaultError(NO_FILE, f"{DATABASE} is not a file")
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except (FileNotFoundError, NotADirectoryError):
        raise _FaultError(NO_FILE, f"there is no {DATABASE}") from None
    except OSError as error:
        raise _FaultError(UNREADABLE, f"{DATABASE}: {error.strerror}") from None
    if not start:
        raise _FaultError(EMPTY_FILE, f"{DATABASE} has 0 bytes")
    if start != MAGIC:
        raise _FaultError(NOT_SQLITE, f"{DATABASE} begins with {start!r}")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """As data/frame_store.py reads it."""
    try:
        with opened(path) as connection:
            yield connection
    except DatabaseError as error:
        raise _FaultError(DAMAGED, error) from None


def _check_table(connection: sqlite3.Connection) -> set[str]:
    """The names of the table's columns, in lower case."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(Images)")]
    if not columns:
        raise _FaultError(NO_TABLE, "there is no table Images")
    names = {column.lower() for column in columns}  # as SQL reads them
    if not {"objid", "frames"} <= names:
        raise _FaultError(NO_TABLE, f"table Images has the columns {', '.join(sorted(columns))}")
    return names


def _has_key(connection: sqlite3.Connection) -> bool:
    for _, name, unique, *_ in connection.execute("PRAGMA index_list(Images)"):
        columns = [row[2] for row in connection.execute("SELECT * FROM pragma_index_info(?)", (name,))]
        if unique and [column and column.lower() for column in columns] == ["objid"]:
            return True
    return False


def _read_rows(connection: sqlite3.Connection) -> tuple[list[_Row], list[Finding]]:
    """The rows in the order of their frames' numbers; the images are not read. And those that are no frames."""
    ours = connection.execute("PRAGMA user_version").fetchone()[0] == ROW_ID_IS_FRAME
    rows, wrong = [], []
    for row_id, name, length in connection.execute("SELECT rowid, ObjId, length(frames) FROM Images"):
        number = FRAME_NUMBER.search(str(name)[-80:])
        if number is None:
            wrong.append(Finding(WRONG_NAME, f"{str(name)[-80:]!r} does not end with the number of a frame"))
        elif ours and int(number[1]) != row_id:
            wrong.append(Finding(WRONG_NAME, f"{str(name)[-80:]!r} is row {row_id}"))
        else:
            rows.append(_Row(row_id, int(number[1]), length or 0))
    return sorted(rows, key=lambda row: row.number), wrong[:1]


def _stated_count(folder: Path) -> str | None:
    """What `n_frames` says, None where it says nothing."""
    try:
        with open(folder / COUNT, "rb", opener=open_without_waiting) as file:
            return file.read(40).decode(errors="replace").strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _FaultError(UNREADABLE, f"{COUNT}: {error.strerror}") from None


def _check_numbers(numbers: Sequence[int], count: str | None) -> Iterator[Finding]:
    """Frames are numbered 1 to `n_frames`, each once."""
    if count is not None and not count.isdecimal():
        yield Finding(WRONG_COUNT, f"{count[:40]!r} is not a number of frames")
        count = None
    elif count is not None and int(count) != len(numbers):
        yield Finding(WRONG_COUNT, f"says {int(count)}, {len(numbers)} frames are there")
    if not numbers:
        yield Finding(MISSING_FRAME, "all of them")
        return
    last = int(count) if count is not None else max(numbers)
    times = Counter(numbers)
    there = sorted(number for number in times if 1 <= number <= last)
    # between those that are there, as `n_frames` may say anything
    missing = [
        (before + 1, after - 1) for before, after in pairwise([0, *there, last + 1]) if after > before + 1
    ]
    extra = sorted(number for number, count in times.items() if count > 1 or not 1 <= number <= last)
    if missing:
        yield Finding(MISSING_FRAME, _ranges(missing))
    if extra:
        yield Finding(EXTRA_FRAME, _ranges(_runs(extra)))


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """1, 2, 3, 7 -> (1, 3), (7, 7)."""
    present = set(numbers)
    starts = [number for number in numbers if number - 1 not in present]
    ends = [number for number in numbers if number + 1 not in present]
    return list(zip(starts, ends, strict=True))


def _ranges(runs: Sequence[tuple[int, int]]) -> str:
    """(1, 3), (7, 7) -> `1 to 3, 7`; the first few of many."""
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:5]]
    return ", ".join(shown + ["..."] * (len(runs) > 5))


def _choose(rows: Sequence[_Row], generator: np.random.Generator, random_frames: int) -> list[_Row]:
    if not rows:
        return []
    shortest = min(range(len(rows)), key=lambda index: rows[index].length)
    chosen = {0, len(rows) - 1, shortest, *generator.integers(len(rows), size=random_frames).tolist()}
    return [rows[index] for index in sorted(chosen)]


def _check_pictures(
    connection: sqlite3.Connection, rows: Iterable[_Row], has_size: bool
) -> Iterator[Finding]:
    """The first frame that does not decode, and the first of another size than it says or than the first of all."""
    query = f"SELECT frames, {'size' if has_size else 'NULL'} FROM Images WHERE rowid = ?"
    kinds: set[str] = set()
    first: tuple[int, int] | None = None
    for row in rows:
        # none where a column is called rowid, so that numbers of rows are not what they seem
        jpeg, stated = connection.execute(query, (row.row_id,)).fetchone() or (None, None)
        finding = None
        try:
            height, width = jpeg_size(jpeg)
            simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
        except (ValueError, TypeError) as error:
            finding = Finding(BROKEN_JPEG, f"frame {row.number}: {error}")
        else:
            first = first or (height, width)
            if (height, width) != first:
                finding = Finding(
                    WRONG_SIZE, f"frame {row.number} is {width}x{height}, the first {first[1]}x{first[0]}"
                )
            elif stated is not None and str(stated) != str(width):
                finding = Finding(WRONG_SIZE, f"frame {row.number} is {width} wide, its row says {stated}")
        if finding is not None and finding.kind not in kinds:
            kinds.add(finding.kind)
            yield finding
