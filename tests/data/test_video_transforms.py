"""Crops, flips, sampled augmentations, and imgaug behind `Compose`."""

import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from data.imgaug_engine import iaa
from data.video_transforms import (
    AUGMENTATIONS,
    Augmentation,
    Compose,
    augment_with_imgaug,
    sample_augmentations,
    sample_clip_params,
    training_clip,
    validation_clip,
)


def make_clip(length: int = 4, height: int = 60, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)] * length)


class RawFrames:
    """Frames `(T, H, W, 3)` that need no decoding, with the methods of `EncodedFrames`."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.height, self.width = frames.shape[1:3]

    def __len__(self) -> int:
        return len(self.frames)

    def decode(self) -> np.ndarray:
        return self.frames

    def decode_each(self, halved: bool, fast: bool) -> Iterator[tuple[list[int], np.ndarray]]:
        for position, frame in enumerate(self.frames):
            yield [position], frame[::2, ::2].copy() if halved else frame


def crop(
    frames: np.ndarray,
    seed: int,
    *,
    size: int = 32,
    clip_size: int = 32,
    short_side: int = 40,
    augment: str = "none",
    flip: bool = False,
) -> np.ndarray:
    settings = {"size": size, "clip_size": clip_size, "augment": augment}
    generator = np.random.default_rng(seed)
    height, width = frames.shape[1:3]
    params = sample_clip_params(
        height, width, short_side=short_side, flip=flip, generator=generator, **settings
    )
    return training_clip(RawFrames(frames), params, **settings)


def by_name(name: str) -> Augmentation:
    return next(augmentation for augmentation in AUGMENTATIONS if augmentation.name == name)


def test_a_users_own_import_of_imgaug_works_after_ours() -> None:
    """imgaug 0.4.0 by itself cannot be imported with NumPy 2."""
    code = "import data.video_transforms; import imgaug; imgaug.augmenters.Fliplr(1.0); print('fine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "fine\n", done.stderr


RANGES = {
    "blur": [(0.1, 0.3)],
    "add": [(-5, 15)] * 3,
    "noise": [(76.5, 76.5), (0, 2**31)],
    "color": [(1.2, 1.6)],
    "motion_blur": [(3, 7), (0, 360), (-1, 1)],
    "hue_saturation": [(-16, 16)],
    "contrast": [(0.85, 1.115)],
    "perspective": [(0, 0.16)] * 8,  # nearly, as a normal distribution is unbounded
    "rotation": [(-10, 10)],
}


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda augmentation: augmentation.name)
def test_params_fill_their_range(augmentation: Augmentation) -> None:
    params = np.array([augmentation.sample_params(np.random.default_rng(seed)) for seed in range(400)])
    slack = 0.5 if augmentation.name == "perspective" else 0.1
    for values, (low, high) in zip(params.T, RANGES[augmentation.name], strict=True):
        assert low <= values.min() <= low + 0.1 * (high - low)
        assert high - slack * (high - low) <= values.max() <= high


def test_each_augmentation_has_its_probability() -> None:
    samples = [sample_augmentations(np.random.default_rng(seed)) for seed in range(4000)]
    names = [augmentation.name for sample in samples for augmentation, _ in sample]
    for augmentation in AUGMENTATIONS:
        assert abs(names.count(augmentation.name) / 4000 - 0.8 * 0.4) < 0.04  # 5 standard deviations
    unchanged = sum(not sample for sample in samples) / 4000
    assert abs(unchanged - (0.2 + 0.8 * 0.6 ** len(AUGMENTATIONS))) < 0.035


def test_the_light_table_samples_all_but_noise_and_blur() -> None:
    full, light = (
        {
            one.name
            for seed in range(400)
            for one, _ in sample_augmentations(np.random.default_rng(seed), table)
        }
        for table in ("full", "light")
    )
    assert full == {one.name for one in AUGMENTATIONS}
    assert full - light == {"blur", "noise", "motion_blur"}


def test_hue_is_that_of_bgr_frames() -> None:
    """The original changed the hue of BGR frames as if they were RGB."""
    red = np.zeros((1, 8, 8, 3), np.uint8)
    red[..., 2] = 200
    blue, green, value = augment_with_imgaug(red, [(by_name("hue_saturation"), (16,))])[0, 0, 0]
    assert green > blue  # towards yellow
    assert value == 200


def test_crops_are_reproducible_and_reach_every_corner() -> None:
    y, x = np.mgrid[0:40, 0:56]
    frames = np.stack([np.zeros_like(x), y, x], axis=-1).astype(np.uint8)[None]
    corners = {tuple(int(value) for value in crop(frames, seed)[0, 0, 0, 1:]) for seed in range(3000)}
    assert corners == {(top, left) for top in range(9) for left in range(25)}
    for augment in ("fused", "imgaug"):
        assert np.array_equal(crop(frames, 3, augment=augment), crop(frames, 3, augment=augment))


def test_half_of_the_clips_are_flipped_if_allowed() -> None:
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[:, :, :20] = 255
    settings = {"clip_size": 40, "size": 40}
    assert {int(crop(frames, seed, **settings)[0, 0, 0, 0]) for seed in range(50)} == {255}
    corners = [int(crop(frames, seed, flip=True, **settings)[0, 0, 0, 0]) for seed in range(400)]
    assert set(corners) == {0, 255}
    assert abs(corners.count(0) - 200) < 50


@pytest.mark.parametrize("clip_size", [20, 50, 100])
def test_crop_has_clip_size(clip_size: int) -> None:
    """The original cropped 224 pixels whatever --clip-size was, and enlarged them."""
    x = np.mgrid[0:100, 0:100][1]
    frames = np.stack([x * 2] * 3, axis=-1).astype(np.uint8)[None]
    row = crop(frames, 1, short_side=100, clip_size=clip_size, size=clip_size)[0, 0, :, 0].astype(int)
    assert row[-1] - row[0] == 2 * (clip_size - 1)


def test_frames_are_enlarged_for_clips_larger_than_the_short_side() -> None:
    assert crop(make_clip(), 0, short_side=40, clip_size=70, size=70).shape == (4, 70, 70, 3)
    assert validation_clip(make_clip(), size=70).shape == (4, 70, 70, 3)


def test_validation_crops_256_of_294_pixels_at_the_center() -> None:
    frames = make_clip(2, 294, 392)
    assert np.array_equal(validation_clip(frames, size=256), frames[:, 19:275, 68:324])


@pytest.mark.parametrize("size", [16, 80, 112, 224, 284, 320])
@pytest.mark.parametrize(("height", "width"), [(384, 512), (90, 60), (294, 294)])
def test_validation_sees_the_same_field_of_view_at_any_size(size: int, height: int, width: int) -> None:
    y, x = np.mgrid[0:height, 0:width] + 0.5
    positions = np.stack([0 * x, 255 * y / height, 255 * x / width], axis=-1).round().astype(np.uint8)
    clip = validation_clip(positions[None], size=size)[0] / 255
    fraction = min(height, width) * 256 / 294 * (size - 1) / size  # between the middles of the outer pixels
    seen = clip[-1, 0, 1] - clip[0, 0, 1], clip[0, -1, 2] - clip[0, 0, 2]
    assert seen == pytest.approx((fraction / height, fraction / width), abs=1.2 / size)
    center = (clip[0, 0] + clip[-1, -1])[1:] / 2
    assert center == pytest.approx((0.5, 0.5), abs=1 / size)


def test_compose_augments_all_frames_alike_and_each_clip_differently() -> None:
    compose = Compose(iaa().Sequential([iaa().Rotate((-90, 90)), iaa().Add((-50, 50))]))
    first, second = (compose(make_clip(), (4, 30, 40)) for _ in range(2))
    assert first.shape == (3, 4, 30, 40)
    assert first.dtype == torch.float32
    assert all(torch.equal(first[:, 0], first[:, t]) for t in range(4))
    assert not torch.equal(first, second)


class Brightness(Dataset[float]):
    """Mean of gray frames of which each clip is brightened at random."""

    def __init__(self) -> None:
        self.compose = Compose(iaa().Add((-100, 100)))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> float:
        return float(self.compose(np.full((1, 8, 8, 3), 128, np.uint8), (1, 8, 8)).mean())


def test_compose_samples_differently_in_each_worker_and_epoch() -> None:
    torch.manual_seed(0)
    loader = DataLoader(Brightness(), batch_size=None, num_workers=2)
    assert len({value for _ in range(2) for value in loader}) == 8


def test_compose_normalizes_after_division_by_255() -> None:
    frames = np.full((2, 8, 8, 3), (0, 51, 255), np.uint8)
    compose = Compose(iaa().Identity(), normalise=[[0.5, 0.2, 0.0], [1.0, 0.5, 2.0]])
    pixel = compose(frames, (2, 4, 4))[:, 0, 0, 0]
    assert torch.allclose(pixel, torch.tensor([-0.5, 0.0, 0.5]), atol=1e-6)
