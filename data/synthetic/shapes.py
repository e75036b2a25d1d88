"""Moving shapes: videos whose class is the motion of a shape, which no single frame shows."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.ffmpeg.encoding import video_writer
from data.store_writer import write_frame_store

FPS = 25
ASPECT_RATIO = 4 / 3
CORNERS = (2, 3, 4)  # a bar, a triangle, a square: the rotation of each is visible

# Class -> the parameter that moves from end to end of its range, and the direction. The others are constant and random.
X, Y, SIZE, ANGLE = range(4)
MOTION_CLASSES = {
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
    """Center as a fraction of the frame's size, radius as a fraction of its height, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


def pose_from_params(params: np.ndarray) -> Pose:
    """Return the pose for x, y, size and angle, each from -0.5 to 0.5 of its range."""
    x, y, size, angle = params
    return Pose(0.5 + 0.5 * x, 0.5 + 0.5 * y, 0.2 * 3.0**size, 1.5 * np.pi * angle)


def render_video(name: str, generator: np.random.Generator, n_frames: int, height: int) -> np.ndarray:
    """Return a video of a class: uint8 `(n_frames, height, width, 3)`, BGR, 4:3, both sides even."""
    height -= height % 2
    width = round(height * ASPECT_RATIO) // 2 * 2
    background = _background(generator, height, width)
    color = _contrasting_color(generator, background)
    corners = int(generator.choice(CORNERS))
    rotation = generator.uniform(0, 2 * np.pi)
    moving, direction = MOTION_CLASSES[name]
    params = generator.uniform(-0.5, 0.5, size=4)
    frames = np.empty((n_frames, height, width, 3), np.uint8)
    for frame, progress in zip(frames, np.linspace(-0.5, 0.5, n_frames), strict=True):
        params[moving] = direction * progress
        pose = pose_from_params(params)
        frame[:] = background
        _draw_shape(frame, pose._replace(angle=pose.angle + rotation), corners, color)
    return frames


def _background(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = generator.integers(0, 256, size=(4, 5, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grain = generator.integers(-8, 9, size=smooth.shape, dtype=np.int16)
    return np.clip(smooth // 3 + 85 + grain, 0, 255).astype(np.uint8)


def _contrasting_color(generator: np.random.Generator, background: np.ndarray) -> tuple[int, ...]:
    """Return a color that is dark or bright in each channel, whichever differs more from the center of the frame."""
    height, width = background.shape[:2]
    center = background[height // 4 : -height // 4, width // 4 : -width // 4].mean(axis=(0, 1))
    return tuple(
        int(generator.integers(0, 50) if level > 127 else generator.integers(205, 256)) for level in center
    )


def _draw_shape(frame: np.ndarray, pose: Pose, corners: int, color: tuple[int, ...]) -> None:
    """Draw a regular polygon, or a bar, with a marker off its center that shows the rotation."""
    height, width = frame.shape[:2]
    center = np.array([pose.x * width, pose.y * height])
    radius = pose.radius * height
    direction = np.array([np.cos(pose.angle), np.sin(pose.angle)])
    if corners == 2:
        across = 0.35 * np.array([-direction[1], direction[0]])
        outline = np.stack([direction + across, direction - across, -direction - across, -direction + across])
    else:
        angles = pose.angle + 2 * np.pi * np.arange(corners) / corners
        outline = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    _fill_polygon(frame, center + radius * outline, color)
    marker = 0.25 * radius * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
    _fill_polygon(frame, center + 0.55 * radius * direction + marker, tuple(255 - level for level in color))


def _fill_polygon(frame: np.ndarray, points: np.ndarray, color: tuple[int, ...]) -> None:
    """Fill a polygon with 1/16-pixel precision and anti-aliased edges."""
    cv2.fillPoly(frame, [np.round(points * 16).astype(np.int32)], color, lineType=cv2.LINE_AA, shift=4)


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write frames uint8 `(T, H, W, 3)`, BGR, as an H.264 MP4 file of 25 frames per second."""
    _, height, width, _ = frames.shape
    with video_writer(path, height, width, threads=1) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, index / FPS)


def write_shapes_dataset(root: Path, videos_per_class: int, n_frames: int, height: int, seed: int) -> None:
    """Write a dataset without video files: frame stores below `root/jpg` and label files in `root/labels`.

    Every fifth video of a class is for validation.
    """
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for number, name in enumerate(MOTION_CLASSES):
        for video in range(videos_per_class):
            frames = render_video(name, np.random.default_rng((seed, number, video)), n_frames, height)
            video_id = f"{name}_{video:05d}"
            jpegs = (cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames)
            write_frame_store(root / "jpg" / name / video_id, jpegs)
            rows["val" if video % 5 == 4 else "train"].append(f"{name},{video_id}")
    (root / "labels").mkdir(parents=True)
    for split, lines in rows.items():
        (root / "labels" / f"{split}.csv").write_text("\n".join(["label,id", *lines]) + "\n")
