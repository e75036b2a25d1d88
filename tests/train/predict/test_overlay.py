"""What is drawn onto frames."""

import numpy as np
import pytest

from train.predict.overlay import ACCENT, draw_gradcam, draw_predictions
from train.predict.predictor import ClassScore

GREY = np.full((240, 320, 3), 100, np.uint8)


def bar_length(frame: np.ndarray) -> int:
    """The most pixels of the first answer's color in a row."""
    return int((frame == ACCENT).all(axis=2).sum(axis=1).max())


def test_bar_is_as_long_as_the_probability() -> None:
    lengths = [bar_length(draw_predictions(GREY, [ClassScore("", share)])) for share in (0.25, 0.5, 1.0)]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=8)
    assert lengths[2] == pytest.approx(4 * lengths[0], abs=20)
    assert lengths[2] > 80


def test_strip_has_a_row_an_answer_within_a_third_of_the_height() -> None:
    def changed(count: int) -> int:
        drawn = draw_predictions(GREY, [ClassScore(f"class {i}", 0.1) for i in range(count)])
        return int((drawn != GREY).any(axis=(1, 2)).sum())

    assert changed(1) < changed(2) < changed(4)
    assert changed(100) <= 240 * 0.36
    assert (GREY == 100).all()


@pytest.mark.parametrize("size", [(36, 30), (72, 54), (90, 401), (1081, 1919), (2160, 3840)])
def test_any_size_and_label(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    drawn = draw_predictions(
        frame, [ClassScore("hammer throw with a very long name " * 4, 0.9), ClassScore("écrire 日本", 0)]
    )
    assert drawn.shape == frame.shape
    assert drawn.any()
    top = drawn[: size[0] // 3]
    assert not top.any()


def test_heat_is_within_the_square_that_was_seen() -> None:
    heat = np.zeros((2, 2))
    heat[1, 0] = 1
    drawn = draw_gradcam(GREY, heat, seen=0.5).astype(int)
    changed = (abs(drawn - 100) > 20).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min() >= 60, rows.max() < 180, columns.min() >= 100, columns.max() < 220) == (True,) * 4
    assert changed[150, 130]
    assert not changed[90, 190]
    assert drawn.shape == GREY.shape
    np.testing.assert_array_equal(draw_gradcam(GREY, np.zeros((2, 2)), seen=1.0), GREY)
