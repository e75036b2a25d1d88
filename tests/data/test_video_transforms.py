"""Geometry and augmentation of clips, by real imgaug."""

import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data import video_transforms
from data.augmentation import resize
from data.video_transforms import (
    AUGMENTATIONS,
    Compose,
    augment_with_imgaug,
    sample_augmentations,
    training_clip,
    validation_clip,
)

iaa = video_transforms.iaa()


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def clip(length: int = 4, height: int = 60, width: int = 80) -> np.ndarray:
    return np.stack([picture(height, width)] * length)


def crop(frames: np.ndarray, seed: int, **changes: object) -> np.ndarray:
    arguments = {"size": 32, "clip_size": 32, "short_side": 40, "augment": "none", "flip": False} | changes
    return training_clip(Frames(frames), generator=np.random.default_rng(seed), **arguments)


class Frames:
    """Frames `(T, H, W, 3)` that need no decoding, as `EncodedFrames` gives them."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.height, self.width = frames.shape[1:3]

    def __len__(self) -> int:
        return len(self.frames)

    def decode(self) -> np.ndarray:
        return self.frames

    def decode_each(self, halved: bool) -> Iterator[tuple[list[int], np.ndarray]]:
        for place, frame in enumerate(self.frames):
            yield [place], frame[::2, ::2].copy() if halved else frame


def test_a_users_own_import_of_imgaug_works_after_ours() -> None:
    """imgaug 0.4.0 by itself cannot be imported with NumPy 2."""
    code = "import data.video_transforms; import imgaug; imgaug.augmenters.Fliplr(1.0); print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("operation", AUGMENTATIONS, ids=lambda operation: operation.name)
def test_every_frame_gets_the_same_and_equal_draws_give_equal_clips(operation: object) -> None:
    frames = clip(3, 64, 64)
    changed = 0
    for seed in range(5):
        values = operation.draw(np.random.default_rng(seed))
        first, again = (augment_with_imgaug(frames, [(operation, values)]) for _ in range(2))
        assert first.shape == frames.shape
        assert first.dtype == np.uint8
        assert np.array_equal(first, again)
        assert all(np.array_equal(first[0], frame) for frame in first)
        changed += not np.array_equal(first, frames)
    # a Gaussian blur of these deviations rounds to nothing on smooth pictures; everything else shows
    assert changed == (0 if operation.name == "blur" else 5)


RANGES = {
    "blur": [(0.1, 0.3)],
    "add": [(-5, 15)] * 3,
    "noise": [(76.5, 76.5), (0, 2**31)],
    "color": [(1.2, 1.6)],
    "motion_blur": [(3, 7), (0, 360), (-1, 1)],
    "hue_saturation": [(-16, 16)],
    "contrast": [(0.85, 1.115)],
    "perspective": [(0, 0.16)] * 8,  # nearly: a normal distribution has no end
    "rotation": [(-10, 10)],
}


@pytest.mark.parametrize("operation", AUGMENTATIONS, ids=lambda operation: operation.name)
def test_values_fill_their_range(operation: object) -> None:
    draws = np.array([operation.draw(np.random.default_rng(seed)) for seed in range(400)])
    for values, (low, high) in zip(draws.T, RANGES[operation.name], strict=True):
        assert low <= values.min() <= low + 0.1 * (high - low)
        slack = 0.5 if operation.name == "perspective" else 0.1
        assert high - slack * (high - low) <= values.max() <= high


def test_corners_move_as_imgaug_moves_them() -> None:
    """By normal distributions, whose deviation is drawn for a clip: the root of its mean square is 0.036."""
    perspective = next(operation for operation in AUGMENTATIONS if operation.name == "perspective")
    offsets = np.array([perspective.draw(np.random.default_rng(seed)) for seed in range(2000)])
    assert np.sqrt(np.square(offsets).mean()) == pytest.approx(0.0361, abs=0.001)
    assert offsets.min() >= 0


def test_operations_come_as_often_as_they_should() -> None:
    draws = [sample_augmentations(np.random.default_rng(seed)) for seed in range(4000)]
    names = [operation.name for drawn in draws for operation, _ in drawn]
    for operation in AUGMENTATIONS:
        assert abs(names.count(operation.name) / 4000 - 0.8 * 0.4) < 0.04  # 5 standard deviations
    untouched = sum(not drawn for drawn in draws) / 4000
    assert abs(untouched - (0.2 + 0.8 * 0.6 ** len(AUGMENTATIONS))) < 0.035


def test_hue_is_turned_on_bgr_frames() -> None:
    """The original turned the hue of BGR frames as if they were RGB."""
    hue = next(operation for operation in AUGMENTATIONS if operation.name == "hue_saturation")
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 2] = 200
    blue, green, left = augment_with_imgaug(red, [(hue, (16,))])[0, 0, 0]
    assert green > blue  # towards yellow
    assert left == 200


def test_equal_seeds_equal_crops_other_seeds_others() -> None:
    frames = clip()
    assert np.array_equal(crop(frames, 3, augment="imgaug"), crop(frames, 3, augment="imgaug"))
    assert len({crop(frames, seed).tobytes() for seed in range(20)}) > 15


def test_crops_reach_every_corner() -> None:
    """A picture that says where it is: red grows to the right, green downwards."""
    y, x = np.mgrid[0:40, 0:56]
    frames = np.stack([np.zeros_like(x), y, x], axis=-1).astype(np.uint8)[None]
    corners = {tuple(int(v) for v in crop(frames, seed)[0, 0, 0, 1:]) for seed in range(3000)}
    assert corners == {(top, left) for top in range(9) for left in range(25)}


def test_mirror_in_half_of_the_clips_and_only_where_allowed() -> None:
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[:, :, :20] = 255
    plain, mirrored = 0, 0
    for seed in range(400):
        assert crop(frames, seed, clip_size=40, size=40)[0, 0, 0, 0] == 255
        corner = crop(frames, seed, clip_size=40, size=40, flip=True)[0, 0, 0, 0]
        plain, mirrored = plain + (corner == 255), mirrored + (corner == 0)
    assert plain + mirrored == 400
    assert abs(mirrored - 200) < 50


def test_smaller_size_sees_the_same_field_of_view() -> None:
    frames = clip()
    large, small = crop(frames, 5, clip_size=32, size=32), crop(frames, 5, clip_size=32, size=16)
    assert small.shape == (4, 16, 16, 3)
    # but for a pixel, as squares that are halved in decoding begin at even ones
    assert abs(resize(large, 16, 16).astype(int) - small).mean() < 8
    assert abs(crop(frames, 6, clip_size=32, size=16).astype(int) - small).mean() > 16


def test_crop_is_of_clip_size_whatever_that_is() -> None:
    """The original cropped 224 pixels whatever --clip-size said, and enlarged them."""
    y, x = np.mgrid[0:100, 0:100]
    frames = np.stack([x * 2, x * 2, x * 2], axis=-1).astype(np.uint8)[None]
    for clip_size in (20, 50, 100):
        row = crop(frames, 1, short_side=100, clip_size=clip_size, size=clip_size)[0, 0, :, 0].astype(int)
        assert row[-1] - row[0] == 2 * (clip_size - 1)


def test_clip_larger_than_the_short_side_enlarges_the_frames() -> None:
    assert crop(clip(), 0, short_side=40, clip_size=70, size=70).shape == (4, 70, 70, 3)
    assert validation_clip(clip(), size=70, short_side=40).shape == (4, 70, 70, 3)


def test_validation_takes_the_centre() -> None:
    frames = clip(2, 40, 80)
    assert np.array_equal(validation_clip(frames, size=32, short_side=40), frames[:, 4:36, 24:56])


def test_compose_gives_one_augmentation_to_all_frames_and_another_to_the_next_clip() -> None:
    compose = Compose(iaa.Sequential([iaa.Rotate((-90, 90)), iaa.Add((-50, 50))]))
    first, second = (compose(clip(), (4, 30, 40)) for _ in range(2))
    assert first.shape == (3, 4, 30, 40)
    assert first.dtype == torch.float32
    assert all(torch.equal(first[:, 0], first[:, t]) for t in range(4))
    assert not torch.equal(first, second)


class _Composed(Dataset):
    compose = Compose(iaa.Add((-100, 100)))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return float(self.compose(np.full((1, 8, 8, 3), 128, np.uint8), (1, 8, 8)).mean())


def test_compose_draws_differently_in_each_worker_of_a_loader_and_in_each_epoch() -> None:
    """All workers gave their first clips the same augmentations."""
    torch.manual_seed(0)
    loader = DataLoader(_Composed(), batch_size=None, num_workers=2)
    assert len({value for _ in range(2) for value in loader}) == 8


def test_compose_normalises_after_division_by_255() -> None:
    frames = np.full((2, 8, 8, 3), (0, 51, 255), np.uint8)
    result = Compose(iaa.Identity(), normalise=[[0.5, 0.2, 0.0], [1.0, 0.5, 2.0]])(frames, (2, 4, 4))
    assert torch.allclose(result[:, 0, 0, 0], torch.tensor([-0.5, 0.0, 0.5]), atol=1e-6)


def test_compose_says_what_it_wants() -> None:
    with pytest.raises(ValueError, match="must be an imgaug augmenter, was given list"):
        Compose([])
    with pytest.raises(ValueError, match=r"must be uint8 \(T, H, W, 3\), were float64"):
        Compose(iaa.Identity())(np.zeros((2, 8, 8, 3)), (2, 8, 8))
