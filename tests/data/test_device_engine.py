"""The device engine against the fused one, and that a clip is a function of its own parameters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from torch import Tensor

from data import device_engine
from data.device_engine import sent_size
from data.frame_store import EncodedFrames
from data.video_transforms import (
    AUGMENTATIONS,
    Augmentation,
    ClipParams,
    augment_batch,
    pack_params,
    sample_clip_params,
    training_clip,
)
from tests.data.test_fused_engine import detailed, psnr

CLIP_SIZE, SHORT_SIDE = 224, 294
SIZES = (80, 112, 158, 224)


def encoded(length: int = 2, height: int = SHORT_SIDE, width: int = 392) -> EncodedFrames:
    images = detailed(length, height, width)
    jpegs = [simplejpeg.encode_jpeg(image, quality=95, colorspace="BGR") for image in images]
    return EncodedFrames(Path("store"), range(length), dict(enumerate(jpegs)))


@pytest.fixture(scope="module")
def frames() -> EncodedFrames:
    return encoded()


def sampled(frames: EncodedFrames, seed: int, size: int, augment: str = "device") -> ClipParams:
    return sample_clip_params(
        frames.height,
        frames.width,
        size=size,
        clip_size=CLIP_SIZE,
        short_side=SHORT_SIDE,
        augment=augment,
        flip=True,
        generator=np.random.default_rng(seed),
    )


def sent(frames: EncodedFrames, clips: list[ClipParams], size: int) -> tuple[Tensor, Tensor]:
    """Return what workers send of clips."""
    settings = {"size": size, "clip_size": CLIP_SIZE, "augment": "device"}
    crops = [training_clip(frames, params, **settings) for params in clips]
    return torch.from_numpy(np.stack(crops)), torch.stack(
        [pack_params(params, **settings) for params in clips]
    )


def both(frames: EncodedFrames, params: ClipParams, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip as the device engine and as the fused one make it."""
    fused = training_clip(frames, params, size=size, clip_size=CLIP_SIZE, augment="fused")
    return augment_batch(*sent(frames, [params], size), size)[0].numpy(), fused


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda augmentation: augmentation.name)
def test_it_agrees_with_the_fused_engine(
    augmentation: Augmentation, size: int, frames: EncodedFrames
) -> None:
    is_noise = augmentation.name == "noise"
    if is_noise:  # on gray, so that little is clipped
        gray = simplejpeg.encode_jpeg(np.full((SHORT_SIDE, 392, 3), 127, np.uint8), colorspace="BGR")
        frames = EncodedFrames(Path("store"), [0, 0], {0: gray})
    drawn = [[(augmentation, augmentation.sample_params(np.random.default_rng(seed)))] for seed in range(8)]
    clips = [replace(sampled(frames, seed, size), augmentations=one) for seed, one in enumerate(drawn)]
    pairs = [both(frames, params, size) for params in clips]
    if not is_noise:
        assert min(psnr(*pair) for pair in pairs) >= (40 if augmentation.warp else 50)
        return
    device, fused = (np.stack(one) for one in zip(*pairs, strict=True))
    assert abs(device.mean() - fused.mean()) < 1
    assert device.std() == pytest.approx(fused.std(), rel=0.02)
    assert (device == device[:, :1, :, :, :1]).all()
    field = device[:, 0, :, :, 0] - 127.0
    for other in (field[:, 1:], field[:, :, 1:], field[1:]):  # the next row, column and clip
        rows, columns = other.shape[1:]
        assert abs((field[: len(other), :rows, :columns] * other).mean()) < 0.02 * field.var()


@pytest.mark.parametrize("size", SIZES)
def test_it_agrees_on_sampled_clips(size: int, frames: EncodedFrames) -> None:
    for seed in range(20):
        params = sampled(frames, seed, size)
        assert params == sampled(frames, seed, size, "fused")
        quiet = [(one, values) for one, values in params.augmentations if one.name != "noise"]
        assert psnr(*both(frames, replace(params, augmentations=quiet), size)) >= 40


@pytest.mark.parametrize("size", [80, 224])
def test_a_clip_does_not_depend_on_its_neighbors(
    size: int, frames: EncodedFrames, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = [sampled(frames, seed, size) for seed in range(12)]
    names = [one.name for clip in params for one, _ in clip.augmentations]
    assert min(names.count(one.name) for one in AUGMENTATIONS) > 0
    clips, augmentations = sent(frames, params, size)
    together = augment_batch(clips, augmentations, size)
    clip_values = clips.shape[1] * 3 * max(clips.shape[2], size) ** 2
    for at_once in (1, 3):
        monkeypatch.setattr(device_engine, "VALUES_AT_ONCE", at_once * clip_values)
        assert torch.equal(augment_batch(clips, augmentations, size), together)
    assert torch.equal(augment_batch(clips.flip(0), augmentations.flip(0), size), together.flip(0))
    alone = [augment_batch(clips[[i]], augmentations[[i]], size) for i in range(len(clips))]
    assert torch.equal(torch.cat(alone), together)
    assert len({clip.numpy().tobytes() for clip in together}) == len(clips)


@pytest.mark.parametrize(
    ("clip_size", "size", "side"),
    [
        (224, 80, 112),
        (224, 112, 112),
        (224, 158, 224),
        (224, 224, 224),
        (225, 112, 112),
        (113, 57, 113),
        (448, 112, 112),
    ],
)
def test_workers_send_crops_of_one_size(clip_size: int, size: int, side: int) -> None:
    """Whatever the lines of their stores are."""
    assert sent_size(clip_size, size) == side
    for height, width in ((294, 392), (240, 320), (361, 481)):
        frames = encoded(2, height, width)
        params = replace(sampled(frames, 0, size), augmentations=[])
        crop = training_clip(frames, params, size=size, clip_size=clip_size, augment="device")
        assert crop.shape == (2, side, side, 3)
        assert crop.flags.c_contiguous
