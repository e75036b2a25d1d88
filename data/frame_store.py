"""One video as JPEG frames in a SQLite database: the format, and reading; data/store_writer.py writes.

    <root>/jpg/<class>/<video_id>/frames.db     table Images(ObjId, frames, size), one row per frame
                                                table Times(seconds), where they are known
                                                table HalfImages(height, width, frames), with a half level
    <root>/jpg/<class>/<video_id>/n_frames      number of frames, as text

`ObjId` is `<video_id>/frame_%05d`, counted from 1, `frames` the JPEG bytes, `size` the image width; `seconds` is the
time of a frame in its video, 0 for the first. Row n of HalfImages has frame n at half its lines: `height` and `width`
are those of the whole frame, and each pixel is the mean of four of its pixels.

In stores written here the row id is the frame number (marked by `user_version` 1), so that reading a clip costs a few
page reads. Stores of the original and of `dataset2database` (type STRING, no index, rows in any order, maybe no
`n_frames`) are read too.
"""

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import simplejpeg

from data.common.cli import sanitize

DATABASE = "frames.db"
COUNT = "n_frames"
HALF_TABLE = "HalfImages"  # frames at half the lines, in some stores
ROW_ID_IS_FRAME = 1  # PRAGMA user_version of our stores; those of others have 0
MAX_JPEG_BYTES = 2**25
MAX_FRAMES = 2**31
MAX_PIXELS = 2**25  # 8K
MAX_ASPECT_RATIO = 32  # frames are scaled by their short side


class FrameStoreError(ValueError):
    """A store that cannot be read; the message names the file and the reason."""


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return height and width. Raise ValueError for data that is not a JPEG or exceeds the limits of a frame."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > MAX_PIXELS or max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"has {width} x {height} pixels; allowed are {MAX_PIXELS} and an aspect ratio of {MAX_ASPECT_RATIO}"
        )
    return height, width


def frame_number(name: object) -> int | None:
    """Return the number at the end of an `ObjId`, before a file extension if there is one; None if there is none."""
    match = re.search(r"(\d+)(?:\.[A-Za-z]\w*)?$", str(name)[-80:])
    return None if match is None else int(match[1])


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database read-only and immutable: nothing is locked or written, so it may be on a read-only disk.

    Raises FrameStoreError if it cannot be opened, and for any SQLite error in the body.
    """
    try:
        if not path.is_file():
            raise FrameStoreError(f"{path}: no such file")
        uri = path.absolute().as_uri() + "?mode=ro&immutable=1"  # as_uri escapes #, ? and % in video ids
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_JPEG_BYTES)
            yield connection
    except (sqlite3.Error, OSError, UnicodeDecodeError) as error:  # the last if the message quotes bytes
        raise FrameStoreError(f"{path}: {sanitize(error)}") from error


class FrameStore:
    """The frames of one video. Each read opens the database anew: there is no handle to leak or to share by forking.

    Raises FrameStoreError, here and in `read`, if the folder has no readable store.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / DATABASE
        count = self._read_count()
        self._has_count = count is not None
        if count is None:
            with open_database(self.path) as connection:
                count = connection.execute("SELECT COUNT(DISTINCT ObjId) FROM Images").fetchone()[0]
        if not 1 <= count <= MAX_FRAMES:
            raise FrameStoreError(f"{self.path}: has {count} frames; allowed are 1 to {MAX_FRAMES}")
        self.n_frames: int = count

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return frames by index, counted from 0, in any order, repeats allowed: uint8 `(T, H, W, 3)`, BGR."""
        return self.fetch(indices).decode()

    def fetch(self, indices: Sequence[int]) -> "EncodedFrames":
        """Return the same frames without decoding them."""
        indices = [int(index) for index in indices]
        for index in indices:
            if not 0 <= index < self.n_frames:
                raise FrameStoreError(f"{self.path}: frame index {index} is not in 0 to {self.n_frames - 1}")
        with open_database(self.path) as connection:
            jpegs = dict(self._select(connection, sorted(set(indices))))
        return EncodedFrames(self.path, indices, jpegs)

    def times(self) -> np.ndarray | None:
        """Return the seconds of each frame, 0 for the first: float64 `(n_frames,)`; None if they are not known."""
        with open_database(self.path) as connection:
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Times'").fetchone() is None:
                return None
            rows = connection.execute("SELECT seconds FROM Times ORDER BY rowid").fetchall()
        if len(rows) != self.n_frames:
            raise FrameStoreError(f"{self.path}: Times has {len(rows)} rows, not {self.n_frames}")
        return np.array(rows, np.float64)[:, 0]

    def _read_count(self) -> int | None:
        """Return the number in `n_frames`; None if the file is missing or empty."""
        path = self.path.with_name(COUNT)
        try:
            text = path.read_text().strip()
            return int(text) if text else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise FrameStoreError(f"{path}: {sanitize(error)}") from error

    def _select(self, connection: sqlite3.Connection, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (index, JPEG bytes)."""
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        row_ids = None if version == ROW_ID_IS_FRAME else self._scan_row_ids(connection)
        for index in indices:
            row_id = index + 1 if row_ids is None else row_ids.get(index)
            query = "SELECT ObjId, frames FROM Images WHERE rowid = ?"
            row = connection.execute(query, (row_id,)).fetchone()
            if row is None:
                raise FrameStoreError(f"{self.path}: frame {index} of {self.n_frames} is missing")
            name, jpeg = row
            if row_ids is None and frame_number(name) != row_id:  # else wrong frames would be silent
                raise FrameStoreError(f"{self.path}: row {row_id} has ObjId {sanitize(name)!r}")
            yield index, jpeg

    def _scan_row_ids(self, connection: sqlite3.Connection) -> dict[int, int]:
        """Return the row id of each frame index. Reads all names once, but no images.

        The index is the frame number minus 1; without `n_frames`, which would reveal missing frames, it is the rank of
        the number. Of duplicate rows of a frame the last counts.
        """
        row_ids: dict[int, int] = {}
        videos = set()
        for row_id, name in connection.execute("SELECT rowid, ObjId FROM Images"):
            number = frame_number(name)
            if number is None:
                raise FrameStoreError(f"{self.path}: ObjId {sanitize(name)!r} has no frame number")
            videos.add(str(name).rpartition("/")[0])
            row_ids[number] = row_id
        if len(videos) > 1:
            raise FrameStoreError(f"{self.path}: has frames of {len(videos)} videos")
        if self._has_count:
            return {number - 1: row_id for number, row_id in row_ids.items()}
        return dict(enumerate(row_ids[number] for number in sorted(row_ids)))


