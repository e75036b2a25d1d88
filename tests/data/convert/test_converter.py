"""Video files of many kinds: converted right, or refused with the reason."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data.convert.converter import ConversionError, Job, check_store, convert_video
from data.frame_store import FrameStore
from tests.data.helpers import make_video, remake, run_maker
from tests.synthetic_frames import indices_of

HOW = {"short_side": 294, "quality": 3}
KINDS = {
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
    "FFV1, grey": ("mkv", "-c:v ffv1 -pix_fmt gray"),
    "Animation with alpha": ("mov", "-c:v qtrle -pix_fmt argb"),
    "PNG with palette": ("mov", "-c:v png -pix_fmt pal8"),
    "odd size": ("mkv", "-c:v ffv1 -vf scale=63:47"),
    "one line more": ("mp4", "-c:v libx264 -vf scale=101:95,format=yuv444p"),
    "not square pixels": ("mp4", "-c:v libx264 -vf setsar=4/3"),
    "interlaced": ("mp4", "-c:v libx264 -flags +ilme+ildct"),
}
SIZES = {"odd size": (47, 63), "one line more": (95, 101)}


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames."""
    return make_video(tmp_path_factory.mktemp("painted") / "source.mp4", n_frames=10, size=60)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_arrives_frame_by_frame(tmp_path: Path, painted: Path, kind: str) -> None:
    ending, options = KINDS[kind]
    video = remake(painted, tmp_path / f"video.{ending}", *options.split())
    assert convert_video(Job(video, tmp_path / "store"), **HOW) == (10, "")
    frames = FrameStore(tmp_path / "store").read(range(10))
    assert frames.shape[1:3] == SIZES.get(kind, (60, 60))
    assert indices_of(frames) == list(range(10))


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
def test_colours_are_those_that_the_file_means(tmp_path: Path, matrix: str) -> None:
    """Those of HD videos were once taken for those of others: greens came out 35 too bright."""
    tag = {"bt709": "bt709", "bt601": "smpte170m"}[matrix]
    filters = f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
    color = ["-f", "lavfi", "-i", "color=c=0x20C840:s=64x48:d=0.2:r=25", "-vf", filters, "-colorspace", tag]
    run_maker(*color, tmp_path / "v.mp4")
    convert_video(Job(tmp_path / "v.mp4", tmp_path / "store"), **HOW)
    color = FrameStore(tmp_path / "store").read([2])[0, 20, 20]
    assert np.abs(color.astype(int) - (0x40, 0xC8, 0x20)).max() < 8


def test_of_several_streams_it_is_the_one_that_ffmpeg_picks(tmp_path: Path, painted: Path) -> None:
    """The largest; not the first, as it once was."""
    small = ["-f", "lavfi", "-i", "color=red:s=32x32:d=1:r=25", "-i", painted, "-map", "0", "-map", "1"]
    run_maker(*small, "-disposition:v:0", "0", tmp_path / "v.mkv")
    assert convert_video(Job(tmp_path / "v.mkv", tmp_path / "store"), **HOW).frames == 10


def test_cover_of_a_song_is_no_video(tmp_path: Path, painted: Path) -> None:
    sound = ["-f", "lavfi", "-i", "sine=d=0.2", "-i", painted, "-map", "0", "-map", "1", "-frames:v", "1"]
    run_maker(*sound, "-c:v", "mjpeg", "-disposition:v:0", "attached_pic", tmp_path / "v.m4a")
    with pytest.raises(ConversionError, match="v.m4a: holds sound and a picture, no video"):
        convert_video(Job(tmp_path / "v.m4a", tmp_path / "store"), **HOW)
    remake(painted, tmp_path / "one.mp4", "-frames:v", "1")
    assert convert_video(Job(tmp_path / "one.mp4", tmp_path / "store"), **HOW).frames == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "empty.mp4: the file is empty"),
        ("text.mp4", b"not a video" * 100, "text.mp4: moov atom not found"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=reason):
        convert_video(Job(tmp_path / name, tmp_path / "store"), **HOW)
    assert not (tmp_path / "store").exists()


