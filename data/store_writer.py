"""Write a frame store: the format is that of data/frame_store.py."""

import errno
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from data.common.atomic_io import flush_to_disk
from data.common.staging import staging_folder
from data.frame_store import COUNT, DATABASE, ROW_ID_IS_FRAME, jpeg_size


def write_frame_store(folder: Path, jpegs: Iterable[bytes], times: Sequence[float] = ()) -> int:
    """Write a store from JPEG frames in order, and return their number.

    `times`: seconds of each frame from the first; empty where they are not known. A list may be filled with `jpegs`.
    The store is built in a staging folder, flushed and renamed, so `folder` holds a complete store or does not exist.
    Raises ValueError if there are no frames, OSError if `folder` is not empty (nothing is ever replaced), and whatever
    `jpegs` raises.
    """
    with staging_folder(folder.parent) as staging:
        store = staging / "store"
        store.mkdir()
        try:
            count = _write_database(store / DATABASE, folder.name, jpegs, times)
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


def _write_database(path: Path, video_id: str, jpegs: Iterable[bytes], times: Sequence[float]) -> int:
    count = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")  # an unfinished database is deleted as a whole
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA user_version = {ROW_ID_IS_FRAME}")
        connection.execute(
            "CREATE TABLE Images (ObjId TEXT NOT NULL UNIQUE, frames BLOB NOT NULL, size INTEGER NOT NULL)"
        )
        connection.execute("BEGIN")
        for count, jpeg in enumerate(jpegs, start=1):
            _, width = jpeg_size(jpeg)
            row = (count, f"{video_id}/frame_{count:05d}", jpeg, width)
            connection.execute("INSERT INTO Images (rowid, ObjId, frames, size) VALUES (?, ?, ?, ?)", row)
        if times:
            connection.execute("CREATE TABLE Times (seconds REAL NOT NULL)")
            connection.executemany("INSERT INTO Times VALUES (?)", [(time,) for time in times])
        connection.execute("COMMIT")
    return count
