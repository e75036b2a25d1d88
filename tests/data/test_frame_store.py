"""Frame stores: written and read back, foreign ones, odd names, damage and interruptions."""

import os
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data.frame_store import EncodedFrames, FrameStore, FrameStoreError, jpeg_size
from data.store_writer import write_frame_store
from tests.data.test_fused_engine import pink_noise, psnr
from tests.synthetic_frames import indices_of, painted_jpegs, read_frame

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
]


def execute(folder: Path, statement: str, values: Sequence[object] = ()) -> None:
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute(statement, values)


def write_foreign_store(folder: Path, jpegs: list[bytes], *, gap_after: int | None = None) -> Path:
    """Write a store as the original does: type STRING, no index, rows in random order, no n_frames."""
    folder.mkdir(parents=True)
    execute(folder, "CREATE TABLE Images (ObjId STRING, frames BLOB, size INTEGER)")
    numbers = [i + 1 + (gap_after is not None and i > gap_after) for i in range(len(jpegs))]
    rows = list(zip(numbers, jpegs, strict=True))
    random.Random(0).shuffle(rows)
    for number, jpeg in rows:
        execute(folder, "INSERT INTO Images VALUES (?, ?, 50)", (f"{folder.name}/frame_{number:05d}", jpeg))
    return folder


def test_frames_are_read_in_the_given_order_with_repeats(tmp_path: Path) -> None:
    """The original sorted the frames, dropped repeats and blended the rest to length."""
    assert write_frame_store(tmp_path / "video", painted_jpegs(30, label=5)) == 30
    store = FrameStore(tmp_path / "video")
    indices = [29, 0, 7, 7, 3, 29]
    frames = store.read(indices)
    assert store.n_frames == 30
    assert frames.shape == (6, 50, 50, 3)
    assert frames.dtype == np.uint8
    assert indices_of(frames) == indices
    assert {read_frame(frame)[1] for frame in frames} == {5}


def test_store_of_the_original_gives_the_same_frames(tmp_path: Path) -> None:
    jpegs = painted_jpegs(20)
    write_frame_store(tmp_path / "ours", jpegs)
    foreign = FrameStore(write_foreign_store(tmp_path / "theirs", jpegs))
    assert foreign.n_frames == 20
    for indices in ([19, 0, 0, 12, 5, 12], range(20)):
        assert np.array_equal(FrameStore(tmp_path / "ours").read(indices), foreign.read(indices))


def test_missing_frames_are_an_error_if_n_frames_reveals_them(tmp_path: Path) -> None:
    """Without n_frames, frames are counted; with it, the ones behind the gap must not move up."""
    folder = write_foreign_store(tmp_path / "video", painted_jpegs(10), gap_after=4)
    assert indices_of(FrameStore(folder).read(range(10))) == list(range(10))
    (folder / "n_frames").write_text("11")
    assert indices_of(FrameStore(folder).read([4, 6, 10])) == [4, 5, 9]
    with pytest.raises(FrameStoreError, match="frame 5 of 11 is missing"):
        FrameStore(folder).read([4, 5])


def test_duplicate_rows_are_one_frame(tmp_path: Path) -> None:
    folder = write_foreign_store(tmp_path / "video", painted_jpegs(3))
    execute(folder, "INSERT INTO Images SELECT * FROM Images")
    assert FrameStore(folder).n_frames == 3
    assert indices_of(FrameStore(folder).read([0, 1, 2])) == [0, 1, 2]


@pytest.mark.parametrize("name", ["v.2.%d", "v/frame_%d.jpg", "v/frame_9999%d"])
def test_frame_numbers_are_found_in_other_names(tmp_path: Path, name: str) -> None:
    """Digits behind a dot are not a file extension, and numbers past 99999 are sorted as numbers."""
    folder = write_foreign_store(tmp_path / "a", [])
    for number in (10, 9, 8):
        execute(folder, "INSERT INTO Images VALUES (?, ?, 50)", (name % number, painted_jpegs(11)[number]))
    assert indices_of(FrameStore(folder).read(range(3))) == [8, 9, 10]


def test_halved_frames_are_means_of_four_pixels(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5, size=101))
    store = FrameStore(tmp_path / "video")
    means = store.read([4, 2, 4])[:, :100, :100].reshape(3, 50, 2, 50, 2, 3).mean(axis=(2, 4))
    seen = []
    for positions, frame in store.fetch([4, 2, 4]).decode_each(halved=True):
        assert frame.shape == (51, 51, 3)
        assert np.abs(frame[:50, :50] - means[positions[0]]).mean() < 2
        seen.append((positions, read_frame(frame)[0]))
    assert seen == [([0, 2], 4), ([1], 2)]


@pytest.mark.parametrize(("halved", "size"), [(False, 50), (True, 25)])
@pytest.mark.parametrize("other", [40, 60])
def test_frames_of_two_sizes_are_an_error(tmp_path: Path, halved: bool, size: int, other: int) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(1) + painted_jpegs(1, size=other))
    with pytest.raises(FrameStoreError, match=f"frame 1 does not decode to {size} x {size}, "):
        list(FrameStore(tmp_path / "video").fetch([0, 1]).decode_each(halved))


