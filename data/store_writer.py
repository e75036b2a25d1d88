"""Write a frame store: the format is that of data/frame_store.py."""

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import simplejpeg

from data.common.atomic_io import flush_to_disk
from data.common.staging import staging_folder
from data.frame_store import COUNT, DATABASE, HALF_TABLE, ROW_ID_IS_FRAME, FrameStore, jpeg_size

# Measured on real frames: at 80 pixels 0.94 dB below the PSNR of decoding the whole at 4/8 (1 dB is allowed), at 112,
# where 4/8 is nearly exact (54 dB), 42.9 dB; 0.76 of the bytes of the whole frame.
HALF_QUALITY = 94


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
        with _transaction(store / DATABASE, folder) as connection:
            count = _write_frames(connection, folder.name, jpegs)
            if times:
                connection.execute("CREATE TABLE Times (seconds REAL NOT NULL)")
                connection.executemany("INSERT INTO Times VALUES (?)", [(time,) for time in times])
            if half_level:
                _write_half_level(connection)
        (store / COUNT).write_text(f"{count}\n")
        flush_to_disk(store / COUNT)
        try:
            store.rename(folder)
        except OSError:
            if folder.exists():
                raise FileExistsError(f"{folder}: already exists") from None
            raise
    return count


@contextmanager
def _transaction(path: Path, folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection whose changes are committed and flushed at the end. Raises OSError that names the `folder`."""
    try:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA synchronous = OFF")  # it is flushed once, below
            yield connection
    except sqlite3.Error as error:
        raise OSError(f"{folder}: cannot be written, {error}") from error
    flush_to_disk(path)


def _write_frames(connection: sqlite3.Connection, video_id: str, jpegs: Iterable[bytes]) -> int:
    connection.execute(f"PRAGMA user_version = {ROW_ID_IS_FRAME}")
    columns = "ObjId TEXT NOT NULL UNIQUE, frames BLOB NOT NULL, size INTEGER NOT NULL"
    connection.execute(f"CREATE TABLE Images ({columns})")
    count = 0
    for count, jpeg in enumerate(jpegs, start=1):
        _, width = jpeg_size(jpeg)
        row = (count, f"{video_id}/frame_{count:05d}", jpeg, width)
        connection.execute("INSERT INTO Images (rowid, ObjId, frames, size) VALUES (?, ?, ?, ?)", row)
    if count == 0:
        raise ValueError("no frame could be decoded")
    return count


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
    store = FrameStore(folder)
    if store.has_half_level:
        return "done_before"
    with store.opened() as connection:
        if connection.execute("PRAGMA user_version").fetchone() != (ROW_ID_IS_FRAME,):
            return "foreign"
    with edit_database(folder) as connection:
        _write_half_level(connection)
    return "half_level_added"


@contextmanager
def edit_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to a copy of a store's database, which replaces it at the end. Raises OSError.

    The time of the class folder is set, so that a cached list of videos, which has the databases' sizes, is not used.
    """
    path = folder.resolve() / DATABASE
    with staging_folder(path.parent.parent) as staging:
        copy = staging / "copy"
        shutil.copyfile(path, copy)
        with _transaction(copy, folder) as connection:
            yield connection
        shutil.copymode(path, copy)
        copy.replace(path)
    os.utime(folder.parent)  # the store may be a link to another place
