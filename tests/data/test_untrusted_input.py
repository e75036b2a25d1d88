"""Stores, label files and dictionaries from strangers: each of these once hung, took all memory, or misled."""

import os
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.common.atomic_io import atomic_write
from data.common.cli import sanitize
from data.convert.sources import find_jobs
from data.ffmpeg import ffmpeg_command
from data.frame_store import FrameStore, FrameStoreError, jpeg_size, write_frame_store
from data.label_files import read_classes, read_label_csv
from data.verify.checks import BROKEN_JPEG, inspect_store
from data.video_list import find_videos
from tests.fuzz.stores import ENDLESS
from tests.synthetic_frames import painted_jpegs


def store_of(folder: Path, script: str, rows: int = 0, version: int = 0) -> Path:
    folder.mkdir()
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.executescript(f"PRAGMA user_version = {version}; {script}")
        for number, jpeg in enumerate(painted_jpegs(rows), start=1):
            connection.execute("INSERT INTO Images VALUES (?, ?, 50)", (f"v/frame_{number:05d}", jpeg))
    return folder


def test_a_view_is_not_gone_into(tmp_path: Path) -> None:
    """This one has no end."""
    script = f"CREATE VIEW Images AS {ENDLESS} 'v/frame_' || i AS ObjId, x'00' AS frames FROM n"
    with pytest.raises(FrameStoreError, match=r"frames\.db: Images is not a plain table"):
        FrameStore(store_of(tmp_path / "v", script))


def test_a_database_whose_rows_have_no_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pages that point to one another make them; here it is the file that is said to be small."""
    folder = store_of(tmp_path / "v", "CREATE TABLE Images (ObjId, frames, size)", rows=1)
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        numbers = ((f"v/frame_{i}", b"", 0) for i in range(50_000))
        connection.executemany("INSERT INTO Images VALUES (?, ?, ?)", numbers)
    monkeypatch.setattr("data.frame_store.STEPS_OF_A_BYTE", 0)
    with pytest.raises(FrameStoreError, match="has more rows than its size allows"):
        FrameStore(folder)


def test_a_value_without_a_bound_is_not_read(tmp_path: Path) -> None:
    """A gigabyte that is computed: a file of one takes the tests too long."""
    script = "CREATE TABLE Images (ObjId, size, frames AS (zeroblob(999999999)))"
    folder = store_of(tmp_path / "v", f"{script}; INSERT INTO Images VALUES ('v/frame_1', 1)")
    with pytest.raises(FrameStoreError, match="too big"):
        FrameStore(folder).read([0])


def test_rows_that_are_said_to_be_in_order_are_not_believed(tmp_path: Path) -> None:
    folder = store_of(tmp_path / "v", "CREATE TABLE Images (ObjId, frames, size)", rows=3, version=1)
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("UPDATE Images SET ObjId = 'v/frame_00007' WHERE rowid = 2")
    assert len(FrameStore(folder).read([0, 2])) == 2
    with pytest.raises(FrameStoreError, match=r"row 2 is 'v/frame_00007'"):
        FrameStore(folder).read([1])


def test_a_name_of_digits_alone_takes_no_time(tmp_path: Path) -> None:
    """The search for its number went over them again from each digit on; and Python's numbers have 4,300 at most."""
    for text in ("1" * 200_000 + "x", "1" * 5000):
        folder = store_of(tmp_path / text[-1], "CREATE TABLE Images (ObjId, frames, size)", rows=1)
        with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
            connection.execute("UPDATE Images SET ObjId = ?", (text,))
        (folder / "n_frames").write_text("1")
        with pytest.raises(FrameStoreError, match="does not end with the number|is missing"):
            FrameStore(folder).read([0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.truncate(path, 2**40), "is not a number of frames"),
        (lambda path: path.write_text("9" * 5000), "is not a number of frames"),
        (lambda path: path.unlink() or path.symlink_to("/dev/zero"), "is not a number of frames"),
        (lambda path: path.unlink() or path.symlink_to(path), "cannot be read"),
    ],
)
def test_a_count_that_is_none_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    write_frame_store(tmp_path / "v", painted_jpegs(2))
    make(tmp_path / "v" / "n_frames")
    with pytest.raises(FrameStoreError, match=f"n_frames: .*{message}"):
        FrameStore(tmp_path / "v")


def test_a_named_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "v", painted_jpegs(2))
    (tmp_path / "v" / "n_frames").unlink()
    os.mkfifo(tmp_path / "v" / "n_frames")
    assert FrameStore(tmp_path / "v").n_frames == 2  # counted, as where there is none
    os.mkfifo(tmp_path / "dictionary.json")
    with pytest.raises(ValueError, match=r"dictionary\.json: is not a JSON object"):
        read_classes(tmp_path / "dictionary.json")


