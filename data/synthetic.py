"""python -m data.synthetic VIDEOS [--videos-per-class 40] [--frames 40] [--height 96] [--seed 1] [--sheet PNG]

Render mp4 files of moving shapes, VIDEOS/<motion>/<number>.mp4. The eight classes differ by motion alone: shape,
colour, place, size, speed and background are random, so one frame says nothing about the class.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.command_line import OneLineParser
from data.convert import ffmpeg_binary

ASPECT = 4 / 3
FPS = 25
CORNERS = (2, 3, 4)  # a bar, a triangle, a square: all show how they are turned

# What a motion changes, and in which sense. The four are independent; a video moves one of them from end to end of its
# range and holds the others at random places of theirs, so that a frame looks the same whatever the class.
X, Y, SIZE, ANGLE = range(4)
MOTIONS = {
    "left": (X, -1),
    "right": (X, 1),
    "up": (Y, -1),
    "down": (Y, 1),
    "grow": (SIZE, 1),
    "shrink": (SIZE, -1),
    "clockwise": (ANGLE, 1),
    "counter_clockwise": (ANGLE, -1),
}


class Pose(NamedTuple):
    """Where the shape is: centre in parts of the picture, radius in parts of its height, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def pose_at(places: np.ndarray) -> Pose:
    """The pose for four places, each from -0.5 to 0.5 of the range of x, y, size and angle."""
    x, y, size, angle = places
    return Pose(0.5 + 0.5 * x, 0.5 + 0.5 * y, 0.2 * 3.0**size, 1.5 * np.pi * angle)


def render(motion: str, generator: np.random.Generator, n_frames: int, height: int) -> np.ndarray:
    """A video of one motion: uint8 `(n_frames, height, width, 3)`, BGR, an aspect of 4 to 3, sides even."""
    height -= height % 2
    width = round(height * ASPECT) // 2 * 2
    background = _background(generator, height, width)
    colour = _contrasting_colour(generator, background)
    corners = int(generator.choice(CORNERS))
    turn = generator.uniform(0, 2 * np.pi)
    moves, sense = MOTIONS[motion]
    places = generator.uniform(-0.5, 0.5, size=4)
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    for frame, way in zip(frames, np.linspace(-0.5, 0.5, n_frames), strict=True):
        places[moves] = sense * way
        pose = pose_at(places)
        frame[:] = background
        _draw(frame, pose._replace(angle=pose.angle + turn), corners, colour)
    return frames


def _background(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = generator.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = generator.integers(-8, 9, size=smooth.shape, dtype=np.int16)
    return np.clip(smooth // 3 + 85 + grain, 0, 255).astype(np.uint8)


def _contrasting_colour(generator: np.random.Generator, background: np.ndarray) -> tuple[int, ...]:
    """Dark or bright in each channel, whichever is further from what lies in the middle of the picture."""
    height, width = background.shape[:2]
    around = background[height // 4 : -height // 4, width // 4 : -width // 4].mean(axis=(0, 1))
    return tuple(
        int(generator.integers(0, 50) if level > 127 else generator.integers(205, 256)) for level in around
    )


def _draw(frame: np.ndarray, pose: Pose, corners: int, colour: tuple[int, ...]) -> None:
    """A regular polygon, or a bar; subpixel places, smooth edges. A dot off its middle shows the turning of each."""
    height, width = frame.shape[:2]
    centre = np.array([pose.x * width, pose.y * height])
    radius = pose.radius * height
    direction = np.array([np.cos(pose.angle), np.sin(pose.angle)])
    if corners == 2:
        across = 0.35 * np.array([-direction[1], direction[0]])
        outline = [direction + across, direction - across, -direction - across, -direction + across]
    else:
        angles = pose.angle + 2 * np.pi * np.arange(corners) / corners
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _polygon(frame, centre + radius * np.asarray(outline), colour)
    marker = centre + 0.55 * radius * direction
    _polygon(
        frame,
        marker + 0.25 * radius * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]),
        tuple(255 - c for c in colour),
    )


def _polygon(frame: np.ndarray, points: np.ndarray, colour: tuple[int, ...]) -> None:
    cv2.fillPoly(frame, [np.round(points * 16).astype(np.int32)], colour, lineType=cv2.LINE_AA, shift=4)


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
    names = [f"{number:05d}.mp4" for number in range(arguments.videos_per_class)]
    paths = [arguments.videos / motion / name for motion in MOTIONS for name in names]
    work = functools.partial(
        render_video, seed=arguments.seed, n_frames=arguments.frames, height=arguments.height
    )
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(work, [path for path in paths if not path.exists()]))
        if arguments.sheet:
            draw_sheet(arguments.sheet, arguments.seed, arguments.frames, arguments.height)
    except OSError as error:
        parser.error(str(error))
    print(f"{arguments.videos}: {len(paths)} videos of {len(MOTIONS)} motions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
