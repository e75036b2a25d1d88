"""Video files of many kinds: converted exactly, or refused with the reason."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.convert.converter import Job, convert_video, read_back
from data.frame_store import FrameStore
from tests.data.helpers import make_video, run_ffmpeg, transcode
from tests.synthetic_frames import indices_of

SETTINGS = {"short_side": 294, "quality": 3}
FORMATS = {
    "AV1 by SVT, 10 bits": (
        "mkv",
        "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le -svtav1-params log-level=0",
    ),
    "AV1 by libaom": ("mp4", "-c:v libaom-av1 -cpu-used 8 -usage realtime"),
    "HEVC, 10 bits": (
        "mp4",
        "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params log-level=error",
    ),
    "VP9": ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8"),
    "VP9 with alpha": ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuva420p"),
    "MPEG-4": ("avi", "-c:v mpeg4 -q:v 2"),
    "H.264, 4:4:4, B-frames": ("mkv", "-c:v libx264 -pix_fmt yuv444p -bf 3"),
    "ProRes, 10 bits, 4:2:2": ("mov", "-c:v prores_ks -pix_fmt yuv422p10le"),
    "FFV1, gray": ("mkv", "-c:v ffv1 -pix_fmt gray"),
    "Animation with alpha": ("mov", "-c:v qtrle -pix_fmt argb"),
    "PNG with palette": ("mov", "-c:v png -pix_fmt pal8"),
    "odd size": ("mkv", "-c:v ffv1 -vf scale=63:47"),
    "odd height": ("mp4", "-c:v libx264 -vf scale=101:95,format=yuv444p"),
    "non-square pixels": ("mp4", "-c:v libx264 -vf setsar=4/3"),
    "interlaced": ("mp4", "-c:v libx264 -flags +ilme+ildct"),
}
SIZES = {"odd size": (47, 63), "odd height": (95, 101)}


def stored_indices(store: Path) -> list[int]:
    frames = FrameStore(store)
    return indices_of(frames.read(range(frames.n_frames)))


@pytest.fixture(scope="session")
def ten_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "source.mp4", n_frames=10, size=60)


@pytest.fixture(scope="session")
def four_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("video") / "source.mp4", n_frames=100, size=60)


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_of_each_format_is_stored_once(tmp_path: Path, ten_frames: Path, name: str) -> None:
    suffix, options = FORMATS[name]
    video = transcode(ten_frames, tmp_path / f"video.{suffix}", *options.split())
    assert convert_video(Job(video, tmp_path / "store"), **SETTINGS) == (10, "")
    assert FrameStore(tmp_path / "store").read([0]).shape[1:3] == SIZES.get(name, (60, 60))
    assert stored_indices(tmp_path / "store") == list(range(10))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mkv", "-vf settb=1/1000,setpts=floor(N/2)*80+mod(N\\,2) -fps_mode passthrough -c:v libx264"),
        ("mpg", "-vf setpts=N/30/TB -r 30 -c:v mpeg2video -q:v 2"),
    ],
)
def test_variable_frame_rate(tmp_path: Path, ten_frames: Path, suffix: str, options: str) -> None:
    """Timestamps were rounded to the frame rate, and two equal ones ended the video."""
    video = transcode(ten_frames, tmp_path / f"v.{suffix}", *options.split())
    assert convert_video(Job(video, tmp_path / "store"), keep_damaged=False, **SETTINGS) == (10, "")
    assert stored_indices(tmp_path / "store") == list(range(10))


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
def test_color_matrix_of_the_file_is_used(tmp_path: Path, matrix: str) -> None:
    """HD videos were decoded as SD ones: greens were 35 too bright."""
    tag = {"bt709": "bt709", "bt601": "smpte170m"}[matrix]
    filters = f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
    source = ["-f", "lavfi", "-i", "color=c=0x20C840:s=64x48:d=0.2:r=25", "-vf", filters, "-colorspace", tag]
    run_ffmpeg(*source, tmp_path / "v.mp4")
    convert_video(Job(tmp_path / "v.mp4", tmp_path / "store"), **SETTINGS)
    color = FrameStore(tmp_path / "store").read([2])[0, 20, 20]
    assert np.abs(color.astype(int) - (0x40, 0xC8, 0x20)).max() < 8


def test_rotation_is_applied_and_the_short_side_never_enlarged(tmp_path: Path, ten_frames: Path) -> None:
    options = ["-display_rotation", "90", "-i", ten_frames, "-c", "copy"]
    run_ffmpeg(*options, tmp_path / "v.mp4")
    convert_video(Job(tmp_path / "v.mp4", tmp_path / "store"), **SETTINGS)
    frames = FrameStore(tmp_path / "store").read(range(10))
    assert indices_of([np.rot90(frame, k=-1) for frame in frames]) == list(range(10))
    for i, (scale, height, width) in enumerate(
        (("200:120", 60, 100), ("90:150", 100, 60), ("40:30", 30, 40))
    ):
        video = transcode(ten_frames, tmp_path / f"{i}.mp4", "-vf", f"scale={scale}")
        convert_video(Job(video, tmp_path / f"store_{i}"), short_side=60, quality=3)
        assert FrameStore(tmp_path / f"store_{i}").read([0]).shape == (1, height, width, 3)


def test_video_that_changes_its_size_keeps_the_first(tmp_path: Path, ten_frames: Path) -> None:
    parts = [
        transcode(ten_frames, tmp_path / f"{size}.h264", "-vf", f"scale={size}:{size}") for size in (60, 90)
    ]
    (tmp_path / "v.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert convert_video(Job(tmp_path / "v.h264", tmp_path / "store"), **SETTINGS) == (20, "")
    assert FrameStore(tmp_path / "store").read([0, 19]).shape == (2, 60, 60, 3)
    assert stored_indices(tmp_path / "store") == [*range(10)] * 2


def test_largest_of_several_streams_is_used(tmp_path: Path, ten_frames: Path) -> None:
    small = ["-f", "lavfi", "-i", "color=red:s=32x32:d=1:r=25", "-i", ten_frames, "-map", "0", "-map", "1"]
    run_ffmpeg(*small, "-disposition:v:0", "0", tmp_path / "v.mkv")
    assert convert_video(Job(tmp_path / "v.mkv", tmp_path / "store"), **SETTINGS) == (10, "")


def test_audio_is_refused(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "v.mp4")
    reason = "v.mp4: Output file does not contain any stream|v.mp4: .*matches no streams"
    with pytest.raises(ValueError, match=reason):
        convert_video(Job(tmp_path / "v.mp4", tmp_path / "store"), **SETTINGS)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_before_the_damage_are_kept_or_the_video_refused(
    tmp_path: Path, ten_frames: Path, codec: str
) -> None:
    whole = transcode(ten_frames, tmp_path / "whole.mkv", "-c:v", codec, "-g", "1")
    data = bytearray(whole.read_bytes())
    for i in range(len(data) * 8 // 10, len(data) * 9 // 10, 7):
        data[i] ^= 0xFF
    (tmp_path / "v.mkv").write_bytes(data)
    job = Job(tmp_path / "v.mkv", tmp_path / "store")
    with pytest.raises(ValueError, match=r"v.mkv: "):
        convert_video(job, keep_damaged=False, **SETTINGS)
    frames, damage = convert_video(job, **SETTINGS)
    assert 0 < frames < 10
    assert damage.startswith(f"{frames} of about 10 frames, ")
    assert stored_indices(job.folder) == list(range(frames))


OPEN_GOP = "open-gop=1:keyint=10:min-keyint=10:bframes=6:b-adapt=0:scenecut=0"
PARTS = [
    (0, 1, range(25)),
    (0.36, 0.8, range(9, 20)),
    (1.5, 3.4, range(38, 85)),
    (1.99, 9, range(50, 100)),
    (2.01, 2.99, range(51, 75)),
]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("avi", "-c:v mpeg4 -q:v 2 -g 30 -bf 2"),  # frames were two too late
        ("ts", "-c:v libx264 -g 30 -bf 2"),
        ("mpg", "-c:v mpeg2video -q:v 2 -g 15 -bf 2"),
        ("flv", "-c:v libx264 -g 30 -bf 2"),
        ("mp4", "-c:v libx264 -g 50 -bf 3"),
        ("mp4", f"-c:v libx264 -x264-params {OPEN_GOP}"),  # frames are stored after a later key frame
        ("mkv", "-c:v libx264 -g 50 -bf 3"),
        ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 60"),
    ],
)
def test_seconds_of_each_format(tmp_path: Path, four_seconds: Path, suffix: str, options: str) -> None:
    """From the first frame at or after the start to the last before the end; ffmpeg's own seeking gave others."""
    video = transcode(four_seconds, tmp_path / f"v.{suffix}", *options.split())
    for number, (start, end, expected) in enumerate(PARTS):
        job = Job(video, tmp_path / f"store_{number}", (start, end))
        assert convert_video(job, keep_damaged=False, **SETTINGS) == (len(expected), "")
        assert stored_indices(job.folder) == list(expected)


