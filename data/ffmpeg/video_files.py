"""Video files, frame stores and live video as frames."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import simplejpeg

from data.common.job_pool import interrupted_by_signals
from data.ffmpeg.decoding import (
    JpegStream,
    VideoStreamError,
    decoder,
    describe_damage,
    ffmpeg_command,
    first_error_line,
    probe,
    read_duration,
)
from data.ffmpeg.side_files import may_be_video
from data.frame_store import FrameStore, has_store

FRAMES_PER_READ = 16
NO_SCALING = 1 << 20  # a short side in pixels that no video exceeds
DEFAULT_FPS = 25.0
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}  # format of ffmpeg, and name

TimedImage = tuple[np.ndarray, float | None]  # seconds from the first frame, None where they are unknown


class VideoFile:
    """A video file, and what the last complete iteration over its frames found.

    `decode_error`: how many frames precede the damage, and ffmpeg's message; "" without damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.num_frames = 0
        self.decode_error = ""

    def frames(self, short_side: int = NO_SCALING) -> Iterator[TimedImage]:
        """Yield all frames, uint8 `(H, W, 3)`, BGR, rotated as the metadata says, with a short side of at most this.

        Raises VideoStreamError where there is none.
        """
        stream = JpegStream(ffmpeg_command(self.path, short_side, quality=3))
        for jpeg in stream:
            seconds = stream.times[stream.count - 1] if len(stream.times) >= stream.count else None
            yield simplejpeg.decode_jpeg(jpeg, colorspace="BGR"), seconds
        if stream.count == 0:
            raise VideoStreamError(f"{self.path}: no frame could be decoded, {stream.error or 'it has none'}")
        self.num_frames = stream.count
        self.decode_error = describe_damage(self.path, stream) if stream.error else ""

    @property
    def expected_frames(self) -> int | None:
        """About how many frames the file says it has; None where it does not."""
        printed = probe(self.path)
        duration, rate = read_duration(printed), re.search(rb" ([\d.]+) fps", printed)
        return round(duration * float(rate[1])) if duration and rate else None


class LiveVideo:
    """A camera (`0`), the address of a stream, or standard input (`-`), with the interface of VideoFile."""

    def __init__(self, source: str) -> None:
        self.name = re.sub(r"//[^/]*@", "//", source)  # without user and password
        self.num_frames = 0
        self.decode_error = ""
        self._input = ["-i", source]
        if source == "-":
            self._input = ["-protocol_whitelist", "pipe", "-i", "pipe:0"]
        elif source.isdecimal():
            device, path = CAMERAS.get(sys.platform, CAMERAS["linux"])
            self._input = ["-f", device, "-i", path.format(source)]

    def frames(self, short_side: int = NO_SCALING) -> Iterator[TimedImage]:
        """Yield the frames as VideoFile does, as they arrive; SIGINT or SIGTERM is the end of the video."""
        command = ffmpeg_command(Path(), short_side, quality=3, live=True)
        position, source = command.index("-i"), self._input[-1]
        command[position : position + 2] = self._input
        first = self.num_frames = 0
        with tempfile.TemporaryFile() as errors:
            streams = {"stdin": None if source == "pipe:0" else subprocess.DEVNULL, "stderr": errors}
            with decoder(command, **streams) as (process, jpegs), interrupted_by_signals(process.kill):
                for self.num_frames, (jpeg, pts) in enumerate(jpegs, start=1):
                    first = pts or 0 if self.num_frames == 1 else first
                    seconds = None if pts is None else (pts - first) / 1e6
                    yield simplejpeg.decode_jpeg(jpeg, colorspace="BGR"), seconds
                exit_code = process.wait()
            error = first_error_line(errors).replace(source, self.name)
        if self.num_frames == 0:
            raise VideoStreamError(f"{self.name}: no frame could be decoded, {error or 'it has none'}")
        self.decode_error = f"{self.num_frames} frames, {error}" if error and exit_code >= 0 else ""


class StoredVideo:
    """A frame store with the interface of VideoFile."""

    decode_error = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    @property
    def num_frames(self) -> int:
        return FrameStore(self.path).n_frames

    expected_frames = num_frames

    def frames(self, short_side: int = NO_SCALING) -> Iterator[TimedImage]:
        """Yield all frames at their stored size. Raises FrameStoreError where one cannot be read."""
        store = FrameStore(self.path)
        times = store.times()
        seconds: Iterator[float | None] = repeat(None) if times is None else iter(times.tolist())
        for start in range(0, store.n_frames, FRAMES_PER_READ):
            indices = range(start, min(start + FRAMES_PER_READ, store.n_frames))
            yield from zip(store.read(indices), seconds, strict=False)


Video = VideoFile | StoredVideo | LiveVideo


def open_videos(sources: Sequence[str | Path]) -> list[Video]:
    """Return the given video files, frame stores and live videos, and the videos below given folders, in order.

    Raises FileNotFoundError for a path without any.
    """
    videos: list[Video] = []
    for source in sources:
        path = Path(source)
        if path.exists():
            found: list[Video] = list(_videos_in(path)) if path.is_dir() else [VideoFile(path)]
        elif re.fullmatch(r"-|\d+|[a-z][a-z\d+.-]*://.*", str(source)):
            found = [LiveVideo(str(source))]
        else:
            raise FileNotFoundError(f"{path}: no such file or folder")
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
        elif may_be_video(path):
            yield VideoFile(path)
