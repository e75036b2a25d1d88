"""Frame stores: written then read, those of others, odd names, interruptions."""

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from data.frame_store import FrameStore, FrameStoreError, write_frame_store
from tests.synthetic_frames import indices_of, painted_jpegs, read_paint

ODD_IDS = [
    "#1 take?",
    "50%25",
    "a'b\"c",
    "[x](y){z}",
    "ngày 日本 ü",
    "a&b=c;d",
    "file:x",
    "-v",
    "x" * 200,
    "00123",
    "frame_00001",
]


def write_foreign_store(folder: Path, jpegs: list[bytes], *, gap_after: int | None = None) -> None:
    """As the original wrote them: type STRING, no key, rows in random order, no n_frames."""
    folder.mkdir(parents=True)
    numbers = [i + 1 + (gap_after is not None and i > gap_after) for i in range(len(jpegs))]
    rows = [
        (f"{folder.name}/frame_{number:05d}", jpeg, 50) for number, jpeg in zip(numbers, jpegs, strict=True)
    ]
    random.Random(0).shuffle(rows)
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("CREATE TABLE Images (ObjId STRING, frames BLOB, size INTEGER)")
        connection.executemany("INSERT INTO Images VALUES (?, ?, ?)", rows)


def test_what_is_written_is_read_in_the_order_asked_with_repeats(tmp_path: Path) -> None:
    """The original sorted the frames, dropped repeats and blended the rest to length."""
    assert write_frame_store(tmp_path / "video", painted_jpegs(30, label=5)) == 30
    store = FrameStore(tmp_path / "video")
    asked = [29, 0, 7, 7, 3, 29]
    frames = store.read(asked)
    assert store.n_frames == 30
    assert frames.shape == (6, 50, 50, 3)
    assert frames.dtype == np.uint8
    assert indices_of(frames) == asked
    assert {read_paint(frame)[1] for frame in frames} == {5}


def test_store_of_the_original_gives_the_same_clips(tmp_path: Path) -> None:
    jpegs = painted_jpegs(40)
    write_frame_store(tmp_path / "ours", jpegs)
    write_foreign_store(tmp_path / "theirs", jpegs)
    asked = [39, 0, 0, 12, 5, 12]
    ours, theirs = FrameStore(tmp_path / "ours"), FrameStore(tmp_path / "theirs")
    assert theirs.n_frames == 40
    assert np.array_equal(ours.read(asked), theirs.read(asked))
    assert np.array_equal(ours.read(range(40)), theirs.read(range(40)))


def test_gap_in_the_numbers_closes_where_nothing_says_how_many_there_should_be(tmp_path: Path) -> None:
    write_foreign_store(tmp_path / "video", painted_jpegs(10), gap_after=4)
    assert indices_of(FrameStore(tmp_path / "video").read(range(10))) == list(range(10))


def test_gap_in_the_numbers_is_an_error_where_n_frames_says_so(tmp_path: Path) -> None:
    """The frames behind it once moved up, and nobody was told."""
    write_foreign_store(tmp_path / "video", painted_jpegs(10), gap_after=4)
    (tmp_path / "video" / "n_frames").write_text("11")
    store = FrameStore(tmp_path / "video")
    assert indices_of(store.read([4, 6, 10])) == [4, 5, 9]
    with pytest.raises(FrameStoreError, match="frame 5 of 11 is missing"):
        store.read([4, 5])


def test_rows_that_stand_twice_are_one_frame(tmp_path: Path) -> None:
    write_foreign_store(tmp_path / "video", painted_jpegs(3))
    with closing(sqlite3.connect(tmp_path / "video" / "frames.db")) as connection, connection:
        connection.execute("INSERT INTO Images SELECT * FROM Images")
    store = FrameStore(tmp_path / "video")
    assert store.n_frames == 3
    assert indices_of(store.read([0, 1, 2])) == [0, 1, 2]


def test_halved_frames_are_the_means_of_four_pixels_and_say_where_they_belong(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5, size=101))
    store = FrameStore(tmp_path / "video")
    whole = store.read([4, 2, 4])[:, :100, :100].reshape(3, 50, 2, 50, 2, 3).mean(axis=(2, 4))
    seen = []
    for places, frame in store.fetch([4, 2, 4]).decode_each(halved=True):
        assert frame.shape == (51, 51, 3)
        assert np.abs(frame[:50, :50] - whole[places[0]]).mean() < 2
        seen.append((places, read_paint(frame)[0]))
    assert seen == [([0, 2], 4), ([1], 2)]


@pytest.mark.parametrize("halved", [False, True])
def test_frames_of_two_sizes_are_an_error(tmp_path: Path, halved: bool) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(1) + painted_jpegs(1, size=60))
    with pytest.raises(FrameStoreError, match=r"frames differ in size, \[\(50, 50\), \(60, 60\)\]"):
        list(FrameStore(tmp_path / "video").fetch([0, 1]).decode_each(halved))


@pytest.mark.parametrize("video_id", ODD_IDS)
def test_odd_ids(tmp_path: Path, video_id: str) -> None:
    """HMDB-51 has ids with #; unquoted, they end an SQLite address."""
    write_frame_store(tmp_path / "a #%? class" / video_id, painted_jpegs(3))
    assert indices_of(FrameStore(tmp_path / "a #%? class" / video_id).read([2, 0])) == [2, 0]


