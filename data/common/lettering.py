"""Lines of text in any script for pictures, in the font that the text needs."""

import importlib.util
import logging
import math
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

logger = logging.getLogger(__name__)

BUILT_IN = ""  # stands for OpenCV's font
OPENCV_FONT = cv2.FontFace(
    "sans"
)  # Latin, Greek, Cyrillic, Chinese, Japanese and Korean; it joins no letters
BASELINE, LINE_HEIGHT = 1.1, 1.5  # from the top, in font sizes
NO_LETTER = "\U0010ffff"


@lru_cache(maxsize=4096)
def draw_line(text: str, size: int, font: str) -> np.ndarray:
    """Return the opacity uint8 `(LINE_HEIGHT * size, W)` of a text, given a font file or BUILT_IN."""
    height, baseline = round(LINE_HEIGHT * size), round(BASELINE * size)
    if font == BUILT_IN:
        mask = np.zeros((height, cv2.getTextSize((0, 0), text, (0, 0), OPENCV_FONT, size)[2] + 1), np.uint8)
        cv2.putText(mask, text, (0, baseline), 255, OPENCV_FONT, size)
        return mask
    truetype = ImageFont.truetype(font, size)
    image = Image.new("L", (math.ceil(truetype.getlength(text)) + 1, height))
    ImageDraw.Draw(image).text((0, baseline), text, 255, truetype, anchor="ls")  # joins and reorders letters
    return np.asarray(image)


@cache
def has_letters(font: str, text: str) -> bool:
    """Return whether a font has all letters of a text: the picture of each differs from that of a missing one."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes of a file name that are not UTF-8
        return False
    missing = draw_line(NO_LETTER, 20, font)
    return all(letter == "?" or not np.array_equal(draw_line(letter, 20, font), missing) for letter in text)


def fonts_of(script: str) -> Iterator[str]:
    """Yield fonts that may have a script: those of packages such as fontpkg-noto-sans-thai, and installed ones."""
    for package, name in (("matplotlib", "DejaVuSans.ttf"), (f"fontpkg_noto_sans_{script.lower()}", "*.ttf")):
        if spec := importlib.util.find_spec(package):
            yield from map(str, Path(str(spec.origin)).parent.rglob(name))
    with suppress(OSError):
        yield str(ImageFont.truetype(f"NotoSans{script.title()}-Regular.ttf").path)


@cache
def choose_font(text: str) -> str | None:
    """Return a font that has a text; None where there is none."""
    is_right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)
    if not is_right_to_left and has_letters(BUILT_IN, text):
        return BUILT_IN
    scripts = dict.fromkeys(unicodedata.name(letter, "").partition(" ")[0] for letter in text)
    fonts = (font for script in scripts for font in fonts_of(script))
    return next((font for font in fonts if has_letters(font, text)), None)


@cache
def warn_of_codes() -> None:
    text = "some names have letters that no font here has, so pictures show their codes; Noto fonts are used where"
    logger.warning("%s installed, as by pip install fontpkg-noto-sans-tamil", text)


def letter_codes(text: str) -> str:
    """Return a text in ASCII, for a font that lacks its letters: `\\u0e01` for a Thai one. Warns once."""
    warn_of_codes()
    return text.encode("ascii", "backslashreplace").decode()


@lru_cache(maxsize=1024)
def text_mask(text: str, size: int, width: float = math.inf) -> np.ndarray:
    """Return the opacity uint8 `(H, W)` of a line of text, cut with an ellipsis to a `width` in pixels."""
    text = " ".join(text.split())
    font = choose_font(text)
    if font is None:
        text, font = letter_codes(text), BUILT_IN
    while (mask := draw_line(text, size, font)).shape[1] > width and len(text) > 1:
        text = text[:-2] + "…"
    return mask


Color = tuple[int, int, int]


def draw_text(
    picture: np.ndarray, text: str, place: tuple[int, int], color: Color, size: int, width: float = math.inf
) -> None:
    """Write a line of text onto a picture uint8 `(H, W, 3)`, given the left end of its baseline, cut to a `width`."""
    left, top = max(0, place[0]), max(0, place[1] - round(BASELINE * size))
    mask = text_mask(text, size, width)
    area = picture[top : top + mask.shape[0], left : left + mask.shape[1]]
    opacity = mask[: area.shape[0], : area.shape[1], None] / 255
    area[:] = np.rint(area * (1 - opacity) + opacity * np.array(color))