@pytest.mark.parametrize("video_id", ODD_IDS)
def test_odd_ids(tmp_path: Path, video_id: str) -> None:
    """HMDB-51 has ids with #, which ends a SQLite URI if it is not escaped."""
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


def test_times_lie_beside_what_the_original_reads(tmp_path: Path) -> None:
    jpegs = painted_jpegs(3)
    write_frame_store(tmp_path / "v", jpegs, times=[0, 0.04, 0.2])
    times = FrameStore(tmp_path / "v").times()
    assert times is not None
    assert (times.dtype, times.tolist()) == (np.float64, [0, 0.04, 0.2])
    with closing(sqlite3.connect(tmp_path / "v" / "frames.db")) as connection:  # the original's query
        query = "SELECT ObjId, frames FROM Images WHERE ObjId IN ('v/frame_00003', 'v/frame_00001')"
        assert dict(connection.execute(query)) == {"v/frame_00001": jpegs[0], "v/frame_00003": jpegs[2]}
    assert FrameStore(write_foreign_store(tmp_path / "theirs", jpegs)).times() is None
    for wrong in ("'soon'", "x'00'", "-1", "9e999", "1e7"):
        execute(tmp_path / "v", f"UPDATE Times SET seconds = {wrong} WHERE rowid = 3")
        with pytest.raises(FrameStoreError, match="v/frames.db: Times does not ascend from 0 to at most"):
            FrameStore(tmp_path / "v").times()
    execute(tmp_path / "v", "DELETE FROM Times WHERE rowid = 2")
    with pytest.raises(FrameStoreError, match="v/frames.db: Times has 2 rows, not 3"):
        FrameStore(tmp_path / "v").times()


@pytest.mark.parametrize("index", [-1, 5, 1000])
def test_index_outside_of_the_video_is_an_error(tmp_path: Path, index: int) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    with pytest.raises(FrameStoreError, match=rf"frames.db: frame index {index} is not in 0 to 4"):
        FrameStore(tmp_path / "video").read([0, index])


def test_frames_of_our_stores_are_counted_without_n_frames(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    (tmp_path / "video" / "n_frames").unlink()
    assert FrameStore(tmp_path / "video").n_frames == 5


def test_a_half_level_has_the_frames_at_half_their_lines(tmp_path: Path) -> None:
    jpegs = painted_jpegs(5, size=101)
    write_frame_store(tmp_path / "whole", jpegs)
    write_frame_store(tmp_path / "both", jpegs, half_level=True)
    whole, both = FrameStore(tmp_path / "whole"), FrameStore(tmp_path / "both")
    assert (whole.has_half_level, both.has_half_level, both.frame_size(3)) == (False, True, (101, 101))
    assert np.array_equal(whole.read([4, 2, 4]), both.read([4, 2, 4]))
    halves = both.fetch([4, 2, 4], half_of=(101, 101))
    assert halves.jpegs != both.fetch([4, 2]).jpegs
    decoded = [(positions, frame.copy()) for positions, frame in halves.decode_each(halved=True)]
    expected = whole.fetch([4, 2, 4]).decode_each(halved=True)
    for (positions, half), (same_positions, at_four_eighths) in zip(decoded, expected, strict=True):
        assert positions == same_positions
        assert half.shape == (51, 51, 3)
        assert np.abs(half.astype(int) - at_four_eighths)[:50, :50].mean() < 2


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("DELETE FROM HalfImages WHERE rowid = 2", "row 2 of HalfImages is missing"),
        ("UPDATE HalfImages SET height = 0", "row 2 of HalfImages: has 50 x 0 pixels"),
        ("UPDATE HalfImages SET width = 'wide'", "row 2 of HalfImages: has 0 x 50 pixels"),
        (
            "UPDATE HalfImages SET height = 90, width = 90",
            "frame 1 of HalfImages does not decode to 45 x 45, but to 25 x 25",
        ),
        ("UPDATE HalfImages SET frames = 12", "frame 1 of HalfImages does not decode"),
        ("UPDATE HalfImages SET frames = substr(frames, 1, 300)", "frame 1 of HalfImages does not decode"),
    ],
)
def test_damage_of_a_half_level_is_named(tmp_path: Path, damage: str, message: str) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(3), half_level=True)
    execute(tmp_path / "video", damage)
    store = FrameStore(tmp_path / "video")
    with pytest.raises(FrameStoreError, match=rf"frames.db: .*({message})"):
        list(store.fetch([1], half_of=store.frame_size(1)).decode_each(halved=True))


