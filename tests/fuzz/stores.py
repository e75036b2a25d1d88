"""Frame stores from strangers: damaged bytes, other schemas, what a table may hold, what a folder may hold."""

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from data.frame_store import FrameStore, write_frame_store
from data.verify.checks import inspect_store
from data.video_iterator import read_training_clip
from data.video_sampler import center_clip
from data.video_transforms import validation_clip
from tests.fuzz.jpegs import hostile_jpeg
from tests.fuzz.mutation import WORDS, mutated
from tests.fuzz.verdict import Input
from tests.synthetic_frames import indices_of, painted_jpegs

N_FRAMES = 6
OURS, FOREIGN = 1, 0  # user_version


@cache
def _jpegs() -> list[bytes]:
    return painted_jpegs(N_FRAMES)


def _use(folder: Path, generator: random.Random, painted: bool) -> Callable[[], None]:
    """As training or validation reads; where frames must be the right ones, they are read as they are."""
    length, kind = (
        generator.randint(1, 8),
        generator.choice(["plain", "fused", "imgaug", "validation", "inspect"]),
    )
    seed = generator.randrange(2**32)

    def read() -> None:
        indices = center_clip(FrameStore(folder).n_frames, length, 1)
        frames = FrameStore(folder).read(indices)
        assert frames.dtype == np.uint8
        assert frames.shape[0] == length
        assert frames.shape[3] == 3
        if painted:
            assert indices_of(frames) == indices, "other frames than those asked for"

    def train() -> None:
        geometry = {"clip_size": 40, "short_side": 44, "augment": kind, "flip": True}
        order = {"base_length": 8, "intervals": [1, 2]}
        clip = read_training_clip(folder, length=length, size=32, seed=seed, **order, **geometry)
        assert clip.shape == (length, 32, 32, 3)

    def validate() -> None:
        store = FrameStore(folder)
        clip = validation_clip(store.read(center_clip(store.n_frames, length, 2)), size=32, short_side=36)
        assert clip.shape == (length, 32, 32, 3)

    def inspect() -> None:
        """As data.verify does: what is wrong is a finding."""
        for finding in inspect_store(folder, seed=1, full=True).wrong:
            raise ValueError(f"{folder / 'frames.db'}: {finding.kind}, {finding.detail}")

    if painted:
        return read
    return {"plain": read, "validation": validate, "inspect": inspect}.get(kind, train)


@cache
def _our_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "v"
        write_frame_store(folder, _jpegs())
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _write_ours(folder: Path) -> None:
    folder.mkdir()
    for name, content in _our_files().items():
        (folder / name).write_bytes(content)


@contextmanager
def _database(folder: Path, version: int) -> Iterator[sqlite3.Connection]:
    folder.mkdir()
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.executescript(
            f"PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA user_version = {version}"
        )
        yield connection


def _write_rows(
    folder: Path,
    rows: list[tuple[object, object]],
    version: int = FOREIGN,
    schema: str = "CREATE TABLE Images (ObjId STRING, frames BLOB, size INTEGER)",
) -> None:
    """(ObjId, frames) rows as other programs write them."""
    with _database(folder, version) as connection:
        connection.execute(schema)
        connection.executemany("INSERT INTO Images (ObjId, frames, size) VALUES (?, ?, 50)", rows)


def _input(folder: Path, generator: random.Random, kind: str, **more: bool) -> Input:
    painted = more.pop("painted", False)
    names = (str(folder / "frames.db"), str(folder / "n_frames"))
    return Input(kind, names, _use(folder, generator, painted), **more)


def changed_bytes(place: Path, generator: random.Random) -> Input:
    folder = place / "v"
    if generator.random() < 0.7:
        _write_ours(folder)
    else:
        _write_rows(folder, [(f"v/frame_{i + 1:05d}", jpeg) for i, jpeg in enumerate(_jpegs())])
    database = folder / "frames.db"
    database.write_bytes(mutated(database.read_bytes(), generator))
    return _input(folder, generator, "frames.db, bytes changed")


