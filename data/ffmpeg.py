"""Video files to frame stores, by ffmpeg."""

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import cv2
import ffmpeg
import numpy as np
import simplejpeg

from data.frame_store import FrameStore, has_store

# What lies beside videos; anything else is ffmpeg's to judge.
NO_VIDEOS = frozenset(
    ".txt .csv .tsv .json .xml .yaml .yml .md .html .pdf .srt .vtt .py .db .zip .tar .gz .7z .rar"  # noqa: SIM905
    " .npy .npz .pkl .log .cfg .ini .sh .wav .mp3 .flac .jpg .jpeg .png .webp .part .ytdl"
    " .m3u .m3u8 .mpd .sdp .ffconcat".split()
)
# how files of these formats begin, the first after four bytes, the last after eight
MP4, MATROSKA, AVI = b"ftyp", b"\x1a\x45\xdf\xa3", b"AVI "
OWN_TIMES = ("-copyts", "-start_at_zero")  # those of the file, wherever in it ffmpeg begins
LEAD = 1.0  # seconds: of frames before a part, some may be stored after its first
# Frames may have the same time, or one before that of the frame before, which the encoder of JPEGs refuses.
RISING = "settb=1/1000000,setpts='if(isnan(PREV_OUTPTS),PTS,max(PTS,PREV_OUTPTS+1))'"


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
    stream = stream.output("pipe:", threads=1, **options, **passthrough_fps_args())
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
def passthrough_fps_args() -> dict[str, str]:
    """ffmpeg's default repeats and drops frames to make a constant rate, and rounds their times to it. The name of the
    first option changed with 5.1.

    Asks ffmpeg for its version, once; so ask before processes part.
    """
    text = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return {"vsync" if old else "fps_mode": "passthrough", "enc_time_base": "1:1000000"}


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


QUALITY = 3  # of the JPEGs that ffmpeg hands over: data.convert's default
ANY_SIZE = 1 << 20  # pixels: nothing is scaled
CHUNK = 16  # frames read from a store at a time
UNKNOWN_RATE = 25.0


class VideoStreamError(ValueError):
    """A video that cannot be read or written; the message names it and the reason."""


class Video(Protocol):
    """Something to watch, as often as one likes. `complaint`: what was wrong when it was read last, or "".

    `rate`: frames a second.
    """

    path: Path
    complaint: str

    @property
    def rate(self) -> float: ...

    def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
        """All frames, uint8 `(H, W, 3)`, BGR. Those of a file have a short side of at most `short_side`.

        FrameStoreError or VideoStreamError where there is none.
        """


class VideoFile:
    """A file that ffmpeg reads: turned as it asks, no frame dropped, none repeated, as far as it decodes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complaint = ""

    @property
    def rate(self) -> float:
        command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-i", f"file:{self.path}"]
        text = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
        found = re.search(r"Video:.* (\d+(?:\.\d+)?)(k?) fps", text)
        rate = float(found[1]) * (1000 if found[2] else 1) if found else 0
        return rate if rate > 0 else UNKNOWN_RATE

    def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
        try:
            command = ffmpeg_command(self.path, short_side or ANY_SIZE, QUALITY)
        except UnicodeError:
            raise VideoStreamError(f"{str(self.path)!a}: its name is not UTF-8, rename it") from None
        is_empty = True
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                try:
                    for jpeg in read_jpegs(process.stdout):
                        is_empty = False
                        yield simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
                    process.wait()
                finally:
                    process.kill()  # nobody may want the rest
            self.complaint = _first_line(errors)
        if process.returncode != 0 and not self.complaint:
            self.complaint = f"ffmpeg failed with status {process.returncode}"
        if is_empty:
            raise VideoStreamError(
                f"{self.path}: no frame could be decoded, {self.complaint or 'it has none'}"
            )


class StoredVideo:
    """The frames of a store, as they are there."""

    rate = UNKNOWN_RATE  # stores do not say
    complaint = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
        store = FrameStore(self.path)
        for first in range(0, store.n_frames, CHUNK):
            yield from store.read(range(first, min(first + CHUNK, store.n_frames)))


def find_videos(paths: Sequence[Path]) -> list[Video]:
    """Files, stores, and all of either below folders, in order. FileNotFoundError where there is nothing."""
    videos: list[Video] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such video")
        found = list(_videos_in(path, set())) if path.is_dir() else [VideoFile(path)]
        if not found:
            raise FileNotFoundError(f"{path}: holds no videos")
        videos += found
    return videos


def _videos_in(folder: Path, seen: set[Path]) -> Iterator[Video]:
    """Each folder once, as links may lead back to it."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    if has_store(folder):
        yield StoredVideo(folder)
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _videos_in(path, seen)
        elif path.suffix.lower() not in NO_VIDEOS:
            yield VideoFile(path)


class VideoWriter:
    """Writes frames of one size to an mp4 file. See `written_video`."""

    def __init__(self, process: subprocess.Popen[bytes], height: int, width: int) -> None:
        self.process = process
        self.size = (width, height)

    def write(self, frame: np.ndarray) -> None:
        """A frame uint8 `(H, W, 3)`, BGR; one of another size is scaled."""
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        self.process.stdin.write(np.ascontiguousarray(frame).data)


@contextmanager
def written_video(
    path: Path, height: int, width: int, rate: float, threads: int = 0
) -> Iterator[VideoWriter]:
    """A writer within; the file is there as a whole when it ends well, and else not at all.

    H.264 at `rate` frames a second; odd sizes need colors at full resolution, which not every player shows. `threads`:
    0 is as many as ffmpeg likes. VideoStreamError with ffmpeg's reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.part")
    pixels = "yuv444p" if height % 2 or width % 2 else "yuv420p"
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    command += ["-s", f"{width}x{height}", "-r", f"{rate:g}", "-i", "pipe:", "-pix_fmt", pixels, "-crf", "18"]
    command += ["-threads", str(threads), "-movflags", "+faststart", "-f", "mp4", f"file:{staging}"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
        try:
            yield VideoWriter(process, height, width)
        except BrokenPipeError:
            pass  # ffmpeg has said why
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            if process.returncode == 0:
                staging.replace(path)
            staging.unlink(missing_ok=True)
        if process.returncode != 0:
            raise VideoStreamError(f"{path}: ffmpeg could not write it, {_first_line(errors)}")
