"""Draw clips as an image and as a video: a row of frames each, with what was sampled for them."""

import math
from collections import defaultdict
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

    `ends`: when each frame gives way to the next, in seconds from the start of the clip, `(T,)`.
    """

    label: str
    video_id: str
    frames: np.ndarray
    indices: list[int]
    params: ClipParams
    ends: np.ndarray


def draw_sheet(path: Path, clips: Sequence[ShownClip], title: str) -> None:
    """Write an image with a heading per class and a row per clip: up to FRAMES_PER_STRIP frames, then the text."""
    num_shown = min(FRAMES_PER_STRIP, max(len(clip.frames) for clip in clips))
    strip_width = num_shown * (TILE + GAP)
    texts = [[clip.video_id, *describe_params(clip.indices, clip.params)] for clip in clips]
    heights = [max(TILE, LINE_HEIGHT * len(text)) + ROW_GAP for text in texts]
    is_first = [i == 0 or clip.label != clips[i - 1].label for i, clip in enumerate(clips)]
    height = 2 * MARGIN + TITLE_HEIGHT + HEADING_HEIGHT * sum(is_first) + sum(heights)
    sheet = np.full((height, 3 * MARGIN + strip_width + TEXT_WIDTH, 3), PAPER, np.uint8)
    draw_text(sheet, title, (MARGIN, MARGIN + LARGE - 4), INK, LARGE)
    y = MARGIN + TITLE_HEIGHT
    for clip, first, text, row_height in zip(clips, is_first, texts, heights, strict=True):
        if first:
            draw_text(sheet, clip.label, (MARGIN, y + 4 + NORMAL), INK, NORMAL)
            y += HEADING_HEIGHT
        shown = np.linspace(0, len(clip.frames) - 1, num_shown).round().astype(int)
        for column, index in enumerate(shown):
            left = MARGIN + column * (TILE + GAP)
            sheet[y : y + TILE, left : left + TILE] = _resize(clip.frames[index])[:, :, ::-1]
        for row, line in enumerate(text):
            color = GRAY if row else INK
            baseline = y - 2 + LINE_HEIGHT * row + SMALL
            draw_text(sheet, line, (2 * MARGIN + strip_width, baseline), color, SMALL, TEXT_WIDTH)
        y += row_height
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(sheet).save(path)
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
    # by tick, which tiles change to which of their frames
    changes: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    longest = max(clip.ends[-1] for clip in clips)
    length = float(longest * math.ceil(MIN_VIDEO_SECONDS / longest))
    for number, clip in enumerate(clips):
        top, left = number // columns * (TILE + LABEL_HEIGHT), number % columns * TILE
        baseline = LABEL_HEIGHT - 5
        draw_text(canvas[top:, left:], clip.label, (4, baseline), INK[::-1], SMALL, TILE - 8)
        tiles.append(canvas[top + LABEL_HEIGHT : top + LABEL_HEIGHT + TILE, left : left + TILE])
        for start in np.arange(0, length, clip.ends[-1]):
            for index, seconds in enumerate((0, *clip.ends[:-1])):
                changes[round((start + seconds) / TICK)].append((number, index))
    with video_writer(path, *canvas.shape[:2]) as writer:
        for tick in sorted(tick for tick in changes if tick < round(length / TICK)):
            for number, index in changes[tick]:
                tiles[number][:] = _resize(clips[number].frames[index])
            writer.write(canvas, tick * TICK)
    return length


def _resize(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)
