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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import simplejpeg

from data.common.cli import sanitize

DATABASE = "frames.db"
COUNT = "n_frames"
HALF_TABLE = "HalfImages"  # frames at half the lines, in some stores
ROW_ID_IS_FRAME = 1  # PRAGMA user_version of our stores; those of others have 0
MAX_JPEG_BYTES = 2**25
MAX_FRAMES = 2**31
MAX_SECONDS = 10**6
MAX_PIXELS = 2**25  # 8K
MAX_ASPECT_RATIO = 32  # frames are scaled by their short side
StrPath = str | os.PathLike[str]
Size = tuple[int, int]  # height and width


class FrameStoreError(ValueError):
    """A store that cannot be read; the message names the file and the reason."""


def jpeg_size(jpeg: bytes) -> Size:
    """Return height and width. Raise ValueError for data that is not a JPEG or exceeds the limits of a frame."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    return check_size(height, width)


def check_size(height: int, width: int) -> Size:
    """Return height and width. Raise ValueError if they exceed the limits of a frame."""
    if not 1 <= height * width <= MAX_PIXELS or max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"has {width} x {height} pixels; allowed are {MAX_PIXELS} and an aspect ratio of {MAX_ASPECT_RATIO}"
        )
    return height, width


def frame_number(name: object) -> int | None:
    """Return the number at the end of an `ObjId`, before a file extension if there is one; None if there is none."""
    match = re.search(r"(\d+)(?:\.[A-Za-z]\w*)?$", str(name)[-80:])
    return None if match is None else int(match[1])


@contextmanager
def open_database(path: StrPath) -> Iterator[sqlite3.Connection]:
    """Open a database read-only and immutable: nothing is locked or written, so it may be on a read-only disk.

    Raises FrameStoreError if it cannot be opened, and for any SQLite error in the body.
    """
    file = "file:" + "//" * os.path.isabs(path) + quote(os.fsencode(path))  # escapes #, ? and % in video ids
    try:
        try:
            connection = sqlite3.connect(f"{file}?mode=ro&immutable=1", uri=True)
        except sqlite3.OperationalError:
            Path(path).open("rb").close()  # says why, which SQLite does not
            raise
        with closing(connection):
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_JPEG_BYTES)
            yield connection
    except OSError as error:
        raise FrameStoreError(f"{path}: {error.strerror}") from error
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter if the message quotes bytes
        raise FrameStoreError(f"{path}: {sanitize(error)}") from error


class FrameStore:
    """The frames of one video. Each read opens the database anew: there is no handle to leak or to share by forking.

    All attributes and methods raise FrameStoreError if the folder has no readable store.
    """

    def __init__(self, folder: StrPath) -> None:
        self.path = os.path.join(folder, DATABASE)
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Open the database, once for all reads in the body."""
        if self._connection is not None:  # by a caller
            yield self._connection
            return
        with open_database(self.path) as connection:
            self._connection = connection
            try:
                yield connection
            finally:
                self._connection = None

    @cached_property
    def n_frames(self) -> int:
        """The number of frames: the last row id of a store of ours, which saves opening `n_frames`."""
        if self._is_ours:
            (count,) = self._first("SELECT ifnull(max(rowid), 0) FROM Images")
        elif (count := self._read_count()) is None:
            (count,) = self._first("SELECT COUNT(DISTINCT ObjId) FROM Images")
        if not 1 <= count <= MAX_FRAMES:
            raise FrameStoreError(f"{self.path}: has {count} frames; allowed are 1 to {MAX_FRAMES}")
        return count

    @property
    def has_half_level(self) -> bool:
        """Whether the store has its frames at half the lines, too."""
        return self._is_ours and self._has_table(HALF_TABLE)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return frames by index, counted from 0, in any order, repeats allowed: uint8 `(T, H, W, 3)`, BGR."""
        return self.fetch(indices).decode()

    def fetch(self, indices: Sequence[int], half_of: Size | None = None) -> "EncodedFrames":
        """Return the same frames without decoding them; with their height and width, `half_of`, of the half level."""
        indices, jpegs = [int(index) for index in indices], {}
        with self.opened() as connection:
            count, row_ids = self.n_frames, None if self._is_ours else self._scan_row_ids(connection)
            table = "ObjId, frames FROM Images" if half_of is None else f"NULL, frames FROM {HALF_TABLE}"
            query, are_named = f"SELECT {table} WHERE rowid = ?", row_ids is None and half_of is None
            for index in sorted(set(indices)):
                if not 0 <= index < count:
                    raise FrameStoreError(f"{self.path}: frame index {index} is not in 0 to {count - 1}")
                row_id = index + 1 if row_ids is None else row_ids.get(index)
                row = connection.execute(query, (row_id,)).fetchone()
                if row is None:
                    raise FrameStoreError(f"{self.path}: frame {index} of {count} is missing")
                name, jpegs[index] = row
                if are_named and frame_number(name) != row_id:  # else wrong frames would be silent
                    raise FrameStoreError(f"{self.path}: row {row_id} has ObjId {sanitize(name)!r}")
        return EncodedFrames(self.path, indices, jpegs, half_of)

    def frame_size(self, index: int) -> Size:
        """Return height and width of a frame of a store with a half level, without reading the frame."""
        columns = "CAST(height AS INTEGER), CAST(width AS INTEGER)"
        row = self._first(f"SELECT {columns} FROM {HALF_TABLE} WHERE rowid = ?", index + 1)
        if row is None:
            raise FrameStoreError(f"{self.path}: row {index + 1} of {HALF_TABLE} is missing")
        try:
            return check_size(*row)
        except ValueError as error:
            raise FrameStoreError(f"{self.path}: row {index + 1} of {HALF_TABLE}: {error}") from error

    def times(self) -> np.ndarray | None:
        """Return the seconds of each frame, 0 for the first: float64 `(n_frames,)`; None if they are not known."""
        with self.opened() as connection:
            if not self._has_table("Times"):
                return None
            rows = connection.execute("SELECT CAST(seconds AS REAL) FROM Times ORDER BY rowid").fetchall()
        if len(rows) != self.n_frames:
            raise FrameStoreError(f"{self.path}: Times has {len(rows)} rows, not {self.n_frames}")
        times = np.array(rows, np.float64)[:, 0]
        if not ((times[1:] >= times[:-1]).all() and 0 <= times[0] <= times[-1] <= MAX_SECONDS):
            raise FrameStoreError(f"{self.path}: Times does not ascend from 0 to at most {MAX_SECONDS} s")
        return times

    def _read_count(self) -> int | None:
        """Return the number in `n_frames`; None if the file is missing or empty."""
        path = Path(self.path).with_name(COUNT)
        try:
            text = path.read_text().strip()
            return int(text) if text else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise FrameStoreError(f"{path}: {sanitize(error)}") from error

    @cached_property
    def _is_ours(self) -> bool:
        return self._first("PRAGMA user_version") == (ROW_ID_IS_FRAME,)

    def _has_table(self, name: str) -> bool:
        return self._first("SELECT 1 FROM sqlite_master WHERE name = ?", name) is not None

    def _first(self, query: str, *values: object) -> Any:
        if self._connection is None:
            with self.opened():
                return self._first(query, *values)
        return self._connection.execute(query, values).fetchone()

    def _scan_row_ids(self, connection: sqlite3.Connection) -> dict[int, int]:
        """Return the row id of each frame index of a store of others. Reads all names once, but no images.

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
        if self._read_count() is not None:
            return {number - 1: row_id for number, row_id in row_ids.items()}
        return dict(enumerate(row_ids[number] for number in sorted(row_ids)))


