"""Joined and damaged transport streams: frames in their order, none behind a lost one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.ffmpeg.video_files import VideoFile
from tests.data.helpers import make_video, run_ffmpeg
from tests.synthetic_frames import indices_of

PACKET = 188
INSIDE_VIDEO = b"\x01\x00"  # the second and third byte of a packet within a picture
H264 = "-c:v libx264 -g 20 -bf 2"
NOISE = "noise=alls=20:allf=t"  # several packets for each picture
JOINED = {  # suffix, options, how many more for each segment
    "restarting times": ("ts", H264, ""),
    "times that jump back": ("ts", "-c:v libx264 -bf 3", "-output_ts_offset {}"),
    "another program each": ("ts", H264, "-mpegts_pmt_start_pid {} -mpegts_service_id {}"),
    "packets with a time": ("m2ts", f"{H264} -mpegts_m2ts_mode 1", ""),
    "MPEG-2": ("ts", "-c:v mpeg2video -q:v 2 -bf 2", ""),
    "HEVC": ("ts", "-c:v libx265 -preset ultrafast -x265-params log-level=error", ""),
    "program streams": ("vob", "-c:v mpeg2video -q:v 2", ""),
}


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames."""
    return make_video(tmp_path_factory.mktemp("video") / "source.mp4", n_frames=100)


def segments(source: Path, folder: Path, suffix: str, options: str, more: str = "") -> list[bytes]:
    """Return four files of 25 + 3 frames each, of which three are those of the next file."""
    data = []
    for number in range(4):
        path = folder / f"{number}.{suffix}"
        part = f"trim=start_frame={25 * number}:end_frame={25 * number + 28},setpts=PTS-STARTPTS,{NOISE}"
        extra = more.format(200 * (4 - number), number + 1).split()
        run_ffmpeg("-i", source, "-vf", part, *options.split(), *extra, path)
        data.append(path.read_bytes())
    return data


def decode(path: Path, data: Sequence[bytes]) -> tuple[list[int], VideoFile, Sequence[float]]:
    path.write_bytes(b"".join(data))
    video = VideoFile(path)
    frames, times = zip(*video.frames(), strict=True)
    return indices_of(np.stack(frames)), video, times


EXPECTED = [index for start in (0, 25, 50, 75) for index in range(start, min(start + 28, 100))]


@pytest.mark.parametrize("name", JOINED)
def test_joined_segments_have_all_frames_in_order(tmp_path: Path, source: Path, name: str) -> None:
    suffix, options, more = JOINED[name]
    data = segments(source, tmp_path, suffix, options, more)
    indices, video, times = decode(tmp_path / f"joined.{suffix}", [b"cut", *data] if suffix == "ts" else data)
    assert (indices, video.decode_error) == (EXPECTED, "")
    assert np.diff(times).min() > 0
    assert times[-1] == pytest.approx((len(EXPECTED) - 1) / 25, abs=0.5)


@pytest.mark.parametrize(("lost", "between"), [(1, ""), (5, ""), (5, "clock")])
def test_no_frame_behind_a_lost_packet_is_kept(tmp_path: Path, source: Path, lost: int, between: str) -> None:
    """The decoder put out a frame that was stored before the lost ones, but is shown after them.

    A packet without data, which keeps clocks in time, has the number of the one before it and hid the loss.
    """
    first, second, *_ = segments(source, tmp_path, "ts", H264)
    packets = [second[start : start + PACKET] for start in range(0, len(second), PACKET)]
    middle = next(i for i in range(len(packets) // 2, len(packets)) if packets[i][1:3] == INSIDE_VIDEO)
    clock = b"G\x01\x00" + bytes([0x20 | packets[middle + lost - 1][3] & 15, 183, 0]) + b"\xff" * 182
    damaged = [*packets[:middle], *([clock] if between else []), *packets[middle + lost :]]
    indices, video, _ = decode(tmp_path / "joined.ts", [first, *damaged])
    assert 28 < len(indices) < 54
    assert indices == EXPECTED[: len(indices)]
    assert video.decode_error == f"{len(indices)} frames, corrupt input packet in stream 0"
    indices, video, _ = decode(tmp_path / "v.ts", damaged)
    assert indices == EXPECTED[28 : 28 + len(indices)]
    assert video.decode_error == f"{len(indices)} of about 28 frames, corrupt input packet in stream 0"


def test_join_after_a_cut_packet_is_a_loss(tmp_path: Path, source: Path) -> None:
    first, second, *_ = segments(source, tmp_path, "ts", H264)
    indices, video, _ = decode(tmp_path / "v.ts", [first[: -3 * PACKET - 100], second])
    assert indices == EXPECTED[: len(indices)]
    assert len(indices) < 28
    assert video.decode_error.startswith(f"{len(indices)} of about 28 frames, ")


def test_packet_that_is_sent_twice_is_no_loss(tmp_path: Path, source: Path) -> None:
    first, second, *_ = segments(source, tmp_path, "ts", H264)
    start = first.index(b"G" + INSIDE_VIDEO, len(first) // 2 // PACKET * PACKET)
    indices, video, _ = decode(tmp_path / "v.ts", [first[: start + PACKET], first[start:], second])
    assert (indices, video.decode_error) == (EXPECTED[:56], "")