def test_format_is_the_documented_one(tmp_path: Path) -> None:
    jpegs = painted_jpegs(3)
    write_frame_store(tmp_path / "some_id", jpegs)
    with closing(sqlite3.connect(tmp_path / "some_id" / "frames.db")) as connection:
        rows = connection.execute("SELECT rowid, ObjId, frames, size FROM Images ORDER BY rowid").fetchall()
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM Images WHERE ObjId = 'x'").fetchall()
    assert rows == [(i + 1, f"some_id/frame_{i + 1:05d}", jpegs[i], 50) for i in range(3)]
    assert "USING INDEX" in str(plan)
    assert (tmp_path / "some_id" / "n_frames").read_text().strip() == "3"


def test_frames_past_99999_keep_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    jpegs = painted_jpegs(2)
    folder.mkdir()
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("CREATE TABLE Images (ObjId STRING, frames BLOB, size INTEGER)")
        connection.execute("INSERT INTO Images VALUES ('v/frame_100000', ?, 1)", (jpegs[1],))
        connection.execute("INSERT INTO Images VALUES ('v/frame_99999', ?, 1)", (jpegs[0],))
    assert indices_of(FrameStore(folder).read([0, 1])) == [0, 1]


@pytest.mark.parametrize("index", [-1, 5, 1000])
def test_frame_outside_the_video_is_an_error(tmp_path: Path, index: int) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    with pytest.raises(FrameStoreError, match=rf"frames.db: frame {index} was asked for, has 0 to 4"):
        FrameStore(tmp_path / "video").read([0, index])


def _no_database(folder: Path) -> None:
    (folder / "frames.db").unlink()


def _not_sqlite(folder: Path) -> None:
    (folder / "frames.db").write_bytes(b"not a database, and longer than a header " * 50)


def _other_table(folder: Path) -> None:
    (folder / "frames.db").unlink()
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("CREATE TABLE Pictures (ObjId TEXT)")


def _truncated(folder: Path) -> None:
    content = (folder / "frames.db").read_bytes()
    (folder / "frames.db").write_bytes(content[: len(content) // 2])


def _broken_jpeg(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("UPDATE Images SET frames = substr(frames, 1, 300)")


def _no_jpeg(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("UPDATE Images SET frames = 12")


def _wrong_count(folder: Path) -> None:
    (folder / "n_frames").write_text("many")


def _too_few_rows(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("DELETE FROM Images WHERE rowid = 5")


@pytest.mark.parametrize(
    "damage",
    [
        _no_database,
        _not_sqlite,
        _other_table,
        _truncated,
        _broken_jpeg,
        _no_jpeg,
        _wrong_count,
        _too_few_rows,
    ],
)
def test_damaged_store_is_named(tmp_path: Path, damage: object) -> None:
    folder = tmp_path / "video"
    write_frame_store(folder, painted_jpegs(5))
    damage(folder)
    with pytest.raises(FrameStoreError, match=r"video/(frames.db|n_frames): "):
        FrameStore(folder).read(range(5))


def test_read_only_folder_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "video").iterdir()}
    (tmp_path / "video").chmod(0o555)
    assert indices_of(FrameStore(tmp_path / "video").read([4])) == [4]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "video").iterdir()} == before


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "frames.db").write_bytes(b"x" * 5000)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        FrameStore(tmp_path / "video").read([0, 4])
        with pytest.raises(FrameStoreError):
            FrameStore(tmp_path / "broken")
    assert len(os.listdir("/proc/self/fd")) == before


def test_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield from painted_jpegs(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frame_store(tmp_path / "class" / "video", interrupted())
    assert list((tmp_path / "class").iterdir()) == []


def test_video_without_frames_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frame"):
        write_frame_store(tmp_path / "class" / "video", [])
    assert list((tmp_path / "class").iterdir()) == []


def test_nothing_is_ever_replaced(tmp_path: Path) -> None:
    """The original's converter deleted a store when it was run a second time."""
    write_frame_store(tmp_path / "video", painted_jpegs(3))
    with pytest.raises(OSError, match="video"):
        write_frame_store(tmp_path / "video", painted_jpegs(9))
    assert FrameStore(tmp_path / "video").n_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["video"]


def test_frames_of_two_videos_in_one_store_are_an_error(tmp_path: Path) -> None:
    """The second video's were given for the first's."""
    jpegs = painted_jpegs(3)
    write_foreign_store(tmp_path / "a", jpegs)
    with closing(sqlite3.connect(tmp_path / "a" / "frames.db")) as connection, connection:
        connection.execute("INSERT INTO Images VALUES ('b/frame_00002', ?, 50)", (jpegs[0],))
    with pytest.raises(
        FrameStoreError, match="'a/frame_00002' and 'b/frame_00002' are both frame 2|'b/.*' and 'a/"
    ):
        FrameStore(tmp_path / "a").read([0])


def test_a_number_behind_a_dot_is_the_frames(tmp_path: Path) -> None:
    """It was taken for a file's ending, and the number before it for the frame's."""
    write_foreign_store(tmp_path / "a", painted_jpegs(4))
    with closing(sqlite3.connect(tmp_path / "a" / "frames.db")) as connection, connection:
        connection.execute("UPDATE Images SET ObjId = replace(ObjId, 'a/frame_', 'v.2.')")
    assert indices_of(FrameStore(tmp_path / "a").read(range(4))) == list(range(4))
