"""The frames that benchmarks read: videos, and stores and files of the same frames."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.benchmark.reference_pipeline import write_jpeg_files, write_original_store
from data.ffmpeg import ffmpeg_binary, read_jpegs
from data.frame_store import write_frame_store

LINES = 360  # of each frame


class Sources(NamedTuple):
    """The same frames in each form, a folder (or file) a video; `frames` of each."""

    videos: list[Path]
    stores: list[Path]
    originals: list[Path]
    files: list[Path]
    frames: list[int]


def make_videos(folder: Path, count: int = 6, seconds: int = 10, lines: int = LINES) -> list[Path]:
    """Moving fractals, as full of detail as real frames."""
    paths = [folder / f"video{i}.mp4" for i in range(count)]
    for i, path in enumerate(paths):
        size = f"{lines * 4 // 3 // 2 * 2}x{lines}"
        source = f"mandelbrot=size={size}:rate=30:start_scale={3 - i / 4}:end_scale=0.05:end_pts=400"
        command = [
            ffmpeg_binary(),
            "-loglevel",
            "error",
            "-y",
            "-f",
            "lavfi",
            "-i",
            source,
            "-t",
            str(seconds),
        ]
        subprocess.run([*command, "-pix_fmt", "yuv420p", str(path)], check=True)
    return paths


def jpegs_of(video: Path, quality: int | None) -> list[bytes]:
    """All frames, LINES high; quality None is ffmpeg's default."""
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", str(video), "-vf", f"scale=-2:{LINES}"]
    command += ["-q:v", str(quality)] if quality else []
    with subprocess.Popen([*command, "-f", "mpjpeg", "-"], stdout=subprocess.PIPE) as process:
        return list(read_jpegs(process.stdout))


def prepare(videos: Sequence[Path], folder: Path, quality: int | None) -> Sources:
    """Write every form below `folder`."""
    sources = Sources([], [], [], [], [])
    for i, video in enumerate(videos):
        jpegs = jpegs_of(video, quality)
        if not jpegs:
            raise ValueError(f"{video}: no frame could be decoded")
        store, original, files = (folder / form / f"v{i}" for form in ("stores", "originals", "files"))
        write_frame_store(store, jpegs)
        write_original_store(original, jpegs)
        write_jpeg_files(files, jpegs)
        for column, value in zip(sources, (video, store, original, files, len(jpegs)), strict=True):
            column.append(value)
    return sources


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
