"""Eight motions of a shape, rendered: classes that differ in nothing but the order of frames."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.frame_store import write_frame_store

ASPECT = 4 / 3
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
    color = _contrasting_colour(generator, background)
    corners = int(generator.choice(CORNERS))
    turn = generator.uniform(0, 2 * np.pi)
    moves, sense = MOTIONS[motion]
    places = generator.uniform(-0.5, 0.5, size=4)
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    for frame, way in zip(frames, np.linspace(-0.5, 0.5, n_frames), strict=True):
        places[moves] = sense * way
        pose = pose_at(places)
        frame[:] = background
        _draw(frame, pose._replace(angle=pose.angle + turn), corners, color)
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


def _draw(frame: np.ndarray, pose: Pose, corners: int, color: tuple[int, ...]) -> None:
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
    _polygon(frame, centre + radius * np.asarray(outline), color)
    marker = centre + 0.55 * radius * direction
    _polygon(
        frame,
        marker + 0.25 * radius * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]]),
        tuple(255 - c for c in color),
    )


def _polygon(frame: np.ndarray, points: np.ndarray, color: tuple[int, ...]) -> None:
    cv2.fillPoly(frame, [np.round(points * 16).astype(np.int32)], color, lineType=cv2.LINE_AA, shift=4)


def write_shapes_dataset(root: Path, videos_per_class: int, n_frames: int, height: int, seed: int) -> None:
    """A data set of rendered videos without a detour over mp4: stores below `root/jpg`, label files in `root/labels`.

    One video in five of each motion is for validation.
    """
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for number, motion in enumerate(MOTIONS):
        for video in range(videos_per_class):
            frames = render(motion, np.random.default_rng((seed, number, video)), n_frames, height)
            write_frame_store(root / "jpg" / motion / f"{motion}_{video:05d}", map(_jpeg, frames))
            rows["val" if video % 5 == 4 else "train"].append(f"{motion},{motion}_{video:05d}")
    (root / "labels").mkdir(parents=True)
    for split, lines in rows.items():
        (root / "labels" / f"{split}.csv").write_text("\n".join(["label,id", *lines]) + "\n")


def _jpeg(frame: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", frame)[1].tobytes()
