"""Videos as streams of frames, in bounded memory: read as data.convert reads them, and written as H.264."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

import cv2
import numpy as np
import simplejpeg

from data.frame_store import FrameStore, has_store
from data.video_files import NO_VIDEOS, ffmpeg_binary, ffmpeg_command, read_jpegs

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

    H.264 at `rate` frames a second; odd sizes need colours at full resolution, which not every player shows. `threads`:
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


def _first_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    line = errors.readline().decode(errors="replace").strip()
    return re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", line)  # which part of ffmpeg says it
