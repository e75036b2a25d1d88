"""Draw clips as an image and as a video: a row of frames each, with what was sampled for them."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from data.common.lettering import draw_text
from data.ffmpeg.encoding import video_writer
from data.video_iterator import describe_params
from data.video_transforms import ClipParams

FRAMES_PER_STRIP = 8
TILE = 128  # size of a frame in pixels
# pixels
MARGIN, GAP, ROW_GAP, TITLE_HEIGHT, HEADING_HEIGHT, LINE_HEIGHT, TEXT_WIDTH = 16, 2, 10, 34, 30, 18, 340
PAPER, INK, GRAY = (250, 250, 248), (30, 30, 30), (120, 120, 120)
LARGE, NORMAL, SMALL = 20, 15, 13  # font sizes
MIN_VIDEO_SECONDS = 6  # clips are repeated
LABEL_HEIGHT = 20  # above a clip in the video
TICK = 0.01  # seconds, to which times in the video are rounded


class ShownClip(NamedTuple):
    """A clip uint8 `(T, H, W, 3)`, BGR, its class and video, and what was sampled: frame indices and parameters.

    `ends`: when each frame gives way to the next, in seconds from the start of the clip, `(T,)`. `times`: of the video.
    """

    label: str
    video_id: str
    frames: np.ndarray
    indices: list[int]
    params: ClipParams
    ends: np.ndarray
    times: np.ndarray | None


def draw_sheet(path: Path, clips: Sequence[ShownClip], title: str) -> None:
    """Write an image with a heading per class and a row per clip: up to FRAMES_PER_STRIP frames, then the text."""
    num_shown = min(FRAMES_PER_STRIP, max(len(clip.frames) for clip in clips))
    text_left = 2 * MARGIN + num_shown * (TILE + GAP)

    def blank(height: int) -> np.ndarray:
        return np.full((height, text_left + TEXT_WIDTH + MARGIN, 3), PAPER, np.uint8)

    rows = [blank(MARGIN + TITLE_HEIGHT)]
    draw_text(rows[0], title, (MARGIN, MARGIN + LARGE - 4), INK, LARGE)
    for label, same in itertools.groupby(clips, key=lambda clip: clip.label):
        rows.append(blank(HEADING_HEIGHT))
        draw_text(rows[-1], label, (MARGIN, NORMAL + 4), INK, NORMAL)
        for clip in same:
            text = [clip.video_id, *describe_params(clip.indices, clip.params, clip.times)]
            rows.append(blank(max(TILE, LINE_HEIGHT * len(text)) + ROW_GAP))
            shown = np.linspace(0, len(clip.frames) - 1, num_shown).round().astype(int)
            for column, index in enumerate(shown):
                left = MARGIN + column * (TILE + GAP)
                rows[-1][:TILE, left : left + TILE] = _resize(clip.frames[index])[:, :, ::-1]
            for number, line in enumerate(text):
                place = (text_left, SMALL + 1 + LINE_HEIGHT * number)
                draw_text(rows[-1], line, place, GRAY if number else INK, SMALL, TEXT_WIDTH)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(np.concatenate([*rows, blank(MARGIN)])).save(path)
    except ValueError as error:  # the extension is not one of a format
        raise ValueError(f"{path}: {error}") from error


def draw_video(path: Path, clips: Sequence[ShownClip]) -> float:
    """Write a video of all clips side by side, each below its class, and return its length in seconds.

    Each clip is shown at its own times, and repeated until the longest one ends, after MIN_VIDEO_SECONDS at least.
    """
    columns = min(len(clips), max(1, round((len(clips) * 16 / 9) ** 0.5)))
    rows = -(-len(clips) // columns)
    canvas = np.full((rows * (TILE + LABEL_HEIGHT), columns * TILE, 3), PAPER[::-1], np.uint8)
    tiles = []
    for number, clip in enumerate(clips):
        top, left = number // columns * (TILE + LABEL_HEIGHT), number % columns * TILE
        draw_text(canvas[top:, left:], clip.label, (4, LABEL_HEIGHT - 5), INK[::-1], SMALL, TILE - 8)
        tiles.append(canvas[top + LABEL_HEIGHT : top + LABEL_HEIGHT + TILE, left : left + TILE])
    longest = max(clip.ends[-1] for clip in clips)
    length = float(longest * math.ceil(MIN_VIDEO_SECONDS / longest))
    # of the frames of all repetitions
    ends = [np.add.outer(np.arange(0, length, clip.ends[-1]), clip.ends).ravel() for clip in clips]
    shown = None
    with video_writer(path, *canvas.shape[:2]) as writer:
        for tick in range(round(length / TICK)):
            positions = [int(np.searchsorted(times, (tick + 0.5) * TICK, side="right")) for times in ends]
            if positions != shown:
                for tile, clip, position in zip(tiles, clips, positions, strict=True):
                    tile[:] = _resize(clip.frames[position % len(clip.frames)])
                writer.write(canvas, tick * TICK)
                shown = positions
    return length


def _resize(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)
