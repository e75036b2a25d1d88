"""Video files to frame stores, by ffmpeg."""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import ffmpeg

from data.frame_store import FrameStore, FrameStoreError, write_frame_store
from data.limits import jpeg_size

# What lies beside videos; anything else is ffmpeg's to judge.
NO_VIDEOS = frozenset(
    ".txt .csv .tsv .json .xml .yaml .yml .md .html .pdf .srt .vtt .py .db .zip .tar .gz .7z .rar"  # noqa: SIM905
    " .npy .npz .pkl .log .cfg .ini .sh .wav .mp3 .flac .jpg .jpeg .png .webp .part .ytdl"
    " .m3u .m3u8 .mpd .sdp .ffconcat".split()
)
# How ffmpeg ends where -xerror made it stop at damage: 1 before version 7, then AVERROR_INVALIDDATA.
STOPPED_AT_DAMAGE = (1, 183)
READ_BACK_AT_A_TIME = 64  # frames, to bound memory
# how files of these formats begin, the first after four bytes, the last after eight
MP4, MATROSKA, AVI = b"ftyp", b"\x1a\x45\xdf\xa3", b"AVI "
OWN_TIMES = ("-copyts", "-start_at_zero")  # those of the file, wherever in it ffmpeg begins
LEAD = 1.0  # seconds: of frames before a part, some may be stored after its first
# Frames may have the same time, or one before that of the frame before, which the encoder of JPEGs refuses.
RISING = "settb=1/1000000,setpts='if(isnan(PREV_OUTPTS),PTS,max(PTS,PREV_OUTPTS+1))'"


class ConversionError(Exception):
    """A video that cannot be converted; the message names it and the reason."""


class Job(NamedTuple):
    """One video file, the folder its store shall be, and perhaps (start, end) in seconds of what goes into it."""

    video: Path
    folder: Path
    seconds: tuple[float, float] | None = None


class Converted(NamedTuple):
    """How many frames a store got, and what ffmpeg said where the video is damaged after them; "" where it is whole."""

    frames: int
    damage: str


def convert_video(job: Job, *, short_side: int, quality: int, keep_damaged: bool = True) -> Converted:
    """Write the store of one video.

    Every frame of the source, or of `job.seconds`, becomes one of the store: none dropped, none repeated, rotation
    applied, short side at most `short_side`, of the stream that ffmpeg picks. Of a damaged video those before the first
    damage do with `keep_damaged`. Raises ConversionError with ffmpeg's reason where nothing can be decoded or the
    decoder crashes, and FileExistsError where there is something already.
    """
    return _decode(job, functools.partial(write_frame_store, job.folder), short_side, quality, keep_damaged)


def check_store(job: Job, *, short_side: int, quality: int) -> None:
    """ConversionError where a frame of a store does not decode, where it has more or less of them than its video, or
    where they are of another size than such a conversion makes.
    """
    first: list[bytes] = []

    def count(jpegs: Iterator[bytes]) -> int:
        first.append(next(jpegs))
        return 1 + sum(1 for _ in jpegs)

    read_back(job.folder, _decode(job, count, short_side, quality, keep_damaged=False).frames)
    height, width = jpeg_size(first[0])
    stored = jpeg_size(FrameStore(job.folder).fetch([0]).jpegs[0])
    if stored != (height, width):
        raise ConversionError(
            f"{job.folder}: holds frames of {stored[1]}x{stored[0]}, not {width}x{height}; "
            f"was it converted with another --short-side than {short_side}?"
        )


def read_back(folder: Path, frames: int) -> None:
    """Decode every frame of a store; ConversionError where there are not as many as `frames`, or one does not."""
    try:
        store = FrameStore(folder)
        if store.n_frames != frames:
            raise ConversionError(f"{folder}: holds {store.n_frames} frames, not {frames}")
        for start in range(0, frames, READ_BACK_AT_A_TIME):
            for _ in store.fetch(range(frames)[start : start + READ_BACK_AT_A_TIME]).decode_each(
                halved=False
            ):
                pass
    except FrameStoreError as error:
        raise ConversionError(str(error)) from None


def _decode(
    job: Job,
    take: Callable[[Iterator[bytes]], int],
    short_side: int,
    quality: int,
    keep_damaged: bool,
) -> Converted:
    """Hand the JPEGs of a video to `take`, which returns how many there were."""
    try:
        command = ffmpeg_command(job.video, short_side, quality, job.seconds)
    except UnicodeError:
        raise ConversionError(f"{str(job.video)!a}: its name is not UTF-8, rename it") from None
    except ValueError as error:
        raise ConversionError(f"{job.video}: {error}") from None
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            try:
                frames = take(_frames_of(process, errors, job, keep_damaged))
            except ValueError as error:
                raise ConversionError(f"{job.video}: {error}") from None
            finally:
                process.kill()
        return Converted(frames, _first_line(errors))


def _frames_of(
    process: subprocess.Popen[bytes], errors: IO[bytes], job: Job, keep_damaged: bool
) -> Iterator[bytes]:
    """All frames that ffmpeg writes; ValueError where it fails, as what came before would look like a whole video."""
    count = 0
    for jpeg in read_jpegs(process.stdout):
        yield jpeg
        count += 1
    status, complaint = process.wait(), _first_line(errors)
    if status < 0:
        raise ValueError(f"ffmpeg failed with status {status}")
    if count == 0 and not _begins_with(job.video):
        raise ValueError("the file is empty")
    if count == 0:
        if not job.seconds:
            raise ValueError(complaint or "no frame could be decoded")
        reason = f", {complaint}" if complaint else ""
        raise ValueError("no frame could be decoded between {:g} and {:g} s".format(*job.seconds) + reason)
    if count == 1 and _holds_a_cover_alone(job.video):
        raise ValueError("holds sound and a picture, no video")
    if status == 0 and complaint and _is_sound_from_the_start(job, count):
        errors.truncate(0)
        complaint = ""
    damaged = bool(complaint) and (status == 0 or status in STOPPED_AT_DAMAGE)
    if (status or complaint) and not (damaged and keep_damaged):
        raise ValueError(complaint or f"ffmpeg failed with status {status}")


