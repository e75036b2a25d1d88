"""The half level of a store: frames at half their lines beside the whole ones."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from data.frame_store import FrameStore
from data.store_writer import add_half_level, write_frame_store
from tests.data.test_frame_store import write_foreign_store
from tests.synthetic_frames import painted_jpegs


def half_level(folder: Path) -> list[tuple[int, int, int, bytes]]:
    with closing(sqlite3.connect(folder / "frames.db")) as connection:
        return connection.execute("SELECT rowid, height, width, frames FROM HalfImages").fetchall()


def noisy_jpegs(n_frames: int, height: int, width: int) -> list[bytes]:
    generator = np.random.default_rng(0)
    noise = generator.uniform(0, 255, (n_frames, height // 8, width // 8, 3)).astype(np.uint8)
    frames = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in noise]
    return [simplejpeg.encode_jpeg(frame, colorspace="BGR") for frame in frames]


@pytest.mark.parametrize(("height", "width"), [(64, 90), (65, 91)])
def test_half_level_has_the_mean_of_four_pixels(tmp_path: Path, height: int, width: int) -> None:
    """The last row and column are repeated where the number is odd."""
    write_frame_store(tmp_path / "v", noisy_jpegs(5, height, width), half_level=True)
    whole = FrameStore(tmp_path / "v").read(range(5))
    padded = np.pad(whole, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge").astype(float)
    expected = (padded[:, ::2, ::2] + padded[:, 1::2, ::2] + padded[:, ::2, 1::2] + padded[:, 1::2, 1::2]) / 4
    rows = half_level(tmp_path / "v")
    assert [row[:3] for row in rows] == [(number, height, width) for number in range(1, 6)]
    for (*_, jpeg), frame in zip(rows, expected, strict=True):
        assert simplejpeg.decode_jpeg_header(jpeg)[3] == "444"
        decoded = simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
        assert decoded.shape == ((height + 1) // 2, (width + 1) // 2, 3)
        assert 10 * np.log10(255**2 / np.mean((decoded - frame) ** 2)) > 36  # every second pixel: 19


def test_added_half_level_is_that_of_writing_and_makes_lists_of_videos_invalid(tmp_path: Path) -> None:
    jpegs = painted_jpegs(6)
    folder = tmp_path / "class" / "v"
    write_frame_store(tmp_path / "other" / "v", jpegs, [0.5 * i for i in range(6)], half_level=True)
    write_frame_store(folder, jpegs, [0.5 * i for i in range(6)])
    before = FrameStore(folder).read(range(6))
    os.utime(folder.parent, (0, 0))
    assert add_half_level(folder) == "half_level_added"
    assert folder.parent.stat().st_mtime > 0
    assert half_level(folder) == half_level(tmp_path / "other" / "v")
    assert sorted(path.name for path in folder.iterdir()) == ["frames.db", "n_frames"]
    store = FrameStore(folder)
    assert np.array_equal(store.read(range(6)), before)
    times = store.times()
    assert times is not None
    assert times[-1] == 2.5
    assert add_half_level(folder) == "done_before"


def test_stores_of_others_and_corrupt_ones_are_not_changed(tmp_path: Path) -> None:
    write_foreign_store(tmp_path / "theirs", painted_jpegs(3))
    write_frame_store(tmp_path / "corrupt", painted_jpegs(3))
    with closing(sqlite3.connect(tmp_path / "corrupt" / "frames.db")) as connection, connection:
        connection.execute("UPDATE Images SET frames = 'x' WHERE rowid = 2")
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert add_half_level(tmp_path / "theirs") == "foreign"
    with pytest.raises((ValueError, TypeError)):
        add_half_level(tmp_path / "corrupt")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == contents
