"""Lines of text in any script for pictures, in a font that has the letters."""

import logging
import sys
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from math import ceil, inf
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

logger = logging.getLogger(__name__)

OPENCV_FONT = cv2.FontFace("sans")
BUILT_IN = ""  # stands for OpenCV's font in place of a font file
BASELINE, LINE_HEIGHT = 1.1, 1.5  # from the top, in font sizes
NO_LETTER = "\U0010ffff"
FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "/Library/Fonts", "/System/Library/Fonts")


@cache
def fonts() -> list[str]:
    """Return the fonts to try, in order. OpenCV's has Chinese, Japanese and Korean, but joins no Arabic letters."""

    def find(folders: Sequence[str], pattern: str) -> Iterator[str]:
        return (str(path) for folder in folders for path in Path(folder).glob(pattern))

    dejavu = find(sys.path, "matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf")
    packages = find(sys.path, "fontpkg_noto_sans*/files/*.ttf")
    return [*dejavu, BUILT_IN, *packages, *find(FONT_FOLDERS, "**/NotoSans*-Regular.ttf")]


def draw_line(text: str, size: int, font: str) -> np.ndarray:
    """Return the opacity uint8 `(LINE_HEIGHT * size, W)` of a text, given a font file or BUILT_IN."""
    height, baseline = round(LINE_HEIGHT * size), round(BASELINE * size)
    if font == BUILT_IN:
        mask = np.zeros((height, cv2.getTextSize((0, 0), text, (0, 0), OPENCV_FONT, size)[2] + 1), np.uint8)
        cv2.putText(mask, text, (0, baseline), 255, OPENCV_FONT, size)
        return mask
    truetype = ImageFont.truetype(font, size)
    image = Image.new("L", (ceil(truetype.getlength(text)) + 1, height))
    ImageDraw.Draw(image).text((0, baseline), text, 255, truetype, anchor="ls")  # joins and reorders letters
    return np.asarray(image)


@cache
def has_letter(font: str, letter: str) -> bool:
    """Return whether the picture of a letter differs from that of a missing one."""
    return letter == "?" or not np.array_equal(draw_line(letter, 20, font), draw_line(NO_LETTER, 20, font))


def has_letters(font: str, text: str) -> bool:
    return all(has_letter(font, letter) for letter in text)


@cache
def warn_of_codes() -> None:
    text = "some names have letters that no font here has, so pictures show their codes; Noto fonts are used where"
    logger.warning("%s installed, as by pip install fontpkg-noto-sans-tamil", text)


@lru_cache(maxsize=1024)
def text_mask(text: str, size: int, width: float = inf) -> np.ndarray:
    """Return the opacity uint8 `(H, W)` of a line of text, cut with an ellipsis to a `width` in pixels.

    Letters that no font has are shown by their codes, such as `\\u0e01`.
    """
    text = " ".join(text.split())
    font = next((font for font in fonts() if has_letters(font, text)), None)
    if font is None:
        warn_of_codes()
        text, font = text.encode("ascii", "backslashreplace").decode(), fonts()[0]
    while (mask := draw_line(text, size, font)).shape[1] > width and len(text) > 1:
        text = text[: min(len(text) - 2, int(len(text) * width / mask.shape[1]))] + "…"
    return mask


def draw_text(
    picture: np.ndarray, text: str, place: Sequence[int], color: Sequence[int], size: int, width: float = inf
) -> None:
    """Write a line of text onto a picture uint8 `(H, W, 3)`, given the left end of its baseline, cut to a `width`."""
    left, top = max(0, place[0]), max(0, place[1] - round(BASELINE * size))
    mask = text_mask(text, size, width)
    area = picture[top : top + mask.shape[0], left : left + mask.shape[1]]
    opacity = mask[: area.shape[0], : area.shape[1], None] / 255
    area[:] = np.rint(area * (1 - opacity) + opacity * np.array(color))
