"""Benchmark inputs: test videos, and their frames as our stores and as the original's."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.benchmark.reference_pipeline import write_original_store
from data.ffmpeg.binary import ffmpeg_binary
from data.ffmpeg.decoding import JpegStream
from data.store_writer import write_frame_store

HEIGHT = 360  # of each frame, in pixels


class BenchmarkInputs(NamedTuple):
    """The same frames in our stores, in ours with a half level and in the original's, one a video; their number."""

    stores: list[Path]
    half_level: list[Path]
    originals: list[Path]
    num_frames: list[int]


def make_videos(folder: Path, count: int = 6, seconds: int = 10) -> list[Path]:
    """Write videos of moving fractals, which are as detailed as real ones."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"video{i}.mp4" for i in range(count)]
    for i, path in enumerate(paths):
        source = f"mandelbrot=size=480x{HEIGHT}:rate=30:start_scale={3 - i / 4}:end_scale=0.05:end_pts=400"
        command = [ffmpeg_binary(), "-loglevel", "error", "-y", "-f", "lavfi", "-i", source]
        subprocess.run([*command, "-t", str(seconds), "-pix_fmt", "yuv420p", str(path)], check=True)
    return paths


def read_video(video: Path, quality: int) -> list[bytes]:
    """Return all frames as JPEGs, HEIGHT pixels high; quality 0 is ffmpeg's default."""
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", str(video), "-vf", f"scale=-2:{HEIGHT}"]
    command += ["-q:v", str(quality)] if quality else []
    return list(JpegStream([*command, "-f", "mpjpeg", "-"]))


def write_inputs(videos: Sequence[Path], folder: Path, quality: int) -> BenchmarkInputs:
    """Write the frames of videos to stores below `folder`. Raise ValueError if a video has none."""
    inputs = BenchmarkInputs([], [], [], [])
    for i, video in enumerate(videos):
        jpegs = read_video(video, quality)
        if not jpegs:
            raise ValueError(f"{video}: no frame could be decoded")
        inputs.stores.append(folder / "stores" / f"v{i}")
        inputs.half_level.append(folder / "half_level" / f"v{i}")
        inputs.originals.append(folder / "originals" / f"v{i}")
        inputs.num_frames.append(len(jpegs))
        write_frame_store(inputs.stores[-1], jpegs)
        write_frame_store(inputs.half_level[-1], jpegs, half_level=True)
        write_original_store(inputs.originals[-1], jpegs)
    return inputs
