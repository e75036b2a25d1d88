"""Clips as a picture and as a video for people to look at: a strip of frames each, and what was done to them beside."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.ffmpeg import written_video
from data.video_transforms import ClipParams

STRIP = 8  # frames of a clip that are shown
TALLEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels that the formats allow
MARGIN, GAP, ROW_GAP, TITLE, HEADING, LINE, TEXT_WIDTH = 16, 2, 10, 34, 30, 18, 340  # pixels
PAPER, INK, FAINT = (250, 250, 248), (30, 30, 30), (120, 120, 120)
SECONDS = 6  # of the video at least: clips are repeated
BAR = 20  # height of the line above a clip in the video
WORDS: dict[str, Callable[..., str]] = {
    "blur": lambda sigma: f"blur, sigma {sigma:g}",
    "add": lambda b, g, r: f"B {b:+}, G {g:+}, R {r:+}",
    "noise": lambda scale, seed: f"noise, scale {scale:g}",
    "color": lambda factor: f"color x {factor:.2f}",
    "motion_blur": lambda size, angle, direction: f"motion blur, {size} pixels at {angle:.0f}\u00b0",
    "hue_saturation": lambda value: f"hue and saturation {value:+}",
    "contrast": lambda factor: f"contrast x {factor:.2f}",
    "perspective": lambda *offsets: f"perspective, corners by up to {max(offsets):.1%}",
    "rotation": lambda degrees: f"rotation {degrees:+.1f}\u00b0",
}


class ShownClip(NamedTuple):
    """A clip uint8 `(T, H, W, 3)`, BGR, of a video of `label`; which frames it shows, and what was drawn."""

    label: str
    video_id: str
    frames: np.ndarray
    indices: list[int]
    draw: ClipParams


def describe(clip: ShownClip) -> list[str]:
    """A line for each thing that was drawn."""
    top, left, side = clip.draw.window
    lines = [f"frames {describe_frames(clip.indices)}", f"square of {side} pixels at {left}, {top}"]
    lines += ["mirrored"] if clip.draw.mirrored else []
    return lines + [describe_operation(operation.name, values) for operation, values in clip.draw.drawn]


def describe_frames(indices: Sequence[int]) -> str:
    """`12 to 42, every 2nd`; a video that is looped, or a clip of one frame, as it is."""
    steps = {later - earlier for earlier, later in itertools.pairwise(indices)}
    if len(steps) != 1:
        return ", ".join(map(str, indices[:10])) + ", ..." * (len(indices) > 10)
    step = steps.pop()
    ending = {1: "st", 2: "nd", 3: "rd"}.get(step % 10 if step % 100 // 10 != 1 else 0, "th")
    return f"{indices[0]} to {indices[-1]}" + (f", every {step}{ending}" if step > 1 else "")


def describe_operation(name: str, values: Sequence[float]) -> str:
    """In words where there are some, else its name and values."""
    if name in WORDS:
        return WORDS[name](*values)
    return f"{name.replace('_', ' ')} " + ", ".join(f"{value:.3g}" for value in values)


def draw_sheet(path: Path, clips: Sequence[ShownClip], title: str, *, tile: int) -> None:
    """A picture with a heading a class, and below it a row a clip: up to STRIP of its frames, then the text."""
    heading, normal, small = (ImageFont.load_default(size) for size in (20, 15, 13))
    shown = min(STRIP, max(len(clip.frames) for clip in clips))
    strip = shown * (tile + GAP)
    texts = [
        [_shortened(clip.video_id, small, TEXT_WIDTH), *_wrapped(describe(clip), small)] for clip in clips
    ]
    heights = [max(tile, LINE * len(text)) + ROW_GAP for text in texts]
    above = [None, *(clip.label for clip in clips[:-1])]
    headings = sum(clip.label != label for clip, label in zip(clips, above, strict=True))
    height = 2 * MARGIN + TITLE + HEADING * headings + sum(heights)
    tallest = TALLEST.get(path.suffix.lower(), height)
    if height > tallest:
        raise ValueError(
            f"{path}: would be {height} pixels high, such pictures may be {tallest}; "
            "--max-classes, --clips and --tile make it smaller, and PNG may be higher"
        )
    sheet = Image.new("RGB", (3 * MARGIN + strip + TEXT_WIDTH, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 4), title, INK, heading)
    y = MARGIN + TITLE
    for clip, label_above, text, row_height in zip(clips, above, texts, heights, strict=True):
        if clip.label != label_above:
            pen.text((MARGIN, y + 4), clip.label, INK, normal)
            y += HEADING
        for column, index in enumerate(np.linspace(0, len(clip.frames) - 1, shown).round().astype(int)):
            sheet.paste(_picture(clip.frames[index], tile), (MARGIN + column * (tile + GAP), y))
        for number, line in enumerate(text):
            pen.text((2 * MARGIN + strip, y - 2 + LINE * number), line, FAINT if number else INK, small)
        y += row_height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def draw_video(path: Path, clips: Sequence[ShownClip], *, tile: int, fps: float) -> None:
    """All clips side by side, over and over for SECONDS at least, each under the name of its class."""
    columns = min(len(clips), max(1, round((len(clips) * 16 / 9) ** 0.5)))
    rows = -(-len(clips) // columns)
    tile += tile % 2
    length = max(len(clip.frames) for clip in clips)
    canvas = np.full((length, rows * (tile + BAR), columns * tile, 3), PAPER[::-1], np.uint8)
    font = ImageFont.load_default(13)
    for place, clip in enumerate(clips):
        top, left = place // columns * (tile + BAR), place % columns * tile
        bar = Image.new("RGB", (tile, BAR), PAPER)
        ImageDraw.Draw(bar).text((4, 2), _shortened(clip.label, font, tile - 8), INK, font)
        canvas[:, top : top + BAR, left : left + tile] = np.asarray(bar)[:, :, ::-1]
        for target, frame in zip(canvas, clip.frames, strict=True):
            picture = cv2.resize(frame, (tile, tile), interpolation=cv2.INTER_AREA)
            target[top + BAR : top + BAR + tile, left : left + tile] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_video(path, *canvas.shape[1:3], fps) as writer:
        for _ in range(math.ceil(SECONDS * fps / length)):
            for frame in canvas:
                writer.write(frame)


def _picture(frame: np.ndarray, tile: int) -> Image.Image:
    return Image.fromarray(cv2.resize(frame, (tile, tile), interpolation=cv2.INTER_AREA)[:, :, ::-1])


def _wrapped(parts: Sequence[str], font: ImageFont.FreeTypeFont) -> Iterator[str]:
    """As many parts a line as TEXT_WIDTH holds."""
    line = ""
    for part in parts:
        longer = f"{line};  {part}" if line else part
        if line and font.getlength(longer) > TEXT_WIDTH:
            yield line
            line = part
        else:
            line = longer
    yield line


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
