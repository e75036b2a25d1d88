"""Written videos: the time of each frame, the duration, and other encoders than x264."""

from pathlib import Path

import numpy as np
import pytest

from data.ffmpeg import encoding
from data.ffmpeg.decoding import VideoStreamError
from data.ffmpeg.encoding import video_writer
from data.ffmpeg.video_files import VideoFile
from tests.data.helpers import packets


def write(path: Path, times: list[float], height: int = 48, width: int = 64) -> Path:
    """Write grey frames, each brighter than the one before."""
    with video_writer(path, height, width, threads=1) as writer:
        for index, seconds in enumerate(times):
            writer.write(np.full((height, width, 3), 20 + 200 * index // len(times), np.uint8), seconds)
    return path


@pytest.mark.parametrize(
    ("times", "last"),
    [
        ([0, 0.04, 0.08, 0.5, 0.6, 1.7], 0.1),
        ([0, 1 / 30, 2 / 30, 1], 1 / 30),
        ([0, 0.25], 0.25),
        ([0, 0.001, 0.002, 600], 0.001),
        ([index / 29.97 for index in range(80)], 1 / 29.97),
    ],
)
def test_each_frame_is_shown_at_its_time_and_the_last_for_the_median(
    tmp_path: Path, times: list[float], last: float
) -> None:
    """Raw video has a constant rate; with B frames the duration of an MP4 of variable rate is wrong."""
    written = packets(write(tmp_path / "v.mp4", times))
    np.testing.assert_allclose([seconds for seconds, _ in written], times, atol=2e-6)
    np.testing.assert_allclose([length for _, length in written[:-1]], np.diff(times), atol=2e-6)
    assert written[-1][1] == pytest.approx(last, abs=2e-6)
    frames = [frame.mean() for frame, _ in VideoFile(tmp_path / "v.mp4").frames()]
    assert len(frames) == len(times)
    assert frames == sorted(frames)


def test_a_single_frame_is_shown_for_a_25th_of_a_second(tmp_path: Path) -> None:
    assert packets(write(tmp_path / "v.mp4", [0])) == [(0, pytest.approx(0.04))]


def test_another_encoder_has_good_quality_and_even_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-crf and 4:4:4 are x264's; the default of others is 200 kbit/s."""
    monkeypatch.setattr(encoding, "h264_encoder", lambda: "libopenh264")
    frame = np.random.default_rng(0).integers(0, 256, (12, 17, 3)).astype(np.uint8)
    frame = frame.repeat(9, axis=0).repeat(9, axis=1)[:, :151]  # 108 x 151
    with video_writer(tmp_path / "v.mp4", *frame.shape[:2]) as writer:
        for index in range(10):
            writer.write(frame[:, :, ::-1] if index == 9 else frame, index / 10)
    decoded = [frame for frame, _ in VideoFile(tmp_path / "v.mp4").frames()]
    assert [image.shape for image in decoded] == [(108, 152, 3)] * 10
    gray = [image[:, :151].mean(axis=2) for image in (decoded[5], frame)]
    assert np.abs(gray[0] - gray[1]).mean() < 12


def test_what_ffmpeg_refuses_is_one_line_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "h264_encoder", lambda: "no_such_encoder")
    with pytest.raises(VideoStreamError, match=r"v\.mp4: ffmpeg could not write it, .*no_such_encoder"):
        write(tmp_path / "v.mp4", [index / 25 for index in range(500)])
    assert list(tmp_path.iterdir()) == []