def test_sound_alone_is_refused(tmp_path: Path) -> None:
    run_maker("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "v.m4a")
    with pytest.raises(ConversionError, match="does not contain any stream|matches no streams"):
        convert_video(Job(tmp_path / "v.m4a", tmp_path / "store"), **HOW)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_ends_a_video_or_refuses_it(tmp_path: Path, painted: Path, codec: str) -> None:
    """What a decoder makes up behind the damage is not kept."""
    whole = remake(painted, tmp_path / "whole.mkv", "-c:v", codec, "-g", "1")
    data = bytearray(whole.read_bytes())
    for i in range(len(data) * 8 // 10, len(data) * 9 // 10, 7):
        data[i] ^= 0xFF
    (tmp_path / "v.mkv").write_bytes(data)
    job = Job(tmp_path / "v.mkv", tmp_path / "store")
    with pytest.raises(ConversionError, match="v.mkv: "):
        convert_video(job, keep_damaged=False, **HOW)
    frames, damage = convert_video(job, **HOW)
    assert 0 < frames < 10
    assert damage
    assert indices_of(FrameStore(job.folder).read(range(frames))) == list(range(frames))


@pytest.mark.parametrize(("seconds", "expected"), [((0.2, 0.6), range(5, 15)), ((0.5, 9.0), range(13, 20))])
def test_seconds_of_a_video(tmp_path: Path, seconds: tuple[float, float], expected: range) -> None:
    """From the first frame that is not before the start to the last that is before the end."""
    job = Job(make_video(tmp_path / "v.mp4", n_frames=20, size=60), tmp_path / "store", seconds)
    assert convert_video(job, **HOW).frames == len(expected)
    assert indices_of(FrameStore(job.folder).read(range(len(expected)))) == list(expected)


OPEN_GROUPS = "open-gop=1:keyint=10:min-keyint=10:bframes=6:b-adapt=0:scenecut=0"
PARTS = [
    (0, 1, range(25)),
    (0.36, 0.8, range(9, 20)),
    (1.5, 3.4, range(38, 85)),
    (1.99, 9, range(50, 100)),
    (2.01, 2.99, range(51, 75)),
]


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("avi", "-c:v mpeg4 -q:v 2 -g 30 -bf 2"),  # whose frames came two late
        ("ts", "-c:v libx264 -g 30 -bf 2"),
        ("mpg", "-c:v mpeg2video -q:v 2 -g 15 -bf 2"),
        ("flv", "-c:v libx264 -g 30 -bf 2"),
        ("mp4", "-c:v libx264 -g 50 -bf 3"),
        (
            "mp4",
            f"-c:v libx264 -x264-params {OPEN_GROUPS}",
        ),  # whose frames may be stored behind a later key frame
        ("mkv", "-c:v libx264 -g 50 -bf 3"),
        ("webm", "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 60"),
    ],
)
def test_seconds_of_each_format(tmp_path: Path, ending: str, options: str) -> None:
    """ffmpeg went on from a later key frame in some, and counted the seconds from the first frame that came of it:
    other frames than were asked for, and one more where none lies at the start.
    """
    source = make_video(tmp_path / "source.mp4", n_frames=100, size=60)
    video = remake(source, tmp_path / f"v.{ending}", *options.split())
    for number, (start, end, expected) in enumerate(PARTS):
        job = Job(video, tmp_path / f"store_{number}", (start, end))
        assert convert_video(job, keep_damaged=False, **HOW) == (len(expected), "")
        assert indices_of(FrameStore(job.folder).read(range(len(expected)))) == list(expected)


