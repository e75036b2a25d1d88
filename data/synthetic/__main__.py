"""python -m data.synthetic VIDEOS [--videos-per-class 40] [--frames 40] [--height 96] [--seed 1] [--sheet PNG]

Render mp4 files of moving shapes, VIDEOS/<motion>/<number>.mp4. The eight classes differ by motion alone: shape,
color, place, size, speed and background are random, so one frame says nothing about the class.
"""

import functools
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from data.common.cli import OneLineParser
from data.common.cpus import available_cpus
from data.ffmpeg import ffmpeg_binary
from data.synthetic.shapes import MOTIONS, render

FPS = 25


def write_video(path: Path, frames: np.ndarray) -> None:
    """Encode uint8 `(T, H, W, 3)`, BGR, as H.264; the file is there as a whole or not at all."""
    _, height, width, _ = frames.shape
    staging = path.with_name(f".{path.name}.part")
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    command += ["-s", f"{width}x{height}", "-r", str(FPS), "-i", "pipe:", "-pix_fmt", "yuv420p", "-crf", "18"]
    command += ["-threads", "1", "-f", "mp4", f"file:{staging}"]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{path}: ffmpeg could not write it, {done.stderr.decode(errors='replace').strip()}")
    staging.replace(path)


def render_video(path: Path, seed: int, n_frames: int, height: int) -> None:
    """One file `<motion>/<number>.mp4`: equal seeds give equal pictures."""
    motion = path.parent.name
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng((seed, list(MOTIONS).index(motion), int(path.stem)))
    write_video(path, render(motion, generator, n_frames, height))


def draw_sheet(path: Path, seed: int, n_frames: int, height: int) -> None:
    """A picture with a row a motion, six frames of one video from left to right."""
    rows = []
    for number, motion in enumerate(MOTIONS):
        frames = render(motion, np.random.default_rng((seed, number, 1)), n_frames, height)
        shown = frames[np.linspace(0, n_frames - 1, 6).round().astype(int)]
        rows.append(np.concatenate(list(shown), axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.concatenate(rows)):
        raise OSError(f"{path}: could not be written")


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m data.synthetic", description=__doc__.split("\n\n")[1])
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder that gets <motion>/<number>.mp4")
    parser.add_argument("--videos-per-class", type=int, default=40, help="(default: 40)")
    parser.add_argument("--frames", type=int, default=40, help="a video (default: 40)")
    parser.add_argument("--height", type=int, default=96, help="of the videos in pixels (default: 96)")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--sheet", type=Path, help="also draw six frames of each motion as a picture")
    arguments = parser.parse_args(argv)
    for name, least in (("videos_per_class", 1), ("frames", 2), ("height", 32), ("seed", 0)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)}: must be at least {least}")
    if arguments.sheet and arguments.sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        parser.error(f"--sheet {arguments.sheet}: must end with .png, .jpg, .jpeg or .webp")
    names = [f"{number:05d}.mp4" for number in range(arguments.videos_per_class)]
    paths = [arguments.videos / motion / name for motion in MOTIONS for name in names]
    work = functools.partial(
        render_video, seed=arguments.seed, n_frames=arguments.frames, height=arguments.height
    )
    missing = [path for path in paths if not path.exists()]
    try:
        with ThreadPoolExecutor(available_cpus()) as pool:
            list(pool.map(work, missing))
        if arguments.sheet:
            draw_sheet(arguments.sheet, arguments.seed, arguments.frames, arguments.height)
    except OSError as error:
        parser.error(str(error))
    before = len(paths) - len(missing)
    kept = f", {before} of them were there before and stay as they are" if before else ""
    print(f"{arguments.videos}: {len(paths)} videos of {len(MOTIONS)} motions{kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