def test_fast_decoding_is_close_to_exact_decoding() -> None:
    """On detail at all scales, brightness more than colors, as in real frames."""
    frame = 128 + 40 * pink_noise(200, 1) + 8 * pink_noise(200, 3)
    frame = frame.clip(0, 255).astype(np.uint8)
    jpeg = simplejpeg.encode_jpeg(frame, quality=90, colorspace="BGR", colorsubsampling="420")
    frames = EncodedFrames("store", [0], {0: jpeg})
    fast, exact = (next(frames.decode_each(halved=False, fast=fast))[1].copy() for fast in (True, False))
    assert 46 <= psnr(fast, exact) < 60


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def count_as(folder: Path, text: str) -> None:
    """Write `n_frames` and make the store one of others, whose count it is."""
    (folder / "n_frames").write_text(text)
    execute(folder, "PRAGMA user_version = 0")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "frames.db").unlink(), "frames.db: No such file or directory"),
        (lambda folder: (folder / "frames.db").write_bytes(b"x" * 5000), "frames.db: file is not a database"),
        (lambda folder: cut_off(folder / "frames.db"), "frames.db: database disk image is malformed"),
        (lambda folder: execute(folder, "DROP TABLE Images"), "frames.db: no such table: Images"),
        (lambda folder: execute(folder, "DELETE FROM Images WHERE rowid = 3"), "frame 2 of 5 is missing"),
        (lambda folder: execute(folder, "DELETE FROM Images"), "frames.db: has 0 frames"),
        (lambda folder: execute(folder, "UPDATE Images SET frames = 12"), "frame 0 does not decode"),
        (
            lambda folder: execute(folder, "UPDATE Images SET frames = substr(frames, 1, 300)"),
            "frame 0 does not decode",
        ),
        (lambda folder: count_as(folder, "many"), "n_frames: invalid literal for int.* 'many'"),
        (lambda folder: count_as(folder, "0"), "frames.db: has 0 frames"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    damage(tmp_path / "video")
    with pytest.raises(FrameStoreError, match=f"video/.*{message}"):
        FrameStore(tmp_path / "video").read(range(5))


def with_size(height: int, width: int) -> bytes:
    """Return a JPEG whose header claims another size."""
    jpeg = painted_jpegs(1)[0]
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[start + 4 :]


def test_rows_in_another_order_than_claimed_are_an_error(tmp_path: Path) -> None:
    """A store of ours whose row ids are not the frame numbers gave other frames without a word."""
    store = tmp_path / "video"
    write_frame_store(store, painted_jpegs(3))
    execute(store, "UPDATE Images SET ObjId = 'video/frame_00009' WHERE rowid = 2")
    with pytest.raises(FrameStoreError, match="row 2 has ObjId 'video/frame_00009'"):
        FrameStore(store).read([1])


def test_rows_of_two_videos_are_an_error(tmp_path: Path) -> None:
    """Frames of the second video were given for the first."""
    store = write_foreign_store(tmp_path / "video", painted_jpegs(3))
    execute(store, "INSERT INTO Images VALUES ('other/frame_00001', ?, 50)", (painted_jpegs(1)[0],))
    with pytest.raises(FrameStoreError, match="has frames of 2 videos"):
        FrameStore(store).read([0])


def test_size_of_a_jpeg_is_bounded(tmp_path: Path) -> None:
    assert jpeg_size(with_size(4320, 7680)) == (4320, 7680)
    for height, width in ((65_000, 65_000), (1, 65_000), (8192, 8192)):
        with pytest.raises(ValueError, match=f"has {width} x {height} pixels"):
            write_frame_store(tmp_path / "v", [with_size(height, width)])


def test_reading_changes_no_file_and_leaves_none_open(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "video", painted_jpegs(5))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "frames.db").write_bytes(b"x" * 5000)
    (tmp_path / "video").chmod(0o555)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "video").iterdir()}
    for _ in range(20):
        assert indices_of(FrameStore(tmp_path / "video").read([0, 4])) == [0, 4]
        with pytest.raises(FrameStoreError):
            FrameStore(tmp_path / "broken").read([0])
    # of these stores alone: those of other tests are closed at any time
    open_files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert [path for path in open_files if path.startswith(str(tmp_path.resolve()))] == []
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "video").iterdir()} == times


def interrupted() -> Iterator[bytes]:
    yield from painted_jpegs(3)
    raise KeyboardInterrupt


@pytest.mark.parametrize(("jpegs", "error"), [(interrupted(), KeyboardInterrupt), ([], ValueError)])
def test_a_store_that_is_not_complete_leaves_nothing(
    tmp_path: Path, jpegs: Iterator[bytes], error: type[BaseException]
) -> None:
    with pytest.raises(error):
        write_frame_store(tmp_path / "class" / "video", jpegs)
    assert list((tmp_path / "class").iterdir()) == []


def test_nothing_is_ever_replaced(tmp_path: Path) -> None:
    """The original's converter deleted a store when it was run a second time."""
    write_frame_store(tmp_path / "video", painted_jpegs(3))
    with pytest.raises(FileExistsError, match="video: already exists"):
        write_frame_store(tmp_path / "video", painted_jpegs(9))
    assert FrameStore(tmp_path / "video").n_frames == 3
    assert [path.name for path in tmp_path.iterdir()] == ["video"]
