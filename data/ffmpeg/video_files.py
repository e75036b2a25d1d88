"""Video files and frame stores as frames."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from data.ffmpeg.binary import ffmpeg_binary
from data.ffmpeg.decoding import DEFAULT_QUALITY, NO_SCALING, JpegStream, VideoStreamError, ffmpeg_command
from data.frame_store import FrameStore, has_store

# Files that lie beside videos. ffmpeg decides about any other.
NON_VIDEO_SUFFIXES = frozenset(
    ".txt .csv .tsv .json .xml .yaml .yml .md .html .pdf .srt .vtt .py .db .zip .tar .gz .7z .rar"  # noqa: SIM905
    " .npy .npz .pkl .log .cfg .ini .sh .wav .mp3 .flac .jpg .jpeg .png .webp .part .ytdl"
    " .m3u .m3u8 .mpd .sdp .ffconcat".split()
)
FRAMES_PER_READ = 16
DEFAULT_FPS = 25.0


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
