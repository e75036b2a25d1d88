"""Resizing, the fused engine against imgaug, and what a training worker does for a clip."""

import hashlib
import multiprocessing
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from data import fused_engine as fused
from data.batch_sampler import ClipSpec
from data.benchmark import reader
from data.benchmark.reading import make_dataset
from data.frame_store import EncodedFrames, FrameStore
from data.fused_engine import CropBox, resize, scale_short_side
from data.store_writer import write_frame_store
from data.video_transforms import (
    AUGMENTATIONS,
    Augmentation,
    augment_with_imgaug,
    sample_clip_params,
    training_clip,
)

SIZE = 224
ROTATION = next(augmentation for augmentation in AUGMENTATIONS if augmentation.name == "rotation")


def detailed(count: int = 2, height: int = 256, width: int = 340) -> np.ndarray:
    """Return frames with edges, texture and gradients."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    frame = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(30):
        center = (int(generator.integers(width)), int(generator.integers(height)))
        color = [int(value) for value in generator.integers(256, size=3)]
        cv2.circle(frame, center, int(generator.integers(4, 40)), color, -1, cv2.LINE_AA)
    return np.stack([np.roll(frame, 5 * i, axis=1) for i in range(count)])


def noise(length: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def pink_noise(size: int, channels: int) -> np.ndarray:
    """Return noise whose amplitudes fall with frequency, as those of real frames do: `(size, size, channels)`."""
    noise = np.random.default_rng(0).normal(size=(size, size, channels))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = np.fft.rfft2(noise, axes=(0, 1)) / np.maximum(frequency, 1 / size)[:, :, None]
    pink = np.fft.irfft2(spectrum, axes=(0, 1))
    return pink / pink.std()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (80, 60), (33, 101), (16, 16)])
def test_short_side_is_exact_and_aspect_ratio_is_kept(height: int, width: int) -> None:
    scaled = scale_short_side(noise(1, height, width), 50)
    assert min(scaled.shape[1:3]) == 50
    assert abs(scaled.shape[2] / scaled.shape[1] - width / height) < 0.02


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinking_averages_all_pixels(factor: int) -> None:
    """The original's linear sampling skips pixels."""
    frames = noise(2, 32, 48)
    shrunk = resize(frames, 32 // factor, 48 // factor)
    blocks = frames.reshape(2, 32 // factor, factor, 48 // factor, factor, 3)
    assert np.abs(shrunk - blocks.mean(axis=(2, 4))).max() <= 1


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.ascontiguousarray(detailed()[:, 10 : 10 + SIZE, 20 : 20 + SIZE])


def transform(
    frames: np.ndarray, augmentations: list[tuple[Augmentation, tuple]], size: int = SIZE
) -> np.ndarray:
    out = np.empty((len(frames), size, size, 3), np.uint8)
    side = frames.shape[1]
    pixel_ops = [one.pixel_op(*params, size=size, shrink=side / size) for one, params in augmentations]
    fused.fused_transform(
        (([i], frame.copy()) for i, frame in enumerate(frames)),
        out,
        crop_box=CropBox(0, 0, side),
        warps=[one.warp(*params, clip_size=side) for one, params in augmentations if one.warp],
        clip_size=side,
        pixel_ops=pixel_ops,
        flipped=False,
    )
    return out


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda augmentation: augmentation.name)
def test_both_engines_agree_and_change_all_frames_alike(
    augmentation: Augmentation, frames: np.ndarray
) -> None:
    is_noise = augmentation.name == "noise"
    frames = np.full_like(frames, 127) if is_noise else frames[[0, 0]]  # gray, so that noise is not clipped
    for seed in range(12):
        augmentations = [(augmentation, augmentation.sample_params(np.random.default_rng(seed)))]
        ours, imgaugs = transform(frames, augmentations), augment_with_imgaug(frames, augmentations)
        assert np.array_equal(imgaugs, augment_with_imgaug(frames, augmentations))
        assert np.array_equal(ours, frames) == (
            augmentation.name == "blur"
        )  # of small sigmas, which is skipped
        for clip in (ours, imgaugs):
            assert np.array_equal(clip[0], clip[1])
        if is_noise:
            assert abs(ours.mean() - imgaugs.mean()) < 1.5
            assert ours.std() == pytest.approx(imgaugs.std(), rel=0.01)
            assert np.array_equal(ours[..., 0], ours[..., 2])
        else:
            assert psnr(ours, imgaugs) >= 50


def test_noise_and_motion_blur_shrink_with_the_clip() -> None:
    gray = np.full((80, 80, 3), 127, np.uint8)
    full, half = (np.array(gray) for _ in range(2))
    fused.noise(20.0, 1.0, size=80, shrink=1)(full)
    fused.noise(20.0, 1.0, size=80, shrink=2)(half)
    assert full.std() / half.std() == pytest.approx(2, rel=0.05)
    for kernel, shrink, length in ((7, 1, 7), (7, 2, 3), (3, 2, 1), (7, 0.5, 7)):
        dot = np.zeros((9, 9, 3), np.uint8)
        dot[4, 4] = 255
        fused.motion_blur(kernel, 0.0, 0.0, size=9, shrink=shrink)(dot)
        assert dot[..., 0].any(axis=1).sum() == length


@pytest.mark.parametrize("size", [80, 112, 158, 224])
def test_clips_look_alike_at_every_size(size: int) -> None:
    """Decoded at half size if possible and resampled once, against decoded at full size and resampled twice."""
    jpegs = [simplejpeg.encode_jpeg(frame, quality=95, colorspace="BGR") for frame in detailed(2, 294, 392)]
    frames = EncodedFrames(Path("store"), [0, 1], dict(enumerate(jpegs)))
    settings = {"size": size, "clip_size": 224, "augment": "none"}
    for seed in range(4):
        params = sample_clip_params(
            294, 392, short_side=294, flip=True, generator=np.random.default_rng(seed), **settings
        )
        top, left, side = params.crop_box
        crop = frames.decode()[:, top : top + side, left : left + side, :]
        expected = resize(crop[:, :, ::-1] if params.flipped else crop, size, size)
        assert psnr(training_clip(frames, params, **settings), expected) > 30


def test_warping_a_much_larger_crop_does_not_alias() -> None:
    """cv2.remap averages four pixels, but one of the output covers eighty: this was 21 dB."""
    frame = np.clip(128 + 50 * pink_noise(720, 3), 0, 255).astype(np.uint8)
    matrix = ROTATION.warp(5, clip_size=720)
    rotated = cv2.warpPerspective(frame, matrix, (720, 720), flags=cv2.INTER_LINEAR)
    expected = cv2.resize(rotated, (80, 80), interpolation=cv2.INTER_AREA)
    assert psnr(transform(frame[None], [(ROTATION, (5,))], size=80)[0], expected) > 28


def test_warps_are_composed() -> None:
    frames = detailed(1)[:, :SIZE, :SIZE].copy()
    twice, once = transform(frames, [(ROTATION, (5.0,))] * 2), transform(frames, [(ROTATION, (10.0,))])
    assert psnr(twice, once) > 45


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folders = [tmp_path_factory.mktemp("stores") / f"v{i}" for i in range(3)]
    for i, folder in enumerate(folders):
        jpegs = [simplejpeg.encode_jpeg(frame, quality=90, colorspace="BGR") for frame in detailed(20 + i)]
        write_frame_store(folder, jpegs)
    return folders


def test_a_half_level_changes_neither_crop_nor_draws(stores: list[Path], tmp_path: Path) -> None:
    """In a set of both kinds; it is read where the crop is at least twice the size, and not by imgaug."""
    jpegs = FrameStore(stores[0]).fetch(range(20)).jpegs
    write_frame_store(tmp_path / "v", [jpegs[i] for i in range(20)], half_level=True)
    for size, augment in ((80, "fused"), (80, "device"), (80, "imgaug"), (112, "fused")):
        clips = make_dataset([stores[0], tmp_path / "v"], 4, augment=augment)
        for seed in range(12):
            (frames, params), (others, same_params) = (
                clips.sample(clips.videos.folder(index), ClipSpec(index, 4, size, seed)) for index in (0, 1)
            )
            assert params == same_params
            assert frames.indices == others.indices
            assert (others.height, others.width) == (frames.height, frames.width)
            assert others.half_level == (size == 80 and augment != "imgaug")  # the crop has 195 pixels
            one, other = (
                training_clip(of, params, size=size, clip_size=SIZE, augment=augment)
                for of in (frames, others)
            )
            assert psnr(one, other) > (30 if others.half_level else 1e9)


def test_a_training_clip_opens_its_store_once(stores: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda name, **options: opened.append(name) or connect(name, **options)
    )
    reader(stores, 4, 80)(0)
    assert len(opened) == 1


def digest(arguments: tuple[list[Path], int]) -> str:
    folders, seed = arguments
    cv2.setNumThreads(0)
    return hashlib.sha256(reader(folders, 4, 80)(seed).tobytes()).hexdigest()


def test_equal_seeds_give_equal_clips_in_any_process_and_order(stores: list[Path]) -> None:
    seeds = list(range(24))
    here = [digest((stores, seed)) for seed in seeds]
    assert len(set(here)) == len(seeds)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(digest, [(stores, seed) for seed in seeds[::-1]], chunksize=5)
    assert there == here[::-1]
