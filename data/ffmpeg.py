"""ffmpeg: its binary and commands, and video files as frames, read and written."""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import cv2
import ffmpeg
import numpy as np
import simplejpeg

from data.common.atomic_io import atomic_path
from data.common.job_pool import child_process
from data.frame_store import FrameStore, has_store

# Files that lie beside videos. ffmpeg decides about any other.
NON_VIDEO_SUFFIXES = frozenset(
    ".txt .csv .tsv .json .xml .yaml .yml .md .html .pdf .srt .vtt .py .db .zip .tar .gz .7z .rar"  # noqa: SIM905
    " .npy .npz .pkl .log .cfg .ini .sh .wav .mp3 .flac .jpg .jpeg .png .webp .part .ytdl"
    " .m3u .m3u8 .mpd .sdp .ffconcat".split()
)
# magic bytes: at offset 4, 0 and 8 of a file
MP4, MATROSKA, AVI = b"ftyp", b"\x1a\x45\xdf\xa3", b"AVI "
KEEP_TIMESTAMPS = ("-copyts", "-start_at_zero")  # those of the file, also after seeking
SEEK_MARGIN_S = 1.0  # frames may be stored after later ones
# The JPEG encoder refuses frames whose timestamp does not increase, which some files have.
MONOTONIC_PTS = "settb=1/1000000,setpts='if(isnan(PREV_OUTPTS),PTS,max(PTS,PREV_OUTPTS+1))'"
DEFAULT_QUALITY = 3
NO_SCALING = 1 << 20  # a short side in pixels that no video exceeds
FRAMES_PER_READ = 16
DEFAULT_FPS = 25.0


@functools.cache
def ffmpeg_binary() -> str:
    """Return the path of ffmpeg: the one on the PATH, else that of the package imageio-ffmpeg."""
    installed = shutil.which("ffmpeg")
    if installed:
        return installed
    from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415  only needed where there is no other

    return get_ffmpeg_exe()


@functools.cache
def passthrough_fps_options() -> dict[str, str]:
    """Return the output options that keep every frame and its timestamp.

    By default ffmpeg repeats and drops frames for a constant rate. The option was renamed in ffmpeg 5.1.
    """
    text = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    is_old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return {"vsync" if is_old else "fps_mode": "passthrough", "enc_time_base": "1:1000000"}


def ffmpeg_command(
    video: Path, short_side: int, quality: int, seconds: tuple[float, float] | None = None, seek: bool = True
) -> list[str]:
    """Return the command that decodes a video, scales it and writes every frame as a JPEG to standard output.

    The output is in the `mpjpeg` format, see `read_jpegs`. ffmpeg stops at the first damaged packet. With `seconds`
    (start, end) only those frames are written; without `seek` the video is decoded from its start nevertheless. Raises
    ValueError for an unreadable file.
    """
    # No filter graph with a named input, which would take the first video stream instead of the one that ffmpeg
    # selects. ffmpeg applies the rotation of the metadata before the filters. JPEG colors are BT.601, full range.
    filters = [
        f"scale=w='if(lte(iw,ih),min(iw,{short_side}),-1)':h='if(lte(iw,ih),-1,min(ih,{short_side}))'"
        ":out_range=full:out_color_matrix=bt601:flags=bicubic",
        "format=yuv420p",
        MONOTONIC_PTS,
    ]
    program = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-xerror"]
    # the whitelist: a playlist in disguise must not open network addresses
    input_options: dict[str, object] = {"threads": 1, "protocol_whitelist": "file"}
    if seconds:
        header = read_header(video)
        filters.insert(0, trim_filter(header, seconds))
        if is_seekable(header):
            program += KEEP_TIMESTAMPS
            if seek:
                input_options |= {"ss": max(seconds[0] - SEEK_MARGIN_S, 0), "noaccurate_seek": None}
    source = ffmpeg.input(f"file:{video}", **input_options)
    # unofficial: else ffmpeg warns about the color range of videos without frames
    options = {"color_range": "pc", "strict": "unofficial", "vcodec": "mjpeg", "q:v": quality, "threads": 1}
    options |= {"vf": ",".join(filters), **passthrough_fps_options()}
    return ffmpeg.output(source, "pipe:", format="mpjpeg", **options).compile(cmd=program)


def read_header(video: Path) -> bytes:
    """Return the first bytes of a file. Raises ValueError where it cannot be read."""
    try:
        with video.open("rb") as file:
            return file.read(12)
    except OSError as error:
        raise ValueError(error.strerror) from None


def trim_filter(header: bytes, seconds: tuple[float, float]) -> str:
    """Return the filter that keeps frames with start <= timestamp < end.

    ffmpeg's options -ss and -t count from where decoding began, and some time bases are as coarse as a frame, hence
    microseconds.
    """
    # AVI has no timestamps: ffmpeg numbers frames in storage order, where the first is not the first to be shown
    from_zero = "setpts=PTS-STARTPTS," if header.endswith(AVI) else ""
    return f"settb=1/1000000,{from_zero}trim=start={seconds[0]:.6f}:end={seconds[1]:.6f}"


def is_seekable(header: bytes) -> bool:
    """Return whether a file's format has an index of timestamps: MP4, MOV, Matroska and WebM.

    In others ffmpeg continues from a later key frame or estimates timestamps: they are decoded from the start.
    """
    return header[4:8] == MP4 or header.startswith(MATROSKA)