def test_seconds_of_joined_files_are_counted_through(tmp_path: Path) -> None:
    """In the second of two MPEG files one behind the other times begin anew."""
    source = make_video(tmp_path / "source.mp4", n_frames=100, size=60)
    halves = [
        remake(source, tmp_path / f"{start}.mpg", "-ss", start, "-t", "2", "-c:v", "mpeg2video", "-q:v", "2")
        for start in ("0", "2")
    ]
    (tmp_path / "v.mpg").write_bytes(b"".join(half.read_bytes() for half in halves))
    for start, end in ((1.52, 2.52), (2, 3), (2.52, 3.4)):
        job = Job(tmp_path / "v.mpg", tmp_path / f"store_{start}", (start, end))
        first, last = round(start * 25), round(end * 25)
        assert convert_video(job, keep_damaged=False, **HOW) == (last - first, "")
        assert indices_of(FrameStore(job.folder).read(range(last - first))) == list(range(first, last))


def test_seconds_behind_a_damage(tmp_path: Path) -> None:
    """MP4 says where they are; of a file that is decoded from its beginning there are none, and that is said."""
    source = make_video(tmp_path / "source.mp4", n_frames=100, size=60)
    for ending, codec in (("mp4", "libx264"), ("mpg", "mpeg2video")):
        whole = remake(source, tmp_path / f"whole.{ending}", "-c:v", codec, "-g", "10")
        data = bytearray(whole.read_bytes())
        data[len(data) // 4 : len(data) // 4 + 300] = b"\xff" * 300
        (tmp_path / f"v.{ending}").write_bytes(data)
    assert convert_video(Job(tmp_path / "v.mp4", tmp_path / "store", (3, 4)), **HOW) == (25, "")
    assert indices_of(FrameStore(tmp_path / "store").read(range(25))) == list(range(75, 100))
    with pytest.raises(ConversionError, match=r"v\.mpg: no frame could be decoded between 3 and 4 s, \w+"):
        convert_video(Job(tmp_path / "v.mpg", tmp_path / "none", (3, 4)), **HOW)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("mkv", "-vf settb=1/1000,setpts=floor(N/2)*80+mod(N\\,2) -fps_mode passthrough -c:v libx264"),
        ("mpg", "-vf setpts=N/30/TB -r 30 -c:v mpeg2video -q:v 2"),
    ],
)
def test_frames_at_any_times(tmp_path: Path, painted: Path, ending: str, options: str) -> None:
    """They were rounded to the rate that a file states, and two at the same time ended the video."""
    video = remake(painted, tmp_path / f"v.{ending}", *options.split())
    assert convert_video(Job(video, tmp_path / "store"), keep_damaged=False, **HOW) == (10, "")
    assert indices_of(FrameStore(tmp_path / "store").read(range(10))) == list(range(10))


def test_seconds_behind_the_end_are_refused(tmp_path: Path, painted: Path) -> None:
    with pytest.raises(ConversionError, match="no frame could be decoded between 7 and 9.5 s"):
        convert_video(Job(painted, tmp_path / "store", (7, 9.5)), **HOW)


def test_video_that_changes_its_size_has_frames_of_the_first(tmp_path: Path, painted: Path) -> None:
    parts = [remake(painted, tmp_path / f"{size}.h264", "-vf", f"scale={size}:{size}") for size in (60, 90)]
    (tmp_path / "v.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert convert_video(Job(tmp_path / "v.h264", tmp_path / "store"), **HOW) == (20, "")
    frames = FrameStore(tmp_path / "store").read(range(20))
    assert frames.shape == (20, 60, 60, 3)
    assert indices_of(frames) == [*range(10)] * 2


def test_store_is_checked_against_its_video(tmp_path: Path, painted: Path) -> None:
    store = tmp_path / "store"
    convert_video(Job(painted, store), **HOW)
    check_store(Job(painted, store), **HOW)
    with pytest.raises(ConversionError, match="holds 10 frames, not 5"):
        check_store(Job(painted, store, (0, 0.2)), **HOW)
    data = (store / "frames.db").read_bytes()
    jpeg = FrameStore(store).fetch([7]).jpegs[7]
    assert simplejpeg.is_jpeg(jpeg)
    (store / "frames.db").write_bytes(data.replace(jpeg[:20], b"\0" * 20))
    with pytest.raises(ConversionError, match="does not decode"):
        check_store(Job(painted, store), **HOW)
