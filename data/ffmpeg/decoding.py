"""Decode video files: the commands of ffmpeg, and its output as a stream of JPEGs."""

import math
import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

import ffmpeg
import numpy as np

from data.common.cli import sanitize
from data.common.job_pool import child_process
from data.ffmpeg.binary import ffmpeg_binary, passthrough_fps_options, run_ffmpeg
from data.ffmpeg.transport_stream import mend_joins

# magic bytes: at offset 4, 0 and 8 of a file
MP4, MATROSKA, AVI = b"ftyp", b"\x1a\x45\xdf\xa3", b"AVI "
SEEK_MARGIN_S = 1.0  # frames may be stored after later ones
# The JPEG encoder refuses frames whose timestamp does not increase, which some files have.
MONOTONIC_PTS = "settb=1/1000000,setpts='if(isnan(PREV_OUTPTS),PTS,max(PTS,PREV_OUTPTS+1))'"
TIMES_FILE = r"file=pipe\\:2:direct=1"  # standard error, unless `decoder` replaces it; each line at once
# metadata is only printed where there is any
PRINTED_PTS = f"metadata=mode=add:key=any:value=1,metadata=mode=print:{TIMES_FILE}"
MAX_REORDERED = 16  # frames that a decoder of H.264 or HEVC holds

TimedJpegs = Iterator[tuple[bytes, int | None]]  # with microseconds, None where the command prints none