def _is_sound_from_the_start(job: Job, frames: int) -> bool:
    """Whether a part has as many frames, and nothing to complain of, where its video is decoded from the beginning.

    Where decoding begins just before a part, frames that are thrown away may refer to some that were never decoded (an
    open group of pictures), and ffmpeg complains of those.
    """
    if not job.seconds or not _can_be_sought(_begins_with(job.video)):
        return False
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file"]
    command += [*OWN_TIMES, "-threads", "1", "-i", f"file:{job.video}", "-an"]
    options = {"vf": f"{_part(b'', job.seconds)},{RISING}", **keep_every_frame()}
    command += [word for name, value in options.items() for word in (f"-{name}", value)]
    done = subprocess.run([*command, "-f", "framecrc", "-"], capture_output=True, check=False)
    counted = sum(not line.startswith(b"#") for line in done.stdout.splitlines())
    return done.returncode == 0 and not done.stderr.strip() and counted == frames


def ffmpeg_command(
    video: Path, short_side: int, quality: int, seconds: tuple[float, float] | None = None
) -> list[str]:
    """Decode every frame as it is, scale, and write JPEGs, each behind a header with its length; stop at damage."""
    # No filter graph with a named input: it would be the file's first video stream, not the one that ffmpeg picks. The
    # rotation that the file asks for comes before the filter, so width and height are as seen. JPEGs are BT.601.
    scale = (
        f"scale=w='if(lte(iw,ih),min(iw,{short_side}),-1)':h='if(lte(iw,ih),-1,min(ih,{short_side}))'"
        ":out_range=full:out_color_matrix=bt601:flags=bicubic,format=yuv420p"
    )
    head = _begins_with(video) if seconds else b""
    filters = [*([_part(head, seconds)] if seconds else []), scale, RISING]
    options = {
        "vf": ",".join(filters),
        "vcodec": "mjpeg",
        "q:v": quality,
        "color_range": "pc",
        "format": "mpjpeg",
    }
    options["strict"] = "unofficial"  # else it complains of the range where there is no frame to tell it
    program = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-xerror"]
    seek = {}
    if _can_be_sought(head):
        seek = {"ss": max(seconds[0] - LEAD, 0), "noaccurate_seek": None}
        program += OWN_TIMES
    # what is a playlist by its content may name files alone, not addresses
    stream = ffmpeg.input(f"file:{video}", threads=1, protocol_whitelist="file", **seek)
    stream = stream.output("pipe:", threads=1, **options, **keep_every_frame())
    return [*stream.compile(cmd=program)]


def _part(head: bytes, seconds: tuple[float, float]) -> str:
    """The filter that takes the frames from the first that is not before a start to the last that is before an end.

    In microseconds: a time base may be as coarse as a frame. ffmpeg's options for this count from where it happened to
    begin.
    """
    # AVI has no times: ffmpeg counts in the order in which frames are stored, where the first is not the first to show
    zero = "setpts=PTS-STARTPTS," if head.endswith(AVI) else ""
    return f"settb=1/1000000,{zero}trim=start={seconds[0]:.6f}:end={seconds[1]:.6f}"


def _can_be_sought(head: bytes) -> bool:
    """Whether a file's format says where a time is to be found. In others ffmpeg goes on from a later key frame, or
    guesses times anew: they are decoded from the beginning, which takes long for a late part.
    """
    return head[4:8] == MP4 or head.startswith(MATROSKA)


def _begins_with(video: Path) -> bytes:
    """The first bytes; ValueError where it cannot be read any more."""
    try:
        with video.open("rb") as file:
            return file.read(12)
    except OSError as error:
        raise ValueError(error.strerror) from None


@functools.cache
def ffmpeg_binary() -> str:
    """The ffmpeg on the PATH, else the one that the package imageio-ffmpeg brings."""
    installed = shutil.which("ffmpeg")
    if installed:
        return installed
    from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415  only needed where there is no other

    return get_ffmpeg_exe()


@functools.cache
def keep_every_frame() -> dict[str, str]:
    """ffmpeg's default repeats and drops frames to make a constant rate, and rounds their times to it. The name of the
    first option changed with 5.1.

    Asks ffmpeg for its version, once; so ask before processes part.
    """
    text = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return {"vsync" if old else "fps_mode": "passthrough", "enc_time_base": "1:1000000"}


def _holds_a_cover_alone(video: Path) -> bool:
    """Whether all pictures of a file are there to be shown beside its sound."""
    command = [
        ffmpeg_binary(),
        "-nostdin",
        "-hide_banner",
        "-protocol_whitelist",
        "file",
        "-i",
        f"file:{video}",
    ]
    lines = (
        subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace").splitlines()
    )
    return all("(attached pic)" in line for line in lines if re.search(r"Stream #\S+ Video: ", line))


def read_jpegs(stream: IO[bytes]) -> Iterator[bytes]:
    """The images of ffmpeg's `mpjpeg` format: header lines, one of them `Content-length: N`, an empty line, N bytes."""
    length = None
    for line in iter(stream.readline, b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif not line.strip() and length is not None:
            jpeg = stream.read(length)
            if len(jpeg) < length:
                return  # ffmpeg was stopped within an image
            yield jpeg
            length = None


def _first_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    line = errors.readline().decode(errors="replace").strip()
    return re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", line)  # which part of ffmpeg says it
