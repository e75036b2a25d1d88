"""The benchmark on small videos, and its errors."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.batch_sampler import BatchShape
from data.benchmark import reading
from data.benchmark.reading import compare, make_readers
from data.benchmark.reference_pipeline import MEAN, STD, fetch_from_original_store, write_original_store
from data.benchmark.test_videos import BenchmarkInputs, make_videos, write_inputs
from data.frame_store import FrameStore
from data.store_writer import write_frame_store
from tests.commands import error_of, main_of

main = main_of("data.benchmark")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_videos(tmp_path_factory.mktemp("videos") / "a.class", count=2, seconds=2)


def test_both_stores_hold_the_same_frames(videos: list[Path], tmp_path: Path) -> None:
    inputs = write_inputs(videos, tmp_path, quality=0)
    assert inputs.num_frames == [60, 60]
    assert FrameStore(inputs.half_level[1]).has_half_level
    frames = FrameStore(inputs.stores[1]).fetch([5, 59, 0])
    jpegs = fetch_from_original_store(inputs.originals[1], [5, 59, 0])
    assert [frames.jpegs[index] for index in (5, 59, 0)] == jpegs
    assert (frames.height, frames.width) == (360, 480)


def test_reference_pipeline_applies_the_same_augmentations(tmp_path: Path) -> None:
    """On frames of one color, as the crop differs: a pipeline with more work would be measured as slower."""
    jpeg = cv2.imencode(".jpg", np.full((360, 480, 3), (60, 120, 180), np.uint8))[1].tobytes()
    write_frame_store(tmp_path / "v", [jpeg] * 8)
    write_original_store(tmp_path / "original" / "v", [jpeg] * 8)
    readers = make_readers(
        BenchmarkInputs([tmp_path / "v"], [tmp_path / "v"], [tmp_path / "original" / "v"], [8]), 4, 224
    )
    for seed in range(12):
        clip = readers["original recipe"](seed)
        assert (clip.shape, clip.dtype) == ((3, 4, 224, 224), np.float32)
        frames = 255 * (clip.transpose(1, 2, 3, 0) * STD + MEAN)
        assert np.abs(frames - readers["ours, imgaug"](seed)).mean() < 2, seed


def test_ratios_are_those_to_the_first_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def make_reader(seconds: float) -> reading.Reader:
        def read(_: int) -> np.ndarray:
            nonlocal now
            now += seconds
            return np.empty(0)

        return read

    monkeypatch.setattr("time.perf_counter", lambda: now)
    ratios = compare({"slow": make_reader(0.5), "fast": make_reader(0.125)}, rounds=3)
    assert ratios == {"slow": (1, 1, 1, 2), "fast": (4, 4, 4, 8)}


def test_results_are_printed_and_written(
    videos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.benchmark.reading.CLIPS_PER_TURN", 1)
    monkeypatch.setattr("data.benchmark.loading.SHAPE", BatchShape(5, 2, 80))
    path = tmp_path / "results.json"
    words = ["--videos", str(videos[0].parent.parent), "--rounds", "2", "--clips", "20", "--json", str(path)]
    assert main(words) == 0
    results = json.loads(path.read_text())
    sections = ["loading", "4 x 80", "8 x 112", "16 x 158", "16 x 224", "conversion", "memory_leak_check"]
    assert list(results) == sections
    assert min(results["loading"]["two_workers"], results["loading"]["first_batch"]) > 0
    levers = ("original recipe", "ours, fused", "ours, half level", "ours, device")
    assert all(name in results["4 x 80"] for name in levers)
    parts = results["4 x 80"]["ours, half level, milliseconds"]
    assert list(parts) == ["not pixels", "exact decoding", "decoding", "augmenting"]
    assert min(parts["not pixels"], parts["decoding"]) > 0
    assert set(results["4 x 80"]["ours, fused"]) == {"times", "low", "high", "clips_per_second"}
    assert results["conversion"]["frames_per_second"] > 0
    assert results["memory_leak_check"]["open_files"] == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("16 x 224", "ours, fused", "frames/s", "20 clips"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "1"], "'1' is not a whole number of at least 2"),
        (["--quality", "40"], "'40' is not 2 to 31, or 0"),
        (["--videos", "nowhere"], "--videos nowhere: has no video files"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str) -> None:
    assert message in error_of(main, *words)


def test_a_video_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("ignored")
    (tmp_path / "x.mp4").write_text("not a video")
    error = error_of(main, "--videos", tmp_path)
    assert error.endswith(f"error: {tmp_path / 'x.mp4'}: no frame could be decoded")
