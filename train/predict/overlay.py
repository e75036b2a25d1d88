"""Draws what a network says, and where it looked, onto frames uint8 `(H, W, 3)`, BGR."""

from collections.abc import Sequence

import cv2
import numpy as np

from train.predict.predictor import ClassScore

FONT = cv2.FontFace("sans")
WHITE, ACCENT, TRACK = (255, 255, 255), (80, 200, 255), (110, 110, 110)  # BGR
DARKENED = 0.35  # what is left of the picture below text
STRONGEST = 0.65  # share of the color where attention is highest
PALED = 0.7  # share of grey below it
REDDEST = 225  # of the 255 colors from blue to red, which darken in the end


def draw_predictions(frame: np.ndarray, answers: Sequence[ClassScore]) -> np.ndarray:
    """A copy with a strip at the bottom: a row an answer, its label, a bar as long as its probability, and the number.

    As many of the answers as fit into a third of the height, at least one.
    """
    frame = frame.copy()
    height, width = frame.shape[:2]
    row = int(np.clip(height // 14, 11, 44))
    shown = answers[: max(1, height // 3 // row)]
    top = max(0, height - row * len(shown) - row // 3)
    strip = frame[top:]
    cv2.convertScaleAbs(strip, dst=strip, alpha=DARKENED)
    margin, letters = row // 3, max(8, round(row * 0.7))
    number_width = _text_width("0.00", letters)
    bar_left, bar_right = round(width * 0.5), width - number_width - 2 * margin
    for place, answer in enumerate(shown):
        middle = top + row // 6 + row * place + row // 2
        color = ACCENT if place == 0 else WHITE
        _write(
            frame, _shortened(answer.label, letters, bar_left - 2 * margin), margin, middle, letters, color
        )
        _write(frame, f"{answer.probability:.2f}", width - number_width - margin, middle, letters, color)
        if bar_right > bar_left:
            half = max(1, row // 7)
            end = bar_left + round((bar_right - bar_left) * answer.probability)
            cv2.rectangle(frame, (bar_left, middle - half), (bar_right, middle + half), TRACK, cv2.FILLED)
            cv2.rectangle(frame, (bar_left, middle - half), (end, middle + half), color, cv2.FILLED)
    return frame


def _text_width(text: str, letters: int) -> int:
    return cv2.getTextSize((0, 0), text, (0, 0), FONT, letters)[2]


def _shortened(text: str, letters: int, width: int) -> str:
    """What of a label fits."""
    while len(text) > 1 and _text_width(text, letters) > width:
        text = text[:-2] + "…"
    return text


def _write(
    frame: np.ndarray, text: str, left: int, middle: int, letters: int, color: tuple[int, int, int]
) -> None:
    cv2.putText(frame, text, (left, middle + round(letters * 0.36)), color, FONT, letters)


def _seen_square(height: int, width: int, seen: float) -> tuple[int, int, int]:
    """(top, left, side)."""
    side = max(1, round(min(height, width) * seen))
    return (height - side) // 2, (width - side) // 2, side


def draw_gradcam(frame: np.ndarray, heat: np.ndarray, seen: float) -> np.ndarray:
    """A copy, paler, colored where `heat` `(h, w)`, 0 to 1, is high, within the middle square that was seen.

    Its side is `seen` times the short side, and it is outlined.
    """
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    frame = cv2.addWeighted(frame, 1 - PALED, grey, PALED, 0)
    top, left, side = _seen_square(*frame.shape[:2], seen)
    square = frame[top : top + side, left : left + side]
    large = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colors = cv2.applyColorMap(np.rint(REDDEST * large).astype(np.uint8), cv2.COLORMAP_TURBO)
    weight = (STRONGEST * large)[..., None]
    square[:] = np.rint(square * (1 - weight) + colors * weight)
    if seen < 1:
        cv2.rectangle(frame, (left, top), (left + side - 1, top + side - 1), TRACK, 1)
    return frame
