"""Decode video files: the commands of ffmpeg, and its output as a stream of JPEGs."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import ffmpeg

from data.common.job_pool import child_process
from data.ffmpeg.binary import ffmpeg_binary, passthrough_fps_options

# magic bytes: at offset 4, 0 and 8 of a file
MP4, MATROSKA, AVI = b"ftyp", b"\x1a\x45\xdf\xa3", b"AVI "
KEEP_TIMESTAMPS = ("-copyts", "-start_at_zero")  # those of the file, also after seeking
SEEK_MARGIN_S = 1.0  # frames may be stored after later ones
# The JPEG encoder refuses frames whose timestamp does not increase, which some files have.
MONOTONIC_PTS = "settb=1/1000000,setpts='if(isnan(PREV_OUTPTS),PTS,max(PTS,PREV_OUTPTS+1))'"
DEFAULT_QUALITY = 3
NO_SCALING = 1 << 20  # a short side in pixels that no video exceeds


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