def read_jpegs(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the images of ffmpeg's `mpjpeg` format: header lines with `Content-length: N`, an empty line, N bytes."""
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


def first_error_line(errors: IO[bytes]) -> str:
    """Return the first line of ffmpeg's standard error, without the name and address of the component."""
    errors.seek(0)
    line = errors.readline().decode(errors="replace").strip()
    return re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", line)


class JpegStream:
    """The output of an `ffmpeg_command` as JPEGs; the process is killed where the iteration ends early.

    After the iteration `count` is the number of JPEGs, `exit_code` that of ffmpeg, and `error` the first line of its
    standard error, or its exit code where it failed without. Raises JobTimeoutError after `timeout` seconds.
    """

    def __init__(self, command: Sequence[str], timeout: float | None = None) -> None:
        self.command = command
        self.timeout = timeout
        self.count = self.exit_code = 0
        self.error = ""

    def __iter__(self) -> Iterator[bytes]:
        with tempfile.TemporaryFile() as errors:
            with child_process(
                self.command, timeout=self.timeout, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                assert process.stdout is not None
                for jpeg in read_jpegs(process.stdout):
                    self.count += 1
                    yield jpeg
                self.exit_code = process.wait()
            self.error = first_error_line(errors)
        if self.exit_code != 0 and not self.error:
            self.error = f"ffmpeg failed with exit code {self.exit_code}"


class VideoStreamError(ValueError):
    """A video that cannot be read or written; the message names it and the reason."""


class VideoFile:
    """A video file. `decode_error`: ffmpeg's message where damage ended the last iteration over its frames, else ""."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.decode_error = ""

    @property
    def fps(self) -> float:
        """Frames per second."""
        command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-protocol_whitelist", "file", "-i"]
        done = subprocess.run([*command, f"file:{self.path}"], capture_output=True, check=False)
        text = done.stderr.decode(errors="replace")
        found = re.search(r"Video:.* (\d+(?:\.\d+)?)(k?) fps", text)
        fps = float(found[1]) * (1000 if found[2] else 1) if found else 0
        return fps if fps > 0 else DEFAULT_FPS

    def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
        """Yield all frames, uint8 `(H, W, 3)`, BGR, rotated as the metadata says, with a short side of at most this.

        Raises VideoStreamError where there is none.
        """
        stream = JpegStream(ffmpeg_command(self.path, short_side or NO_SCALING, DEFAULT_QUALITY))
        for jpeg in stream:
            yield simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
        self.decode_error = stream.error
        if stream.count == 0:
            reason = self.decode_error or "it has none"
            raise VideoStreamError(f"{self.path}: no frame could be decoded, {reason}")


class StoredVideo:
    """A frame store with the interface of VideoFile."""

    fps = DEFAULT_FPS  # frame stores do not hold it
    decode_error = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    def frames(self, short_side: int | None = None) -> Iterator[np.ndarray]:
        """Yield all frames at their stored size. Raises FrameStoreError where one cannot be read."""
        store = FrameStore(self.path)
        for start in range(0, store.n_frames, FRAMES_PER_READ):
            yield from store.read(range(start, min(start + FRAMES_PER_READ, store.n_frames)))


Video = VideoFile | StoredVideo


def open_videos(paths: Sequence[Path]) -> list[Video]:
    """Return the given video files and frame stores, and those below given folders, in order.

    Raises FileNotFoundError for a path without any.
    """
    videos: list[Video] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder")
        found = list(_videos_in(path)) if path.is_dir() else [VideoFile(path)]
        if not found:
            raise FileNotFoundError(f"{path}: no videos in this folder")
        videos += found
    return videos


def _videos_in(folder: Path) -> Iterator[Video]:
    if folder.is_symlink() and folder.resolve() in folder.absolute().parents:
        return  # a link to a folder above it
    if has_store(folder):
        yield StoredVideo(folder)
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _videos_in(path)
        elif path.suffix.lower() not in NON_VIDEO_SUFFIXES:
            yield VideoFile(path)


class VideoWriter:
    """Writes frames to ffmpeg's standard input; see `video_writer`."""

    def __init__(self, stream: IO[bytes], height: int, width: int) -> None:
        self.stream = stream
        self.size = (width, height)

    def write(self, frame: np.ndarray) -> None:
        """Write a frame uint8 `(H, W, 3)`, BGR; one of another size is scaled."""
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        self.stream.write(np.ascontiguousarray(frame).data)


@contextmanager
def video_writer(
    path: Path, height: int, width: int, fps: float, *, threads: int = 0
) -> Iterator[VideoWriter]:
    """Yield a writer of an H.264 MP4 file, which is at `path` after the block; after an error nothing is.

    Odd sizes are written as 4:4:4, which not every player shows. `threads` 0: ffmpeg's choice. Raises
    VideoStreamError with ffmpeg's reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = "yuv444p" if height % 2 or width % 2 else "yuv420p"
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    command += ["-s", f"{width}x{height}", "-r", f"{fps:g}", "-i", "pipe:", "-pix_fmt", pixels, "-crf", "18"]
    command += [
        "-threads",
        str(threads),
        "-f",
        "mp4",
        "-movflags",
        "+faststart",
    ]  # the index first, for streaming
    with atomic_path(path) as temporary, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([*command, f"file:{temporary}"], stdin=subprocess.PIPE, stderr=errors)
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # ffmpeg failed: its message follows
                yield VideoWriter(process.stdin, height, width)
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
        if process.returncode != 0:
            raise VideoStreamError(f"{path}: ffmpeg could not write it, {first_error_line(errors)}")