def all_flagged(data: bytes) -> bytes:
    """An MP4 file without its list of key frames: then all are."""
    return data.replace(b"stss", b"free")


def wrong_list(data: bytes) -> bytes:
    """An MP4 file whose list of key frames has the frames 7 later, but for the first."""
    start = data.index(b"stss") + 12
    end = start + 4 * int.from_bytes(data[start - 4 : start])
    numbers = [int.from_bytes(data[i : i + 4]) for i in range(start, end, 4)]
    moved = b"".join((number + 7 * (number > 1)).to_bytes(4) for number in numbers)
    return data[:start] + moved + data[end:]


def late_index(data: bytes) -> bytes:
    """A Matroska file whose index has times one second too early, so that seeking goes too far."""
    start = data.rindex(b"\x1c\x53\xbb\x6b")
    cues = re.sub(
        rb"\xb3\x82(..)",
        lambda cue: b"\xb3\x82" + max(int.from_bytes(cue[1]) - 1000, 0).to_bytes(2),
        data[start:],
        flags=re.DOTALL,
    )
    return data[:start] + cues


@pytest.mark.parametrize(
    ("suffix", "options", "lie"),
    [
        ("mp4", "-c:v mpeg4 -q:v 4 -g 200 -bf 2 -sc_threshold 1000000000", all_flagged),
        ("mp4", "-c:v mpeg4 -q:v 4 -g 30 -sc_threshold 1000000000", wrong_list),
        ("mp4", "-c:v libx264 -g 200 -bf 2", all_flagged),
        ("mp4", "-c:v libx264 -g 30 -bf 2", wrong_list),
        ("mp4", "-c:v libx265 -g 200 -preset ultrafast -x265-params log-level=error", all_flagged),
        ("mp4", "-c:v libaom-av1 -cpu-used 8 -usage realtime -g 200", all_flagged),
        ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 20", late_index),
        # pictures that need no other, before pictures that need those before them
        (
            "mp4",
            "-c:v libx264 -refs 4 -bf 0 -g 200 -force_key_frames expr:eq(mod(n,20),0) -forced-idr 0",
            all_flagged,
        ),
    ],
)
@pytest.mark.parametrize("copied_to", ["", "mkv"])
def test_seconds_of_files_that_lie_about_key_frames(
    tmp_path: Path, suffix: str, options: str, lie: Callable[[bytes], bytes], copied_to: str
) -> None:
    """The frames were decoded from one that needs others: they were gray or smeared."""
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=4", "-vf", "noise=alls=10:allf=t"]
    run_ffmpeg(*source, "-pix_fmt", "yuv420p", *options.split(), tmp_path / f"true.{suffix}")
    video = tmp_path / f"v.{suffix}"
    video.write_bytes(lie((tmp_path / f"true.{suffix}").read_bytes()))
    if copied_to:
        video = transcode(video, tmp_path / f"v.{copied_to}", "-c", "copy")
    assert convert_video(Job(video, tmp_path / "whole"), **SETTINGS) == (100, "")
    whole = FrameStore(tmp_path / "whole").fetch(range(100)).jpegs
    for start, end in ((1.5, 2.5), (2, 3), (3.2, 9)):
        job = Job(video, tmp_path / f"part_{start}", (start, end))
        frames = range(math.ceil(start * 25), min(math.ceil(end * 25), 100))
        assert convert_video(job, **SETTINGS) == (len(frames), "")
        part = FrameStore(job.folder).fetch(range(len(frames))).jpegs
        assert [part[index] for index in range(len(frames))] == [whole[index] for index in frames]


