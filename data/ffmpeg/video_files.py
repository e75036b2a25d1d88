"""Video files and frame stores as frames."""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import simplejpeg

from data.ffmpeg.decoding import JpegStream, VideoStreamError, describe_damage, ffmpeg_command
from data.ffmpeg.side_files import may_be_video
from data.frame_store import FrameStore, has_store

FRAMES_PER_READ = 16
NO_SCALING = 1 << 20  # a short side in pixels that no video exceeds
DEFAULT_FPS = 25.0


class VideoFile:
    """A video file, and what the last complete iteration over its frames found.

    `times`: seconds of each frame from the first one. `decode_error`: how many frames precede the damage, and ffmpeg's
    message; "" without damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times = np.zeros(0)
        self.decode_error = ""

    def frames(self, short_side: int = NO_SCALING) -> Iterator[np.ndarray]:
        """Yield all frames, uint8 `(H, W, 3)`, BGR, rotated as the metadata says, with a short side of at most this.

        Raises VideoStreamError where there is none.
        """
        stream = JpegStream(ffmpeg_command(self.path, short_side, quality=3))
        for jpeg in stream:
            yield simplejpeg.decode_jpeg(jpeg, colorspace="BGR")
        if stream.count == 0:
            raise VideoStreamError(f"{self.path}: no frame could be decoded, {stream.error or 'it has none'}")
        self.times = np.array(stream.times or np.arange(stream.count) / DEFAULT_FPS)
        self.decode_error = describe_damage(self.path, stream) if stream.error else ""

    @cached_property
    def known_times(self) -> np.ndarray | None:
        """Seconds of each frame from the first one, None where the file has none; decodes the file."""
        stream = JpegStream(ffmpeg_command(self.path, short_side=16, quality=31))
        deque(stream, maxlen=0)
        return np.array(stream.times) if stream.times else None


class StoredVideo:
    """A frame store with the interface of VideoFile."""

    decode_error = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def times(self) -> np.ndarray:
        """Seconds of each frame from the first one; stores without times have DEFAULT_FPS."""
        times = self.known_times
        return np.arange(FrameStore(self.path).n_frames) / DEFAULT_FPS if times is None else times

    @property
    def known_times(self) -> np.ndarray | None:
        """Seconds of each frame from the first one, None where the store has none."""
        return FrameStore(self.path).times()

    def frames(self, short_side: int = NO_SCALING) -> Iterator[np.ndarray]:
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
        elif may_be_video(path):
            yield VideoFile(path)
