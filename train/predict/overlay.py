"""Draw class probabilities and Grad-CAM heat maps onto frames, uint8 `(H, W, 3)`, BGR."""

from collections.abc import Sequence

import cv2
import numpy as np

from data.common.lettering import draw_text, text_mask
from train.predict.predictor import ClassScore

WHITE, HIGHLIGHT, GREY = (255, 255, 255), (80, 200, 255), (110, 110, 110)  # BGR
TEXT_BACKGROUND = 0.35  # brightness of the frame below text
HEAT_OPACITY = 0.65  # of the color where the heat map is 1
DESATURATION = 0.7  # of the frame below a heat map
MAX_COLOR = 225  # of the 256 colors of the map, whose last ones turn dark


def draw_predictions(frame: np.ndarray, scores: Sequence[ClassScore]) -> np.ndarray:
    """Return a copy with a strip at the bottom: for each class a row with its label, a bar and its probability.

    Shows as many classes as fit into a third of the height, at least one.
    """
    frame = frame.copy()
    height, width = frame.shape[:2]
    row_height = int(np.clip(height // 14, 11, 44))
    shown = scores[: max(1, height // 3 // row_height)]
    top = max(0, height - row_height * len(shown) - row_height // 3)
    strip = frame[top:]
    cv2.convertScaleAbs(strip, dst=strip, alpha=TEXT_BACKGROUND)
    margin, font_size = row_height // 3, max(8, round(row_height * 0.7))
    number_left = width - text_mask("0.00", font_size).shape[1] - margin
    bar_left, bar_right = round(width * 0.5), number_left - margin
    bar_radius = max(1, row_height // 7)
    for row, (label, probability) in enumerate(shown):
        middle = top + row_height // 6 + row_height * row + row_height // 2
        color = HIGHLIGHT if row == 0 else WHITE
        baseline = middle + round(font_size * 0.36)
        draw_text(frame, label, (margin, baseline), color, font_size, width=bar_left - 2 * margin)
        draw_text(frame, f"{probability:.2f}", (number_left, baseline), color, font_size)
        if bar_right > bar_left:
            end = bar_left + round((bar_right - bar_left) * probability)
            for right, bar_color in ((bar_right, GREY), (end, color)):
                corners = (bar_left, middle - bar_radius), (right, middle + bar_radius)
                cv2.rectangle(frame, *corners, bar_color, cv2.FILLED)
    return frame


def draw_gradcam(frame: np.ndarray, heatmap: np.ndarray, crop_scale: float) -> np.ndarray:
    """Return a desaturated copy with a heat map `(h, w)`, from 0 to 1, in color on the center crop.

    The crop, whose side is `crop_scale` times the short side of the frame, is outlined if it is smaller.
    """
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    frame = cv2.addWeighted(frame, 1 - DESATURATION, grey, DESATURATION, 0)
    height, width = frame.shape[:2]
    side = max(1, round(min(height, width) * crop_scale))
    top, left = (height - side) // 2, (width - side) // 2
    crop = frame[top : top + side, left : left + side]
    heat = cv2.resize(heatmap.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colors = cv2.applyColorMap(np.rint(MAX_COLOR * heat).astype(np.uint8), cv2.COLORMAP_TURBO)
    opacity = (HEAT_OPACITY * heat)[..., None]
    crop[:] = np.rint(crop * (1 - opacity) + colors * opacity)
    if crop_scale < 1:
        cv2.rectangle(frame, (left, top), (left + side - 1, top + side - 1), GREY, 1)
    return frame