class EncodedFrames:
    """JPEG frames of a clip, `height` x `width` pixels each, at the positions given by `indices`.

    Raises FrameStoreError, here and when decoding, for frames that are not JPEGs or differ in size.
    """

    def __init__(self, path: Path, indices: Sequence[int], jpegs: Mapping[int, bytes]) -> None:
        self.path = path
        self.indices = indices
        self.jpegs = jpegs
        sizes = set()
        for index, jpeg in jpegs.items():
            try:
                sizes.add(jpeg_size(jpeg))
            except (ValueError, TypeError) as error:
                raise FrameStoreError(f"{path}: frame {index} does not decode, {error}") from error
        if len(sizes) > 1:
            raise FrameStoreError(f"{path}: frames differ in size, {sorted(sizes)}")
        ((self.height, self.width),) = sizes

    def __len__(self) -> int:
        return len(self.indices)

    def decode(self) -> np.ndarray:
        """Return all frames: uint8 `(T, H, W, 3)`, BGR."""
        frames = np.empty((len(self), self.height, self.width, 3), np.uint8)
        for positions, frame in self.decode_each(halved=False):
            frames[positions] = frame
        return frames

    def decode_each(self, halved: bool) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield (positions in the clip, frame) for each different frame; the next one overwrites it, which saves time.

        `halved` frames have `ceil(H / 2)` x `ceil(W / 2)` pixels, each the mean of four: libjpeg's inverse transform at
        4/8, which is faster than at full size. 2/8 would alias, and 5/8 to 7/8 are slower than 8/8.
        """
        positions: dict[int, list[int]] = {}
        for position, index in enumerate(self.indices):
            positions.setdefault(index, []).append(position)
        height, width = (self.height + halved) >> halved, (self.width + halved) >> halved
        frame = np.empty((height, width, 3), np.uint8)
        scaled = {"min_height": height, "min_width": width, "min_factor": 2} if halved else {}
        for index, index_positions in positions.items():
            try:
                simplejpeg.decode_jpeg(self.jpegs[index], colorspace="BGR", buffer=frame, **scaled)
            except ValueError as error:
                raise FrameStoreError(f"{self.path}: frame {index} does not decode, {error}") from error
            yield index_positions, frame


def has_store(folder: Path) -> bool:
    """Return whether a folder holds a store. Our stores are renamed into place, so they are complete."""
    return (folder / DATABASE).is_file()
