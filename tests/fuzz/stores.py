"""Untrusted frame stores: damaged bytes, other schemas, unexpected rows and JPEGs, wrong frame counts, other files."""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from data.frame_store import FrameStore
from tests.fuzz.dataset import BROWSE, N_FRAMES, TRAIN_ON_SET, VERIFY, jpegs, write_dataset
from tests.fuzz.mutation import WORDS, mutate
from tests.fuzz.verdict import FuzzInput
from tests.synthetic_frames import indices_of

STORE = Path("set/jpg/a/v")
OURS, FOREIGN = 1, 0  # PRAGMA user_version
TABLE = "CREATE TABLE Images (ObjId STRING, frames BLOB, size INTEGER)"
# both sides over the limit, one side far longer than the other, none, and some that fit
SIZES = [(65_535, 65_535), (1, 65_500), (65_500, 15), (0, 0), (0, 50), (8192, 8192), (2, 2), (50, 51)]


def _read_set(rng: random.Random, must_fail: bool = False, check_frames: bool = False) -> FuzzInput:
    """A command that reads the store as training, `data.browse` or `data.verify` does.

    `must_fail` is for `data.verify` alone: the others use another video instead.
    """
    verify = [VERIFY, [*VERIFY, "--full"], [*VERIFY, "--fix"]]
    train = [*TRAIN_ON_SET, "--augment", rng.choice(["none", "fused", "device", "imgaug"])]
    command = rng.choice(verify if must_fail else [*verify, BROWSE, train])
    # training stops with the number of missing or corrupt videos, and names the file that lists them
    names = ["jpg/a/v", "a/v: ", "set/labels", "bad_samples.csv"]
    return FuzzInput(command, names, must_fail, _check_frames if check_frames else None)


def _check_frames() -> None:
    """Raise AssertionError if other frames are read than those asked for."""
    with suppress(ValueError):
        store = FrameStore(STORE)
        indices = list(range(store.n_frames))
        assert indices_of(store.read(indices)) == indices, "other frames than those asked for"


def _rows(frames: Sequence[object]) -> list[tuple[object, object]]:
    return [(f"v/frame_{i + 1:05d}", frame) for i, frame in enumerate(frames)]


@contextmanager
def _empty_database(folder: Path, version: int) -> Iterator[sqlite3.Connection]:
    """Write the dataset with an empty `frames.db` in place of the store `v`, and without its `n_frames`."""
    write_dataset(folder / "set", ["a"], ["v", "w"])
    for path in (folder / STORE).iterdir():
        path.unlink()
    with closing(sqlite3.connect(folder / STORE / "frames.db")) as connection, connection:
        connection.executescript(f"PRAGMA synchronous = OFF; PRAGMA user_version = {version}")
        yield connection


def _write_rows(folder: Path, rng: random.Random, rows: list[tuple[object, object]], version: int) -> None:
    """Write (ObjId, frames) rows, with or without `n_frames`."""
    with _empty_database(folder, version) as connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO Images VALUES (?, ?, 50)", rows)
    if rng.random() < 0.5:
        (folder / STORE / "n_frames").write_text(str(len(rows)))


def mutated_bytes(folder: Path, rng: random.Random) -> FuzzInput:
    if rng.random() < 0.7:
        write_dataset(folder / "set", ["a"], ["v", "w"])
    else:
        _write_rows(folder, rng, _rows(jpegs()), FOREIGN)
    database = folder / STORE / "frames.db"
    database.write_bytes(mutate(database.read_bytes(), rng))
    return _read_set(rng)


def unexpected_rows(folder: Path, rng: random.Random) -> FuzzInput:
    """The right table, with names and frames that do not belong there."""
    rows = _rows(jpegs())
    for _ in range(rng.choice([1, 1, 3])):
        row = rng.randrange(len(rows))
        name, frame = rows[row]
        junk = [None, 1, 1.5, "text", b"", b"\xff\xfe", "1" * 50_000 + "x", *WORDS]
        rows[row] = (rng.choice(junk), frame) if rng.random() < 0.5 else (name, rng.choice(junk))
    _write_rows(folder, rng, rows, rng.choice([OURS, FOREIGN, 2]))
    return _read_set(rng)


