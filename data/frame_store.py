"""One video as JPEG frames in one SQLite file: the format, both directions. All SQL that training uses lives here.

    <root>/jpg/<class>/<video_id>/frames.db     table Images(ObjId, frames, size), a row a frame
    <root>/jpg/<class>/<video_id>/n_frames      the number of frames, as text

`ObjId` is `<video_id>/frame_%05d`, counted from 1, `frames` the JPEG bytes, `size` the width of the image. In stores
written here the row id is the frame's number (`user_version` 1 says so), so that a clip is a few page reads. Stores of
the original and of `dataset2database` (type STRING, no key, rows in any order, `n_frames` perhaps missing) are read as
they are.
"""

import errno
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import simplejpeg

from data.common.atomic_io import flush_to_disk, open_without_waiting
from data.common.cli import sanitize
from data.common.staging import staging_folder

LONGEST_VALUE = 2**25  # bytes of a JPEG, or of its name
LARGEST_FRAME = 2**25  # pixels: 8K
LONGEST_SIDE = 32  # times the other one, as frames are scaled to a short side
MOST_SCANS = 64  # of a progressive JPEG, which has ten or so; each goes over the whole frame
START_OF_SCAN = b"\xff\xda"


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width of a frame. ValueError for what is no JPEG, or takes more than a frame may."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > LARGEST_FRAME or max(height, width) > LONGEST_SIDE * min(height, width):
        raise ValueError(
            f"it has {width} x {height} pixels, may have {LARGEST_FRAME}, one side up to {LONGEST_SIDE} times the other"
        )
    if jpeg.count(START_OF_SCAN) > MOST_SCANS:
        raise ValueError(f"it has more than {MOST_SCANS} scans")
    return height, width


STEPS_OF_A_BYTE = 1
REASONS = {
    "SQLITE_AUTH": "Images is not a plain table",
    "SQLITE_INTERRUPT": "has more rows than its size allows, its pages go in circles",
}


class DatabaseError(ValueError):
    """A file that SQLite cannot read, or may not go on reading; the message is the reason alone."""


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Read-only and immutable, so that nothing is locked or written, also on read-only disks.

    Raises DatabaseError, also for what is done within.
    """
    try:
        # as_uri escapes what a URI cannot hold: ids with #, ? and % are found
        with closing(
            sqlite3.connect(path.absolute().as_uri() + "?mode=ro&immutable=1", uri=True)
        ) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
            connection.set_authorizer(_allow)
            # honest databases are gone over in far fewer steps of SQLite's machine than they have bytes
            steps = STEPS_OF_A_BYTE * path.stat().st_size + 100_000
            connection.set_progress_handler(lambda: True, min(steps, 2**31 - 1))
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter where its message has bytes of the file
        reason = REASONS.get(getattr(error, "sqlite_errorname", ""), sanitize(error))
        raise DatabaseError(reason) from error


def _allow(action: int, first: str | None, second: str | None, database: str | None, view: str | None) -> int:
    """SQLite's question while it compiles a query: whatever a view asks for, and recursion, is denied."""
    denied = view is not None or action == sqlite3.SQLITE_RECURSIVE
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


DATABASE = "frames.db"
COUNT = "n_frames"
ROW_ID_IS_FRAME = 1  # PRAGMA user_version of our stores; those of others have 0
FRAME_NUMBER = re.compile(r"(\d+)(?:\.[A-Za-z]\w*)?$")


class FrameStoreError(ValueError):
    """A store that cannot be read; the message names the file and the reason."""


