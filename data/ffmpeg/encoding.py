"""Write video files with ffmpeg."""

import subprocess
import tempfile
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from data.common.atomic_io import atomic_path
from data.ffmpeg.binary import ffmpeg_binary, h264_encoder, passthrough_fps_options
from data.ffmpeg.decoding import VideoStreamError, first_error_line

SINGLE_FRAME = 40_000  # microseconds


def matroska_element(name: str, *parts: bytes | int) -> bytes:
    """Return an element of Matroska (RFC 9559), given its id in hexadecimal digits and the parts of its content."""
    content = b"".join(part.to_bytes(8, "big") if isinstance(part, int) else part for part in parts)
    return bytes.fromhex(name) + (1 << 56 | len(content)).to_bytes(8, "big") + content


def matroska_header(height: int, width: int) -> bytes:
    """Return the start of a Matroska stream of uncompressed BGR frames with times in microseconds."""
    size = matroska_element("b0", width) + matroska_element("ba", height)
    picture = matroska_element("e0", size, matroska_element("2eb524", b"BGR\x18"))
    track = b"".join(matroska_element(name, 1) for name in ("d7", "73c5", "83"))  # number, unique id, type
    track += matroska_element("86", b"V_UNCOMPRESSED") + picture
    segment = bytes.fromhex("18538067 01ffffffffffffff")  # of unknown length
    segment += matroska_element("1549a966", matroska_element("2ad7b1", 1000))  # nanoseconds in a unit of time
    segment += matroska_element("1654ae6b", matroska_element("ae", track))
    return matroska_element("1a45dfa3", matroska_element("4282", b"matroska")) + segment


class VideoWriter:
    """Writes frames to ffmpeg's standard input, as Matroska since raw video has no times; see `video_writer`."""

    def __init__(self, stream: IO[bytes], height: int, width: int) -> None:
        self.stream = stream
        self.size = (width, height)
        self.previous: int | None = None  # time of the frame before, in microseconds
        self.steps: list[int] = []  # from frame to frame, sorted
        stream.write(matroska_header(height, width))

    def write(self, frame: np.ndarray, seconds: float) -> None:
        """Write a frame uint8 `(H, W, 3)`, BGR, shown from `seconds` on; one of another size is scaled.

        Times increase. The last frame is shown for the median time of the others.
        """
        if frame.shape[1::-1] != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        earlier, self.previous = self.previous, round(seconds * 1e6)
        if earlier is not None:
            insort(self.steps, self.previous - earlier)
        duration = self.steps[len(self.steps) // 2] if self.steps else SINGLE_FRAME
        block = matroska_element("a1", b"\x81\0\0\0", frame.tobytes())  # of track 1, when the cluster begins
        group = matroska_element("a0", block, matroska_element("9b", duration))
        self.stream.write(matroska_element("1f43b675", matroska_element("e7", self.previous), group))


@contextmanager
def video_writer(path: Path, height: int, width: int, *, threads: int = 0) -> Iterator[VideoWriter]:
    """Yield a writer of an H.264 MP4 file, which is at `path` after the block; after an error nothing is.

    Odd sizes are written as 4:4:4, which not every player shows; by another encoder than x264 with an added row or
    column. `threads` 0: ffmpeg's choice. Raises VideoStreamError with ffmpeg's reason, OSError without an encoder.
    """
    encoder = h264_encoder()
    path.parent.mkdir(parents=True, exist_ok=True)
    # no B frames, with which an MP4 file of variable rate has a wrong duration; the index first, for streaming
    options = f"-f matroska -i pipe: -c:v {encoder} -bf 0 -threads {threads} -f mp4 -movflags +faststart"
    if encoder == "libx264":
        options += f" -crf 18 -pix_fmt {'yuv444p' if height % 2 or width % 2 else 'yuv420p'}"
    else:
        bits_per_second = max(1_000_000, 6 * height * width)
        options += f" -b:v {bits_per_second} -vf pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p"
    options += "".join(f" -{name} {value}" for name, value in passthrough_fps_options().items())
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", *options.split()]
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