def jpeg(height: int, width: int) -> bytes:
    """A header that claims a size."""
    data = painted_jpegs(1)[0]
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[place + 4 :]


def test_pictures_without_a_bound_are_refused_in_both_directions(tmp_path: Path) -> None:
    assert jpeg_size(jpeg(4320, 7680)) == (4320, 7680)
    for height, width in ((65_000, 65_000), (1, 65_000), (8192, 8192)):
        with pytest.raises(ValueError, match=f"has {width} x {height} pixels"):
            jpeg_size(jpeg(height, width))
    with pytest.raises(ValueError, match="65000 x 65000"):
        write_frame_store(tmp_path / "v", [jpeg(65_000, 65_000)])
    progressive = cv2.imencode(".jpg", np.zeros((50, 50, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[
        1
    ].tobytes()
    assert jpeg_size(progressive) == (50, 50)
    last = progressive.rindex(b"\xff\xda")
    with pytest.raises(ValueError, match="more than 64 scans"):
        jpeg_size(progressive[:last] + progressive[last:-2] * 100 + b"\xff\xd9")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('label,id\na,x\na,"y\na,z\n', "is not a CSV in UTF-8, unexpected end of data"),
        ('label,id\na,"x\nb,y\nc,z"\n', "has a line break or the like; is a quote left open"),
        ("label,id\na,x\x1b[2J\n", "has a line break or the like"),
        ("label,\x1b[31mid\n", r"has the columns label, \?\[31mid"),
    ],
)
def test_rows_are_not_lost_within_quotes(tmp_path: Path, text: str, message: str) -> None:
    """All rows after a quote that was left open were one field of one missing video."""
    path = tmp_path / "train.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"train\.csv.*{message}"):
        read_label_csv(path, timed_ids=False)


def test_a_line_without_an_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match=r"train\.csv: has a line of more than"):
        read_label_csv(path, timed_ids=False)


def test_names_that_no_file_can_have_are_missing_videos(tmp_path: Path) -> None:
    write_frame_store(tmp_path / "jpg" / "a" / "x", painted_jpegs(1))
    (tmp_path / "jpg" / "a" / "loop").symlink_to("loop")
    path = tmp_path / "train.csv"
    path.write_text(f"label,id,time_start,time_end\na,x,,\na,{'y' * 300},,\na,loop,,\na,z,0,1e300\n")
    videos = find_videos(tmp_path / "jpg", path, read_label_csv(path, timed_ids=True), ["a"], max_missing=1.0)
    assert (len(videos), videos.missing["a"]) == (1, 3)


@pytest.mark.parametrize(
    "text",
    ['{"a": 0.9}', '{"a": true}', '{"a": 1e999}', "[" * 100_000, '{"\\ud800": 0}', '["a"]', '{"a": "0"}'],
)
def test_numbers_of_classes_are_whole_numbers(tmp_path: Path, text: str) -> None:
    """0.9 was taken for 0; the others ended in tracebacks."""
    path = tmp_path / "dictionary.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"dictionary\.json: is not a JSON object"):
        read_classes(path)


def test_a_name_that_is_not_utf8_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.csv: cannot hold a name that is not UTF-8, near 'a\\udcff'"):
        atomic_write(tmp_path / "x.csv", os.fsdecode(b"a\xff") + "b")
    assert list(tmp_path.iterdir()) == []


def test_playlists_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "x.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    with pytest.raises(ValueError, match="holds no <class>/<video>"):
        find_jobs(tmp_path / "videos", tmp_path / "set")


def test_a_playlist_by_its_content_opens_no_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.ts"
        path = tmp_path / "x.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        done = subprocess.run(ffmpeg_command(path, 64, 3), capture_output=True, timeout=60, check=False)
        assert (done.returncode != 0, done.stdout) == (True, b"")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_column_called_rowid_is_a_finding(tmp_path: Path) -> None:
    script = "CREATE TABLE Images (ObjId, frames, rowid TEXT); INSERT INTO Images VALUES ('v/frame_1', x'00', NULL)"
    folder = store_of(tmp_path / "v", script)
    found = inspect_store(folder, seed=1).wrong
    assert [finding.kind for finding in found] == [BROKEN_JPEG]


def test_messages_are_a_line() -> None:
    assert sanitize("a\nb\x1b[2J\u202e" + "x" * 500) == "a b?[2J?" + "x" * 192