def test_times_are_stored(tmp_path: Path, ten_frames: Path) -> None:
    """Of a part from its first frame."""
    options = (
        "-vf settb=1/1000,setpts=if(lt(N\\,5)\\,N*100\\,N*200) -fps_mode passthrough -enc_time_base 1:1000"
    )
    video = transcode(ten_frames, tmp_path / "v.mkv", *options.split())
    expected = [0.1 * number if number < 5 else 0.2 * number for number in range(10)]
    for name, seconds, first in (("whole", None, 0), ("part", (0.35, 9), 4), ("late", (1.1, 9), 6)):
        convert_video(Job(video, tmp_path / name, seconds), **SETTINGS)
        times = FrameStore(tmp_path / name).times()
        np.testing.assert_allclose(times, np.array(expected[first:]) - expected[first], atol=1e-6)


def test_seconds_of_concatenated_files(tmp_path: Path, four_seconds: Path) -> None:
    """Timestamps restart in the second of two concatenated MPEG files."""
    options = ("-t", "2", "-c:v", "mpeg2video", "-q:v", "2")
    halves = [transcode(four_seconds, tmp_path / f"{start}.mpg", "-ss", start, *options) for start in "02"]
    (tmp_path / "v.mpg").write_bytes(b"".join(half.read_bytes() for half in halves))
    for start, end in ((1.52, 2.52), (2, 3), (2.52, 3.4)):
        job = Job(tmp_path / "v.mpg", tmp_path / f"store_{start}", (start, end))
        expected = list(range(round(start * 25), round(end * 25)))
        assert convert_video(job, keep_damaged=False, **SETTINGS) == (len(expected), "")
        assert stored_indices(job.folder) == expected


