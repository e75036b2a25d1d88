"""Write a frame store: the format is that of data/frame_store.py."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import simplejpeg

from data.common.atomic_io import atomic_path, flush_to_disk, remove_leftovers
from data.common.staging import staging_folder
from data.frame_store import COUNT, DATABASE, HALF_TABLE, ROW_ID_IS_FRAME, jpeg_size, open_database

HALF_QUALITY = 94  # the lowest at which clips of 80 pixels are within 1 dB of decoding the whole at 4/8


def write_frame_store(
    folder: Path, jpegs: Iterable[bytes], times: Sequence[float] = (), half_level: bool = False
) -> int:
    """Write a store from JPEG frames in order, and return their number.

    `times`: seconds of each frame from the first; empty where they are not known. A list may be filled with `jpegs`.
    `half_level`: also write each frame at half its lines.
    The store is built in a staging folder, flushed and renamed, so `folder` holds a complete store or does not exist.
    Raises ValueError if there are no frames, OSError if `folder` is not empty (nothing is ever replaced), and whatever
    `jpegs` raises.
    """
    with staging_folder(folder.parent) as staging:
        store = staging / "store"
        store.mkdir()
        try:
            count = _write_database(store / DATABASE, folder.name, jpegs, times, half_level)
        except sqlite3.Error as error:
            raise OSError(f"{folder}: cannot be written, {error}") from error
        if count == 0:
            raise ValueError("no frame could be decoded")
        (store / COUNT).write_text(f"{count}\n")
        for path in (store / DATABASE, store / COUNT):
            flush_to_disk(path)
        try:
            store.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise FileExistsError(f"{folder}: already exists") from None
            raise
    return count


def _write_database(
    path: Path, video_id: str, jpegs: Iterable[bytes], times: Sequence[float], half_level: bool
) -> int:
    count = 0
    with _transaction(path) as connection:
        connection.execute(f"PRAGMA user_version = {ROW_ID_IS_FRAME}")
        connection.execute(
            "CREATE TABLE Images (ObjId TEXT NOT NULL UNIQUE, frames BLOB NOT NULL, size INTEGER NOT NULL)"
        )
        for count, jpeg in enumerate(jpegs, start=1):
            _, width = jpeg_size(jpeg)
            row = (count, f"{video_id}/frame_{count:05d}", jpeg, width)
            connection.execute("INSERT INTO Images (rowid, ObjId, frames, size) VALUES (?, ?, ?, ?)", row)
        if times:
            connection.execute("CREATE TABLE Times (seconds REAL NOT NULL)")
            connection.executemany("INSERT INTO Times VALUES (?)", [(time,) for time in times])
        if half_level:
            _write_half_level(connection)
    return count


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection whose changes are committed at the end; after an error the database is to be deleted."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")


def _write_half_level(connection: sqlite3.Connection) -> None:
    # the sizes come first: SQLite reads a row up to the last column that is asked for
    columns = "height INTEGER NOT NULL, width INTEGER NOT NULL, frames BLOB NOT NULL"
    connection.execute(f"CREATE TABLE {HALF_TABLE} ({columns})")
    insert = f"INSERT INTO {HALF_TABLE} (rowid, height, width, frames) VALUES (?, ?, ?, ?)"
    for number, jpeg in connection.execute("SELECT rowid, frames FROM Images ORDER BY rowid"):
        connection.execute(insert, (number, *jpeg_size(jpeg), halve(jpeg)))


def halve(jpeg: bytes) -> bytes:
    """Return a frame at half its lines, `ceil(H / 2)` x `ceil(W / 2)` pixels, each the mean of four.

    Odd rows and columns are repeated. Colors are kept at all pixels (4:4:4), which is what 4:2:0 keeps of the whole.
    Raises ValueError for a JPEG that does not decode.
    """
    frame = simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
    height, width, _ = frame.shape
    frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    half = cv2.resize(frame, (frame.shape[1] // 2, frame.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(half, HALF_QUALITY, "BGR", "444")


def add_half_level(folder: Path) -> str:
    """Add the half level to a store; return "half_level_added", "done_before", or "foreign" for those of others.

    Raises ValueError for a store that cannot be read or decoded, and OSError where it cannot be written.
    """
    with open_database(folder / DATABASE) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] != ROW_ID_IS_FRAME:
            return "foreign"
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (HALF_TABLE,)).fetchone():
            return "done_before"
    remove_leftovers(folder)
    with edit_database(folder) as connection:
        _write_half_level(connection)
    return "half_level_added"


@contextmanager
def edit_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a copy of a store's database, which replaces it at the end. Raises OSError."""
    path = (folder / DATABASE).resolve()
    try:
        with atomic_path(path) as temporary:
            shutil.copyfile(path, temporary)
            with _transaction(temporary) as connection:
                yield connection
            shutil.copymode(path, temporary)
    except sqlite3.Error as error:
        raise OSError(f"{path}: cannot be written, {error}") from error
    os.utime(folder.parent)  # so that a cached list of videos, which has the databases' sizes, is not used
