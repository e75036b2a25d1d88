"""Frames at another size."""

import numpy as np
import pytest

from data.augmentation import resize, scale_short_side


def noise(length: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (33, 101), (16, 16)])
def test_short_side_is_exact_and_aspect_is_kept(height: int, width: int) -> None:
    scaled = scale_short_side(noise(1, height, width), 50)
    assert min(scaled.shape[1:3]) == 50
    assert abs(scaled.shape[2] / scaled.shape[1] - width / height) < 0.02


def test_half_the_size_is_the_mean_of_four_pixels() -> None:
    """Linear sampling, as the original's, passes over pixels where more than that shrinks."""
    frames = noise(2, 32, 48)
    for factor in (2, 4):
        shrunk = resize(frames, 32 // factor, 48 // factor)
        blocks = frames.reshape(2, 32 // factor, factor, 48 // factor, factor, 3)
        assert np.abs(shrunk - blocks.mean(axis=(2, 4))).max() <= 1


def test_a_view_at_its_own_size_is_copied_as_it_is() -> None:
    crop = noise(2, 32, 48)[:, 4:20, ::-1]
    same = resize(crop, *crop.shape[1:3])
    assert np.array_equal(same, crop)
    assert same.flags.c_contiguous