def hostile_rows(place: Path, generator: random.Random) -> Input:
    """Tables of the right shape with what should not be in them."""
    folder, jpegs = place / "v", _jpegs()
    rows: list[tuple[object, object]] = [(f"v/frame_{i + 1:05d}", jpeg) for i, jpeg in enumerate(jpegs)]
    for _ in range(generator.choice([1, 1, 3])):
        row = generator.randrange(len(rows))
        name, frame = rows[row]
        junk = [None, 1, 1.5, "text", b"", b"\xff\xfe", "1" * 50_000 + "x", "9" * 6000, *WORDS]
        if generator.random() < 0.5:
            name = generator.choice(junk)
        else:
            frame = generator.choice(
                [*junk, *[hostile_jpeg(jpegs[row], generator) for _ in range(len(junk))]]
            )
        rows[row] = (name, frame)
    version = generator.choice([OURS, OURS, FOREIGN, 2, -1])
    _write_rows(folder, rows, version)
    if generator.random() < 0.5:
        (folder / "n_frames").write_text(str(N_FRAMES))
    return _input(folder, generator, "frames.db, hostile rows")


def hostile_jpegs(place: Path, generator: random.Random) -> Input:
    """Every frame alike, so that sizes do not differ."""
    folder, jpegs = place / "v", _jpegs()
    seed = generator.random()
    rows = [(f"v/frame_{i + 1:05d}", hostile_jpeg(jpeg, random.Random(seed))) for i, jpeg in enumerate(jpegs)]
    _write_rows(folder, rows, generator.choice([OURS, FOREIGN]))
    return _input(folder, generator, "frames.db, hostile JPEGs")


ROWS = "SELECT 'v/frame_00001' AS ObjId, x'ffd8' AS frames, 50 AS size"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
SCHEMAS = [
    "CREATE TABLE Images (ObjId, frames)",
    "CREATE TABLE images (objid TEXT, FRAMES BLOB, size, more)",
    "CREATE TABLE Frames (ObjId, frames, size)",
    f"CREATE VIEW Images AS {ROWS}",
    f"CREATE VIEW Images AS {ENDLESS} 'v/frame_' || i AS ObjId, x'ffd8' AS frames, 50 AS size FROM n",
    f"CREATE VIEW Images AS {ENDLESS} i AS rowid, 'v/frame_' || i AS ObjId, zeroblob(999999999) AS frames FROM n",
    "CREATE TABLE Images (ObjId PRIMARY KEY, frames, size) WITHOUT ROWID",
    "CREATE TABLE Images (rowid TEXT, ObjId, frames, size)",
    "CREATE TABLE Images (ObjId, frames AS (zeroblob(999999999)), size)",
    "CREATE TABLE Images (ObjId AS (hex(zeroblob(20000000))), frames, size)",
    "CREATE VIRTUAL TABLE Images USING fts5(ObjId, frames, size)",
    "CREATE TABLE T (ObjId, frames, size); CREATE VIEW Images AS SELECT * FROM T",
    "CREATE TABLE Images (ObjId, frames, size); CREATE TRIGGER t AFTER INSERT ON Images BEGIN DELETE FROM Images; END",
    "",
]


def a_gigabyte(place: Path, generator: random.Random) -> Input:
    """In one frame."""
    folder = place / "v"
    with _database(folder, OURS) as connection:
        connection.execute("CREATE TABLE Images (ObjId, frames, size)")
        connection.execute("INSERT INTO Images VALUES ('v/frame_00001', zeroblob(990000000), 50)")
    return _input(folder, generator, "frames.db, a gigabyte in a frame", must_refuse=True)


def other_schema(place: Path, generator: random.Random) -> Input:
    folder = place / "v"
    with _database(folder, generator.choice([OURS, FOREIGN])) as connection:
        connection.executescript(generator.choice(SCHEMAS))
        for i, jpeg in enumerate(_jpegs()):
            for columns in ("(ObjId, frames, size) VALUES (?, ?, 50)", "(size) VALUES (50)"):
                try:
                    values = (f"v/frame_{i + 1:05d}", jpeg)[: columns.count("?")]
                    connection.execute(f"INSERT INTO Images {columns}", values)
                    break
                except sqlite3.Error:  # a view, or a column that is computed
                    continue
    if generator.random() < 0.5:
        (folder / "n_frames").write_text(str(N_FRAMES))
    return _input(folder, generator, "frames.db, another schema")