class FrameStore:
    """The frames of one video. Opening is cheap, and each read opens the database anew: no handle to leak or to fork.

    Raises FrameStoreError, here and in `read`, where the folder holds no readable store.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / DATABASE
        self._counted = False
        self.n_frames = self._read_count()
        if self.n_frames < 1:
            raise FrameStoreError(f"{self.path}: holds {self.n_frames} frames, needs at least 1")

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Frames by index, counted from 0, in the order asked, repeats allowed: uint8 `(T, H, W, 3)`, BGR."""
        return self.fetch(indices).decode()

    def fetch(self, indices: Sequence[int]) -> "EncodedFrames":
        """The same frames, not yet decoded."""
        wanted = [int(index) for index in indices]
        if not wanted:
            raise FrameStoreError(f"{self.path}: no frames were asked for")
        outside = [index for index in wanted if not 0 <= index < self.n_frames]
        if outside:
            raise FrameStoreError(
                f"{self.path}: frame {outside[0]} was asked for, has 0 to {self.n_frames - 1}"
            )
        return EncodedFrames(self.path, wanted, dict(self._fetch(sorted(set(wanted)))))

    def _read_count(self) -> int:
        path = self.path.with_name(COUNT)
        try:
            with open(path, "rb", opener=open_without_waiting) as file:
                text = file.read(40).decode().strip()
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise FrameStoreError(f"{path}: cannot be read, {error}") from error
        if not text:
            self._counted = True
            with self._connected() as connection:
                return connection.execute("SELECT COUNT(DISTINCT ObjId) FROM Images").fetchone()[0]
        if not text.isdecimal() or len(text) > 18:
            raise FrameStoreError(f"{path}: {text!r} is not a number of frames")
        return int(text)

    def _fetch(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """(index, JPEG bytes) of each index, which rise."""
        with self._connected() as connection:
            ours = connection.execute("PRAGMA user_version").fetchone()[0] == ROW_ID_IS_FRAME
            rows = None if ours else self._scan(connection)
            query = "SELECT frames, ObjId FROM Images WHERE rowid = ?"
            for index in indices:
                row_id = index + 1 if rows is None else rows.get(index)
                row = connection.execute(query, (row_id,)).fetchone()
                if row is None:
                    raise FrameStoreError(f"{self.path}: frame {index} of {self.n_frames} is missing")
                if ours and _number_of(row[1]) != row_id:
                    raise FrameStoreError(f"{self.path}: row {row_id} is {str(row[1])[-80:]!r}")
                yield index, row[0]

    def _scan(self, connection: sqlite3.Connection) -> dict[int, int]:
        """Row ids by index. One pass over the names; the images are not read.

        An index is its frame's number less 1; where there is no `n_frames` to say how many there should be, its rank,
        so that gaps close. A frame may stand twice, but not two of one number: they are of different videos.
        """
        numbered: dict[int, int] = {}
        names: dict[int, str] = {}
        for row_id, name in connection.execute("SELECT rowid, ObjId FROM Images"):
            number = _number_of(name)
            if number is None:
                raise FrameStoreError(
                    f"{self.path}: {str(name)[-80:]!r} does not end with the number of a frame"
                )
            if names.setdefault(number, name) != name:
                first, second = (str(one)[-80:] for one in (names[number], name))
                raise FrameStoreError(f"{self.path}: {first!r} and {second!r} are both frame {number}")
            numbered[number] = row_id
        if self._counted:
            return dict(enumerate(row_id for _, row_id in sorted(numbered.items())))
        return {number - 1: row_id for number, row_id in numbered.items()}

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self.path.is_file():
                raise FrameStoreError(f"{self.path}: there is no such file")
            with opened(self.path) as connection:
                yield connection
        except (DatabaseError, OSError) as error:  # the latter where a network disk has lost it
            raise FrameStoreError(f"{self.path}: {error}") from error


def _number_of(name: object) -> int | None:
    """The number that a frame's name ends with; None where it ends with none."""
    number = FRAME_NUMBER.search(str(name)[-80:])
    return None if number is None else int(number[1])


class EncodedFrames:
    """Frames of a clip as JPEGs, in the order asked, `height` x `width` pixels each.

    Raises FrameStoreError, here and where they are decoded, for what is no JPEG or of another size than the first.
    """

    def __init__(self, path: Path, indices: Sequence[int], jpegs: Mapping[int, bytes]) -> None:
        self.path = path
        self.indices = indices
        self.jpegs = jpegs
        first = indices[0]
        with self._named(first):
            self.height, self.width = jpeg_size(jpegs[first])

    def __len__(self) -> int:
        return len(self.indices)

    def decode(self) -> np.ndarray:
        """All of them: uint8 `(T, H, W, 3)`, BGR."""
        frames = np.empty((len(self), self.height, self.width, 3), np.uint8)
        for index, places in self._places().items():
            self._decode(index, frames[places[0]], halved=False)
            frames[places[1:]] = frames[places[0]]
        return frames

    def decode_each(self, halved: bool) -> Iterator[tuple[list[int], np.ndarray]]:
        """(places in the clip, frame) of each frame, which is overwritten by the next: it saves touching new memory.

        `halved` frames have `ceil(H / 2)` x `ceil(W / 2)` pixels, each the mean of four: libjpeg's inverse transform at
        4/8, which costs less than a whole one. Its 2/8 would alias, and 5/8 to 7/8 cost more than 8/8.
        """
        height, width = (self.height + halved) >> halved, (self.width + halved) >> halved
        frame = np.empty((height, width, 3), np.uint8)
        for index, places in self._places().items():
            self._decode(index, frame, halved)
            yield places, frame

    def _places(self) -> dict[int, list[int]]:
        """Where each frame stands in the clip."""
        places: dict[int, list[int]] = {}
        for place, index in enumerate(self.indices):
            places.setdefault(index, []).append(place)
        return places

    def _decode(self, index: int, frame: np.ndarray, halved: bool) -> None:
        """Straight into `frame`, which is contiguous."""
        height, width, _ = frame.shape
        scaled = {"min_height": height, "min_width": width, "min_factor": 2} if halved else {}
        with self._named(index):
            size = jpeg_size(self.jpegs[index])
            if size != (self.height, self.width):
                sizes = sorted([(self.height, self.width), size])
                raise FrameStoreError(f"{self.path}: frames differ in size, {sizes}")
            simplejpeg.decode_jpeg(self.jpegs[index], colorspace="BGR", buffer=frame, **scaled)

    @contextmanager
    def _named(self, index: int) -> Iterator[None]:
        try:
            yield
        except FrameStoreError:
            raise
        except (ValueError, TypeError) as error:
            raise FrameStoreError(f"{self.path}: frame {index} does not decode, {error}") from error


def has_store(folder: Path) -> bool:
    """Whether a folder holds a store. Ours are renamed into place, so what is there is whole."""
    return (folder / DATABASE).is_file()


def write_frame_store(folder: Path, jpegs: Iterable[bytes]) -> int:
    """Write a store from JPEG frames in order; returns their number.

    The store is built in a folder beside its place, flushed, and renamed, so `folder` holds a whole store or does not
    exist, whatever interrupts this. Raises ValueError where there are no frames, OSError where `folder` holds something
    already (nothing is ever replaced), and whatever `jpegs` raises.
    """
    with staging_folder(folder.parent) as staging:
        store = staging / "store"
        store.mkdir()
        try:
            count = _write_database(store / DATABASE, folder.name, jpegs)
        except sqlite3.Error as error:
            raise OSError(f"{folder}: could not be written, {error}") from error
        if count == 0:
            raise ValueError("no frame could be decoded")
        (store / COUNT).write_text(f"{count}\n")
        for path in (store / DATABASE, store / COUNT):
            flush_to_disk(path)
        _rename_into_place(store, folder)
    return count


def _rename_into_place(store: Path, folder: Path) -> None:
    try:
        store.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(f"{folder}: something is there already") from None
        raise


def _write_database(path: Path, video_id: str, jpegs: Iterable[bytes]) -> int:
    count = 0
    # No journal: a database that is not finished is thrown away as a whole.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
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
        connection.execute("COMMIT")
    return count
