"""Draw clips as an image and as a video: a row of frames each, with what was sampled for them."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.ffmpeg.encoding import video_writer
from data.video_transforms import ClipParams

FRAMES_PER_STRIP = 8
TILE = 128  # size of a frame in pixels
FPS = 10
# pixels
MARGIN, GAP, ROW_GAP, TITLE_HEIGHT, HEADING_HEIGHT, LINE_HEIGHT, TEXT_WIDTH = 16, 2, 10, 34, 30, 18, 340
PAPER, INK, GRAY = (250, 250, 248), (30, 30, 30), (120, 120, 120)
MIN_VIDEO_SECONDS = 6  # clips are repeated
LABEL_HEIGHT = 20  # above a clip in the video
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class ShownClip(NamedTuple):
    """A clip uint8 `(T, H, W, 3)`, BGR, its class and video, and what was sampled: frame indices and parameters."""

    label: str
    video_id: str
    frames: np.ndarray
    indices: list[int]
    params: ClipParams


def describe(clip: ShownClip) -> list[str]:
    """Return a line for each sampled parameter."""
    top, left, side = clip.params.crop_box
    lines = [f"frames {describe_frames(clip.indices)}", f"crop {side}x{side} at ({left}, {top})"]
    lines += ["flipped"] if clip.params.flipped else []
    for augmentation, params in clip.params.augmentations:
        lines.append(f"{augmentation.name} " + ", ".join(f"{value:.3g}" for value in params))
    return lines


def describe_frames(indices: Sequence[int]) -> str:
    """Return `12 to 42, interval 2`, or the first indices where the interval varies."""
    intervals = {later - earlier for earlier, later in itertools.pairwise(indices)}
    if len(intervals) != 1:
        return ", ".join(map(str, indices[:10])) + ", ..." * (len(indices) > 10)
    return f"{indices[0]} to {indices[-1]}, interval {intervals.pop()}"


def draw_sheet(path: Path, clips: Sequence[ShownClip], title: str) -> None:
    """Write an image with a heading per class and a row per clip: up to FRAMES_PER_STRIP frames, then the text."""
    large, normal, small = (ImageFont.load_default(size) for size in (20, 15, 13))
    num_shown = min(FRAMES_PER_STRIP, max(len(clip.frames) for clip in clips))
    strip_width = num_shown * (TILE + GAP)
    texts = [
        [_shorten(line, small, TEXT_WIDTH) for line in (clip.video_id, *describe(clip))] for clip in clips
    ]
    heights = [max(TILE, LINE_HEIGHT * len(text)) + ROW_GAP for text in texts]
    is_first = [i == 0 or clip.label != clips[i - 1].label for i, clip in enumerate(clips)]
    height = 2 * MARGIN + TITLE_HEIGHT + HEADING_HEIGHT * sum(is_first) + sum(heights)
    sheet = Image.new("RGB", (3 * MARGIN + strip_width + TEXT_WIDTH, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), title, INK, large)
    y = MARGIN + TITLE_HEIGHT
    for clip, first, text, row_height in zip(clips, is_first, texts, heights, strict=True):
        if first:
            draw.text((MARGIN, y + 4), clip.label, INK, normal)
            y += HEADING_HEIGHT
        shown = np.linspace(0, len(clip.frames) - 1, num_shown).round().astype(int)
        for column, index in enumerate(shown):
            image = Image.fromarray(_resize(clip.frames[index])[:, :, ::-1])
            sheet.paste(image, (MARGIN + column * (TILE + GAP), y))
        for row, line in enumerate(text):
            color = GRAY if row else INK
            draw.text((2 * MARGIN + strip_width, y - 2 + LINE_HEIGHT * row), line, color, small)
        y += row_height
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        sheet.save(path)
    except ValueError as error:  # the extension is not one of a format
        raise ValueError(f"{path}: {error}") from error


def draw_video(path: Path, clips: Sequence[ShownClip]) -> None:
    """Write a video of all clips side by side, each below its class, repeated for MIN_VIDEO_SECONDS at least."""
    columns = min(len(clips), max(1, round((len(clips) * 16 / 9) ** 0.5)))
    rows = -(-len(clips) // columns)
    length = max(len(clip.frames) for clip in clips)
    height, width = rows * (TILE + LABEL_HEIGHT), columns * TILE
    canvas = np.full((length, height, width, 3), PAPER[::-1], np.uint8)
    font = ImageFont.load_default(13)
    for i, clip in enumerate(clips):
        top, left = i // columns * (TILE + LABEL_HEIGHT), i % columns * TILE
        label = Image.new("RGB", (TILE, LABEL_HEIGHT), PAPER)
        ImageDraw.Draw(label).text((4, 2), _shorten(clip.label, font, TILE - 8), INK, font)
        canvas[:, top : top + LABEL_HEIGHT, left : left + TILE] = np.asarray(label)[:, :, ::-1]
        top += LABEL_HEIGHT
        for target, frame in zip(canvas, clip.frames, strict=True):
            target[top : top + TILE, left : left + TILE] = _resize(frame)
    with video_writer(path, height, width, FPS) as writer:
        for _ in range(math.ceil(MIN_VIDEO_SECONDS * FPS / length)):
            for frame in canvas:
                writer.write(frame)


def _resize(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, (TILE, TILE), interpolation=cv2.INTER_AREA)


def _shorten(text: str, font: Font, width: int) -> str:
    """Return text that fits a width in pixels, with an ellipsis where it is cut."""
    shortened = text
    while font.getlength(shortened) > width:
        text = text[:-1]
        shortened = text + "..."
    return shortened