def test_seconds_after_damage(tmp_path: Path, four_seconds: Path) -> None:
    """MP4 has an index to find them; a file that is decoded from its start has none of them."""
    for suffix, codec in (("mp4", "libx264"), ("mpg", "mpeg2video")):
        whole = transcode(four_seconds, tmp_path / f"whole.{suffix}", "-c:v", codec, "-g", "10")
        data = bytearray(whole.read_bytes())
        data[len(data) // 4 : len(data) // 4 + 300] = b"\xff" * 300
        (tmp_path / f"v.{suffix}").write_bytes(data)
    assert convert_video(Job(tmp_path / "v.mp4", tmp_path / "store", (3, 4)), **SETTINGS) == (25, "")
    assert stored_indices(tmp_path / "store") == list(range(75, 100))
    with pytest.raises(ValueError, match=r"v\.mpg: no frame could be decoded between 3 and 4 s, \w+"):
        convert_video(Job(tmp_path / "v.mpg", tmp_path / "none", (3, 4)), **SETTINGS)
    assert not (tmp_path / "none").exists()


def test_seconds_after_the_end_are_refused(tmp_path: Path, ten_frames: Path) -> None:
    with pytest.raises(ValueError, match=r"no frame could be decoded between 7 and 9.5 s"):
        convert_video(Job(ten_frames, tmp_path / "store", (7, 9.5)), **SETTINGS)


def test_store_is_read_back(tmp_path: Path, ten_frames: Path) -> None:
    store = tmp_path / "store"
    convert_video(Job(ten_frames, store), **SETTINGS)
    read_back(store, 10)
    with pytest.raises(ValueError, match="holds 10 frames, not 5"):
        read_back(store, 5)


def test_audio_with_cover_art_is_refused(tmp_path: Path, ten_frames: Path) -> None:
    audio = ["-f", "lavfi", "-i", "sine=d=0.2", "-i", ten_frames, "-map", "0", "-map", "1", "-frames:v", "1"]
    run_ffmpeg(*audio, "-c:v", "mjpeg", "-disposition:v:0", "attached_pic", tmp_path / "song.m4a")
    with pytest.raises(ValueError, match="song.m4a: holds audio and cover art, no video"):
        convert_video(Job(tmp_path / "song.m4a", tmp_path / "store"), **SETTINGS)
