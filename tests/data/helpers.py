"""Videos for the tests of data preparation, made by ffmpeg."""

import subprocess
from pathlib import Path

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from data.synthetic.shapes import write_video
from tests.synthetic_frames import paint

NEW_FFMPEG = get_ffmpeg_exe()  # has options that an old ffmpeg on the PATH, which is tested, may lack


def make_video(path: Path, n_frames: int = 12, size: int = 100) -> Path:
    """Write frames painted with their numbers, 25 per second."""
    write_video(path, np.stack([paint(i, size=size) for i in range(n_frames)]))
    return path


def run_ffmpeg(*options: object) -> None:
    """Run ffmpeg with an output file that may exist."""
    subprocess.run([NEW_FFMPEG, "-loglevel", "error", "-y", *map(str, options)], check=True)


def transcode(source: Path, target: Path, *options: str) -> Path:
    """Write `target` from `source` with output options of ffmpeg."""
    target.parent.mkdir(parents=True, exist_ok=True)
    run_ffmpeg("-i", source, *options, f"file:{target}")
    return target


def packets(path: Path) -> list[tuple[float, float]]:
    """Return the time and duration in seconds of each packet of a video file, in stored order."""
    command = [NEW_FFMPEG, "-v", "error", "-i", path, "-map", "v", "-c", "copy", "-f", "framecrc", "-"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (num, den), *_ = [line.split()[-1].split("/") for line in lines if line.startswith("#tb")]
    values = [[int(value) for value in line.split(",")[2:4]] for line in lines if not line.startswith("#")]
    return [(pts * int(num) / int(den), duration * int(num) / int(den)) for pts, duration in values]
