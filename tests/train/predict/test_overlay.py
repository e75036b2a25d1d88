"""Predictions and heat maps drawn onto frames."""

import numpy as np
import pytest

from train.predict.overlay import HIGHLIGHT, draw_gradcam, draw_predictions
from train.predict.predictor import ClassScore

GREY = np.full((240, 320, 3), 100, np.uint8)


def bar_length(probability: float) -> int:
    frame = draw_predictions(GREY, [ClassScore("", probability)])
    return int((frame == HIGHLIGHT).all(axis=2).sum(axis=1).max())


def test_bar_is_as_long_as_the_probability() -> None:
    assert bar_length(0.5) == pytest.approx(2 * bar_length(0.25), abs=8)
    assert bar_length(1.0) == pytest.approx(4 * bar_length(0.25), abs=20)
    assert bar_length(1.0) > 80


def test_strip_has_a_row_per_class_up_to_a_third_of_the_height() -> None:
    def strip_height(num_classes: int) -> int:
        drawn = draw_predictions(GREY, [ClassScore(f"class {i}", 0.1) for i in range(num_classes)])
        return int((drawn != GREY).any(axis=(1, 2)).sum())

    assert strip_height(1) < strip_height(2) < strip_height(4)
    assert strip_height(100) <= 240 * 0.36
    assert (GREY == 100).all()


@pytest.mark.parametrize("size", [(36, 30), (90, 401), (2160, 3840)])
def test_any_frame_size_and_label(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    scores = [ClassScore("hammer throw with a very long name " * 4, 0.9), ClassScore("écrire 日本", 0)]
    drawn = draw_predictions(frame, scores)
    assert drawn.shape == frame.shape
    assert drawn.any()
    assert not drawn[: size[0] // 3].any()


def test_heatmap_is_drawn_onto_the_center_crop() -> None:
    heatmap = np.zeros((2, 2))
    heatmap[1, 0] = 1
    drawn = draw_gradcam(GREY, heatmap, crop_scale=0.5).astype(int)
    changed = (abs(drawn - 100) > 20).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() >= 60, rows.max() < 180, columns.min() >= 100, columns.max() < 220) == (True,) * 4
    assert changed[150, 130]
    assert not changed[90, 190]
    np.testing.assert_array_equal(draw_gradcam(GREY, np.zeros((2, 2)), crop_scale=1.0), GREY)
