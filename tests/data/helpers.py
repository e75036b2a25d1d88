"""Videos for tests of converting, made by ffmpeg."""

import subprocess
from pathlib import Path

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from data.synthetic.__main__ import write_video
from tests.synthetic_frames import paint

# Makes odd sources with options that an old ffmpeg, which may be the one that is tested, lacks.
MAKER = get_ffmpeg_exe()


def make_video(path: Path, n_frames: int = 12, size: int = 100) -> Path:
    """Frames painted with their numbers, 25 a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack([paint(i, size=size) for i in range(n_frames)]))
    return path


def run_maker(*options: object) -> None:
    subprocess.run([MAKER, "-loglevel", "error", "-y", *map(str, options)], check=True)


def remake(source: Path, target: Path, *options: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    run_maker("-i", source, *options, f"file:{target}")
    return target