def frames_in_disorder(place: Path, generator: random.Random) -> Input:
    """Rows in any order, perhaps said to be in the order of their numbers: right frames or none."""
    folder = place / "v"
    rows = [(f"v/frame_{i + 1:05d}", jpeg) for i, jpeg in enumerate(_jpegs())]
    generator.shuffle(rows)
    _write_rows(folder, rows, generator.choice([OURS, FOREIGN]))
    if generator.random() < 0.5:
        (folder / "n_frames").write_text(generator.choice([str(N_FRAMES), "3"]))
    return _input(folder, generator, "frames.db, rows in disorder", painted=True)


def hostile_count(place: Path, generator: random.Random) -> Input:
    """`n_frames` says something else."""
    folder = place / "v"
    _write_ours(folder)
    path = folder / "n_frames"
    texts = [*WORDS, "6", " 6 \n", "7", "6.0", "0x6", "6\n7", "٦", "²", "99999999999", "9" * 19, "-6", "1_0"]
    ways: list[Callable[[], object]] = [
        lambda: path.write_text(generator.choice(texts), "utf-8"),
        lambda: path.write_bytes(generator.randbytes(generator.choice([1, 3, 1000]))),
        path.unlink,
        lambda: os.truncate(path, 2**40),
        lambda: _instead(path, path.mkdir),
        lambda: _instead(path, lambda: path.symlink_to(path)),
        lambda: _instead(path, lambda: path.symlink_to("/dev/zero")),
        lambda: _instead(path, lambda: os.mkfifo(path)),
    ]
    generator.choice([*ways[:1] * 6, *ways])()
    return _input(folder, generator, "n_frames", painted=True)


def _instead(path: Path, make: Callable[[], object]) -> None:
    path.unlink()
    make()


def no_database(place: Path, generator: random.Random) -> Input:
    """Anything but a database by its name."""
    folder = place / "v"
    folder.mkdir()
    path = folder / "frames.db"
    ways: list[Callable[[], object]] = [
        lambda: path.write_bytes(generator.randbytes(generator.choice([0, 1, 100, 5000]))),
        lambda: path.write_bytes(b"SQLite format 3\0" + generator.randbytes(4096)),
        lambda: path.write_bytes(generator.choice(_jpegs())),
        lambda: path.touch() or os.truncate(path, 2**40),
        path.mkdir,
        lambda: path.symlink_to(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("/dev/stdin"),
        lambda: os.mkfifo(path),
        lambda: None,
    ]
    generator.choice(ways)()
    if generator.random() < 0.5:
        (folder / "n_frames").write_text("6")
    return _input(folder, generator, "frames.db, not a database", must_refuse=True)


def pages_in_circles(place: Path, generator: random.Random) -> Input:
    """A tree of 18 levels in 20 pages, each inner page pointing to the next 300 times: 10^44 rows to go through."""
    folder = place / "v"
    _write_rows(folder, [("v/frame_00001", b"\xff\xd8")], generator.choice([OURS, FOREIGN]))
    path = folder / "frames.db"
    data = path.read_bytes()
    page = int.from_bytes(data[16:18], "big")
    leaf, levels = data[page : 2 * page], 18
    pages = []
    for number in range(2, 2 + levels):
        child = (number + 1).to_bytes(4, "big")
        count = min(300, (page - 12) // 7)
        start = page - 5 * count
        pointers = b"".join((start + 5 * i).to_bytes(2, "big") for i in range(count))
        header = b"\x05\0\0" + count.to_bytes(2, "big") + start.to_bytes(2, "big") + b"\0" + child
        inner = header + pointers
        pages.append(inner.ljust(start, b"\0") + (child + b"\x01") * count)
    data = data[:page] + b"".join(pages) + leaf
    path.write_bytes(data[:28] + (2 + levels).to_bytes(4, "big") + data[32:])
    if generator.random() < 0.5:
        (folder / "n_frames").write_text("1")
    return _input(folder, generator, "frames.db, pages in circles")
