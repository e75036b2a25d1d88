"""The benchmark of reading: small runs on videos of its own, and what it refuses."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.benchmark.reading import SHAPES, compare, variants
from data.benchmark.reference_pipeline import (
    DEVIATIONS,
    MEANS,
    fetch_from_files,
    fetch_from_store,
    write_original_store,
)
from data.benchmark.test_videos import Sources, make_videos, prepare
from data.frame_store import FrameStore, write_frame_store
from tests.commands import main_of

main = main_of("data.benchmark")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_videos(tmp_path_factory.mktemp("videos"), count=2, seconds=2)


def test_all_forms_hold_the_same_frames(videos: list[Path], tmp_path: Path) -> None:
    sources = prepare(videos, tmp_path, quality=None)
    assert sources.frames == [60, 60]
    jpegs = fetch_from_store(sources.originals[1], [5, 59, 0])
    assert jpegs == fetch_from_files(sources.files[1], [5, 59, 0])
    frames = FrameStore(sources.stores[1]).fetch([5, 59, 0])
    assert [frames.jpegs[index] for index in (5, 59, 0)] == jpegs
    assert (frames.height, frames.width) == (360, 480)


def test_every_variant_gives_clips_and_the_first_is_the_measure(
    videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = prepare(videos, tmp_path, quality=3)
    length, size = SHAPES[0]
    readers = variants(sources, length, size)
    assert readers["original recipe, SQLite"](3).shape == (3, length, size, size)
    assert readers["original recipe, SQLite"](3).dtype == np.float32
    assert np.array_equal(readers["original recipe, SQLite"](3), readers["original recipe, JPEG files"](3))
    assert readers["ours, fused"](3).shape == (length, size, size, 3)
    monkeypatch.setattr("data.benchmark.reading.CLIPS_A_TURN", 2)
    ratios = compare(readers, rounds=2)
    assert ratios["original recipe, SQLite"][:3] == (1, 1, 1)
    assert all(ratio.low <= ratio.times <= ratio.high for ratio in ratios.values())
    assert all(ratio.clips_per_second > 0 for ratio in ratios.values())


def test_the_recipe_does_the_same_to_a_clip_as_we_do(tmp_path: Path) -> None:
    """Of a clip in one color, as the square is another; else one's heavier operations would count as its slowness."""
    _, jpeg = cv2.imencode(".jpg", np.full((360, 480, 3), (60, 120, 180), np.uint8))
    write_frame_store(tmp_path / "grey", [jpeg.tobytes()] * 8)
    write_original_store(tmp_path / "original" / "grey", [jpeg.tobytes()] * 8)
    sources = Sources([], [tmp_path / "grey"], [tmp_path / "original" / "grey"], [], [8])
    readers = variants(sources, 4, 224)
    for seed in range(12):
        recipe = readers["original recipe, SQLite"](seed).transpose(1, 2, 3, 0) * DEVIATIONS + MEANS
        assert np.abs(255 * recipe - readers["ours, imgaug"](seed)).mean() < 2, seed


def test_figures_are_printed_and_written(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.benchmark.reading.SHAPES", SHAPES[:1])
    monkeypatch.setattr("data.benchmark.conversion.TURNS", 1)
    monkeypatch.setattr("data.benchmark.reading.CLIPS_A_TURN", 2)
    monkeypatch.setattr("data.benchmark.reading.cost_of_sources", lambda folder, rounds: {})
    words = [
        "--videos",
        str(videos[0].parent),
        "--rounds",
        "2",
        "--clips",
        "20",
        "--json",
        str(tmp_path / "x.json"),
    ]
    cores = os.sched_getaffinity(0)
    assert main(words) == 0
    assert os.sched_getaffinity(0) == cores  # what runs after it has all of them again
    figures = json.loads((tmp_path / "x.json").read_text())
    assert set(figures["4 x 80"]["ours, fused"]) == {"times", "low", "high", "clips_per_second"}
    assert figures["converting, frames/s of one core"]["ours"] > 0
    assert figures["converting, two processes to one"]["times"] > 0
    printed = capsys.readouterr().out
    assert all(name in printed for section in figures.values() for name in section)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "1"], "--rounds 1: must be at least 2"),
        (["--quality", "40"], "--quality 40: must be 2 to 31, or 0"),
        (["--videos", "nowhere"], "--videos nowhere: holds no videos"),
    ],
)
def test_bad_arguments_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_what_is_no_video_is_left_out_and_one_that_does_not_decode_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "readme.txt").write_text("of my videos")
    with pytest.raises(SystemExit):
        main(["--videos", str(tmp_path)])
    assert "holds no videos" in capsys.readouterr().err
    (tmp_path / "x.mp4").write_text("no video")
    assert main(["--videos", str(tmp_path)]) == 2
    assert f"error: {tmp_path / 'x.mp4'}: no frame could be decoded\n" in capsys.readouterr().err