class EncodedFrames:
    """JPEG frames of a clip, `height` x `width` pixels each, at the positions given by `indices`.

    With `half_of`, that height and width, the JPEGs have half of them, and only halves can be decoded. Raises
    FrameStoreError, here and when decoding, for frames that are not JPEGs or differ in size.
    """

    def __init__(
        self, path: StrPath, indices: Sequence[int], jpegs: Mapping[int, bytes], half_of: Size | None = None
    ) -> None:
        self.path = path
        self.indices = indices
        self.jpegs = jpegs
        self.half_level = half_of is not None
        try:  # the others must be equal, as one buffer is for all
            self.height, self.width = half_of or jpeg_size(jpegs[indices[0]])
        except (ValueError, TypeError) as error:
            raise FrameStoreError(f"{path}: frame {indices[0]} does not decode, {error}") from error

    def __len__(self) -> int:
        return len(self.indices)

    def decode(self) -> np.ndarray:
        """Return all frames: uint8 `(T, H, W, 3)`, BGR."""
        frames = np.empty((len(self), self.height, self.width, 3), np.uint8)
        for positions, frame in self.decode_each(halved=False):
            frames[positions] = frame
        return frames

    def decode_each(self, halved: bool, fast: bool = False) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield (positions in the clip, frame) for each different frame; the next one overwrites it, which saves time.

        `halved` frames have `ceil(H / 2)` x `ceil(W / 2)` pixels, each the mean of four: those of the half level, or
        libjpeg's inverse transform at 4/8, which is faster than at full size. 2/8 would alias, and 5/8 to 7/8 are
        slower than 8/8. `fast` repeats each color of 4:2:0 for its four pixels, where exact decoding interpolates: the
        PSNR of real frames is 45 dB and better, 51 in the median.
        """
        positions: dict[int, list[int]] = {}
        for position, index in enumerate(self.indices):
            positions.setdefault(index, []).append(position)
        height, width = (self.height + halved) >> halved, (self.width + halved) >> halved
        frame = np.empty((height, width, 3), np.uint8)
        scaled = {"min_height": height, "min_width": width, "min_factor": 2}  # 8/8 or 4/8, as it fits
        for index, index_positions in positions.items():
            try:
                decoded = simplejpeg.decode_jpeg(
                    self.jpegs[index], "BGR", fastupsample=fast, buffer=frame, **scaled
                )
                if decoded.shape != frame.shape:
                    raise ValueError(f"but to {decoded.shape[1]} x {decoded.shape[0]}")
            except (ValueError, TypeError) as error:
                name = f"{self.path}: frame {index}" + f" of {HALF_TABLE}" * self.half_level
                raise FrameStoreError(f"{name} does not decode to {width} x {height}, {error}") from error
            yield index_positions, frame


def has_store(folder: Path) -> bool:
    """Return whether a folder holds a store. Our stores are renamed into place, so they are complete."""
    return (folder / DATABASE).is_file()