def unexpected_jpegs(folder: Path, rng: random.Random) -> FuzzInput:
    """Damaged JPEGs, other sizes and formats; either one of them or all, so that sizes do not differ."""
    frames = list(jpegs())
    change = rng.choice([_with_other_size, mutate, _truncated, _other_image])
    if rng.random() < 0.5:
        seed = rng.random()
        frames = [change(jpeg, random.Random(seed)) for jpeg in frames]
    else:
        row = rng.randrange(len(frames))
        frames[row] = change(frames[row], rng)
    _write_rows(folder, rng, _rows(frames), rng.choice([OURS, FOREIGN]))
    return _read_set(rng)


def _with_other_size(jpeg: bytes, rng: random.Random) -> bytes:
    """Change the height and width in the header."""
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + b"".join(side.to_bytes(2, "big") for side in rng.choice(SIZES)) + jpeg[start + 4 :]


def _truncated(jpeg: bytes, rng: random.Random) -> bytes:
    return jpeg[: rng.randrange(len(jpeg))]


def _other_image(_: bytes, rng: random.Random) -> bytes:
    """Gray, very wide, tiny, or another format."""
    shape = rng.choice([(50, 50), (1, 3000, 3), (3000, 1, 3), (4, 60_000, 3), (1, 1, 3), (7, 9, 3)])
    return cv2.imencode(rng.choice([".jpg", ".jpg", ".png", ".bmp"]), np.full(shape, 127, np.uint8))[
        1
    ].tobytes()


SCHEMAS = [
    "CREATE TABLE Images (ObjId, frames)",
    "CREATE TABLE images (objid TEXT, FRAMES BLOB, size, more)",
    "CREATE TABLE Frames (ObjId, frames, size)",
    "CREATE VIEW Images AS SELECT 'v/frame_00001' AS ObjId, x'ffd8' AS frames, 50 AS size",
    "CREATE TABLE T (ObjId, frames, size); CREATE VIEW Images AS SELECT * FROM T",
    "CREATE TABLE Images (ObjId PRIMARY KEY, frames, size) WITHOUT ROWID",
    "CREATE TABLE Images (rowid TEXT, ObjId, frames, size)",
    "",
]


def other_schema(folder: Path, rng: random.Random) -> FuzzInput:
    with _empty_database(folder, rng.choice([OURS, FOREIGN])) as connection:
        connection.executescript(rng.choice(SCHEMAS))
        with suppress(sqlite3.Error):  # a view, or no such table
            connection.executemany("INSERT INTO Images (ObjId, frames) VALUES (?, ?)", _rows(jpegs()))
    if rng.random() < 0.5:
        (folder / STORE / "n_frames").write_text(str(N_FRAMES))
    return _read_set(rng)


def shuffled_rows(folder: Path, rng: random.Random) -> FuzzInput:
    """Rows in any order, as other programs write them: the right frames or none."""
    rows = _rows(jpegs())
    rng.shuffle(rows)
    _write_rows(folder, rng, rows, FOREIGN)
    return _read_set(rng, check_frames=True)


def wrong_count(folder: Path, rng: random.Random) -> FuzzInput:
    """An `n_frames` with another number, or none."""
    write_dataset(folder / "set", ["a"], ["v", "w"])
    path = folder / STORE / "n_frames"
    short = [word for word in WORDS if len(word) < 19]
    texts = [*short, " 6 \n", "3", "6", "7", "6.0", "0x6", "6\n7", "٦", "²", "-6", "1_0"]
    path.unlink()
    ways = [
        path.mkdir,
        lambda: path.symlink_to(path),
        lambda: path.write_bytes(rng.randbytes(1000)),
        lambda: None,
    ]
    ways += [lambda: path.write_text(rng.choice(texts), "utf-8")] * 6
    rng.choice(ways)()
    return _read_set(rng, check_frames=True)


def not_a_database(folder: Path, rng: random.Random) -> FuzzInput:
    write_dataset(folder / "set", ["a"], ["v", "w"])
    path = folder / STORE / "frames.db"
    path.unlink()
    data = [b"", b"x" * 100, rng.randbytes(5000), b"SQLite format 3\0" + rng.randbytes(4096), jpegs()[0]]
    ways = [path.mkdir, lambda: path.symlink_to(path), lambda: None]
    ways += [lambda: path.write_bytes(rng.choice(data))] * 4
    rng.choice(ways)()
    if rng.random() < 0.5:
        (folder / STORE / "n_frames").unlink()
    return _read_set(rng, must_fail=True)
