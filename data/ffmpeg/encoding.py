"""Write video files with ffmpeg."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from data.common.atomic_io import atomic_path
from data.ffmpeg.binary import ffmpeg_binary
from data.ffmpeg.decoding import VideoStreamError, first_error_line


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