def ffmpeg_command(
    video: Path,
    short_side: int,
    quality: int,
    seconds: tuple[float, float] | None = None,
    seek: bool = True,
    live: bool = False,
) -> list[str]:
    """Return the command that decodes a video, scales it and writes every frame as a JPEG to standard output.

    The output is in the `mpjpeg` format, see `read_jpegs`. ffmpeg stops at the first damaged packet. With `seconds`
    (start, end) only those frames are written; with `seek` decoding starts shortly before them where the format allows
    it, and nothing is written where that is not at a key frame. `live`: the input is no file, and goes on after damage.
    Raises ValueError for an unreadable file.
    """
    # No filter graph with a named input, which would take the first video stream instead of the one that ffmpeg
    # selects. ffmpeg applies the rotation of the metadata before the filters. JPEG colors are BT.601, full range.
    filters = [
        f"scale=w='if(lte(iw,ih),min(iw,{short_side}),-1)':h='if(lte(iw,ih),-1,min(ih,{short_side}))'"
        ":out_range=full:out_color_matrix=bt601:flags=bicubic",
        "format=yuv420p",
        MONOTONIC_PTS,
        PRINTED_PTS,
    ]
    program = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", *([] if live else ["-xerror"])]
    # the whitelist: a playlist in disguise must not open network addresses
    input_options: dict[str, object] = {"threads": 1} | ({} if live else {"protocol_whitelist": "file"})
    if seconds:
        header = read_header(video)
        filters.insert(0, trim_filter(header, seconds))
        # These have an index of times. In other formats ffmpeg continues from a later key frame or estimates times.
        if header[4:8] == MP4 or header.startswith(MATROSKA):
            program += ["-copyts", "-start_at_zero"]  # times of the file, also after seeking
            if seek and seconds[0] > SEEK_MARGIN_S:
                input_options |= {"ss": seconds[0] - SEEK_MARGIN_S, "noaccurate_seek": None}
                # Files mark other frames as key frames, and indices point to wrong places: the decoder says what it is.
                is_start = f"eq(pict_type,I)*key*lte(pts,{seconds[0] * 1e6:.0f})"
                filters.insert(0, f"settb=1/1000000,select='if(eq(n,0),{is_start},gt(selected_n,0))'")
    source = ffmpeg.input("video", **input_options)
    # unofficial: else ffmpeg warns about the color range of videos without frames
    options = {"color_range": "pc", "strict": "unofficial", "vcodec": "mjpeg", "q:v": quality, "threads": 1}
    options |= {"vf": ",".join(filters), "flush_packets": 1, **passthrough_fps_options()}
    command = ffmpeg.output(source, "pipe:", format="mpjpeg", **options).compile(cmd=program)
    command[command.index("-i") + 1] = f"file:{video}"  # ffmpeg-python takes no names that are not UTF-8
    return command


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
    line = errors.read(4096).decode(errors="replace").strip().partition("\n")[0]
    return sanitize(re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", line))


@contextmanager
def decoder(command: Sequence[str], **options: Any) -> Iterator[tuple["subprocess.Popen[bytes]", TimedJpegs]]:
    """Yield a running ffmpeg, started with the `options` of `child_process`, and its JPEGs as they come."""
    reading, writing = os.pipe()
    with open(reading, "rb") as printed, open(writing, "wb") as target:
        used = [part.replace(TIMES_FILE, rf"file=pipe\\:{writing}:direct=1") for part in command]
        inherited = () if used == command else (writing,)
        with child_process(used, stdout=subprocess.PIPE, pass_fds=inherited, **options) as process:
            target.close()  # so that the times end with the process
            assert process.stdout is not None
            found = (match[1] for line in printed if (match := re.search(rb" pts:(-?\d+)?", line)))
            times = (None if pts is None else int(pts) for pts in found)
            yield process, ((jpeg, next(times, None)) for jpeg in read_jpegs(process.stdout))


class JpegStream:
    """The output of an `ffmpeg_command` as JPEGs; the process is killed where the iteration ends early.

    `count` is the number of JPEGs so far, `times` their seconds from the first one where the command prints them, and
    of some to come. After the iteration `exit_code` is that of ffmpeg, and `error` the first line of its standard
    error, or its exit code where it failed without. Where joined segments of a transport stream stop ffmpeg, the rest
    is read from a copy with mended joins. Raises JobTimeoutError after `timeout` seconds.
    """

    def __init__(self, command: Sequence[str], timeout: float | None = None) -> None:
        self.command = command
        self.timeout = timeout
        self.count = self.exit_code = 0
        self.error = ""
        self.times: list[float] = []

    def __iter__(self) -> Iterator[bytes]:
        yield from self._decode(self.command)
        if "corrupt input packet" in self.error:  # the container complains, not the decoder
            video = self.command[self.command.index("-i") + 1]
            with tempfile.NamedTemporaryFile(suffix=".ts") as copy:
                if mend_joins(video.removeprefix("file:"), copy):
                    mended = f"file:{copy.name}"
                    yield from self._decode([mended if part == video else part for part in self.command])

    def _decode(self, command: Sequence[str]) -> Iterator[bytes]:
        """Yield the JPEGs from `count` on; where ffmpeg fails, not those behind a gap."""
        held: deque[bytes] = deque()
        self.times = []
        first = 0
        with tempfile.TemporaryFile() as errors:
            with decoder(command, timeout=self.timeout, stderr=errors) as (process, jpegs):
                for index, (jpeg, pts) in enumerate(jpegs):
                    if pts is not None and len(self.times) == index:
                        first = first if index else pts
                        self.times.append((pts - first) / 1e6)
                    if index >= self.count + len(held):
                        held.append(jpeg)
                    if len(held) > MAX_REORDERED:
                        self.count += 1
                        yield held.popleft()
                self.exit_code = process.wait()
            self.error = first_error_line(errors)
        end = self.count + len(held)
        self.times = self.times[:end] if len(self.times) >= end else []
        if self.exit_code != 0:
            self.error = self.error or f"ffmpeg failed with exit code {self.exit_code}"
            end = find_gap(self.times, self.count) or end
            del self.times[end:]
        for jpeg in islice(held, end - self.count):
            self.count += 1
            yield jpeg


def find_gap(times: Sequence[float], start: int) -> int | None:
    """Return the first frame from `start` on that comes later than expected after the one before it, None without one.

    Where damage ends decoding, the decoder puts out what it holds: also frames that were stored early because lost ones
    before them refer to them.
    """
    steps = np.diff(times)
    return next((i for i in range(max(start, 1), len(times)) if steps[i - 1] > 1.5 * np.median(steps)), None)


def probe(video: Path) -> bytes:
    """Return what ffmpeg prints about a file and its streams."""
    return run_ffmpeg(video).stderr


def read_duration(printed: bytes) -> float | None:
    """Return the seconds that a file says it lasts, given what `probe` returned; None where it does not."""
    found = re.search(rb"Duration: (\d+):(\d+):(\d+\.\d+)", printed)
    return float(found[1]) * 3600 + float(found[2]) * 60 + float(found[3]) if found else None


def describe_damage(video: Path, stream: JpegStream, seconds: tuple[float, float] | None = None) -> str:
    """Return how much of a damaged video was decoded, and the error: `48 of about 300 frames, <error>`."""
    duration = read_duration(probe(video))
    if duration is not None and len(stream.times) > 1:
        start, end = seconds or (0.0, math.inf)
        total = round((min(end, duration) - start) * (stream.count - 1) / stream.times[-1])
        if total > stream.count:
            return f"{stream.count} of about {total} frames, {stream.error}"
    return f"{stream.count} frames, {stream.error}"


class VideoStreamError(ValueError):
    """A video that cannot be read or written; the message names it and the reason."""
