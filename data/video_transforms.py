"""Transforms of clips: random crop, flip and augmentation for training, center crop for validation.

All frames of a clip get the same. Importing this file makes imgaug importable with NumPy 2 (data/imgaug_engine.py).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import get_worker_info

from data import device_engine as device
from data import fused_engine as fused
from data import imgaug_engine as imgaug
from data.device_engine import DeviceOp, sent_size
from data.frame_store import EncodedFrames
from data.fused_engine import CropBox, resize, scale_short_side
from data.imgaug_engine import Augmenter, augment_frames, iaa

ENGINES = ("fused", "device", "imgaug", "none")  # of `--augment`
CLIP_PROBABILITY = 0.8  # of augmenting a clip at all
AUGMENTATION_PROBABILITY = 0.4  # of each augmentation, in clips that are augmented
FLIP_PROBABILITY = 0.5
VALIDATION_CROP = 256 / 294  # of the short side: the original scales it to 294 and crops 256

Params = tuple[float, ...]


@dataclass(frozen=True)
class Augmentation:
    """An augmentation: `sample_params` is called once per clip, and each engine applies the parameters it returns.

    `augmenter` builds imgaug's form. In the fused engine `warp` moves pixels and `pixel_op` changes colors; on a
    device `device_op` does, by numbers that `pack` makes of the parameters.
    """

    name: str
    sample_params: Callable[[np.random.Generator], Params]
    augmenter: Callable[..., Augmenter]
    pixel_op: Callable[..., fused.PixelOp] = fused.identity
    device_op: DeviceOp | None = None
    pack: Callable[..., Sequence[float]] = lambda *params, shrink: params
    warp: Callable[..., np.ndarray] | None = None


def _choose(values: Sequence[float], generator: np.random.Generator) -> float:
    return values[int(generator.integers(len(values)))]


def _perspective_params(generator: np.random.Generator) -> Params:
    """Return how far each corner moves inwards, x and y, as fractions of the side."""
    scale = generator.uniform(0.02, 0.05)
    return tuple(np.abs(generator.normal(0, scale, size=8)).clip(max=0.4))


# In the order of application: name, sampled parameters, and the forms of imgaug, the fused engine and a device. BGR.
AUGMENTATIONS = (
    Augmentation("blur", lambda g: (_choose((0.1, 0.2, 0.3), g),), imgaug.blur),
    Augmentation(
        "add",
        lambda g: tuple(g.integers(-5, 15, size=3, endpoint=True)),
        imgaug.brightness,
        fused.brightness,
        device.brightness,
    ),
    Augmentation(
        "noise",
        lambda g: (76.5, int(g.integers(2**31))),
        imgaug.noise,
        fused.noise,
        device.noise,
        pack=lambda scale, seed, shrink: (scale / shrink, seed),
    ),
    Augmentation(
        "color", lambda g: (g.uniform(1.2, 1.6),), imgaug.saturation, fused.saturation, device.saturation
    ),
    Augmentation(
        "motion_blur",
        lambda g: (_choose((3, 5, 7), g), g.uniform(0, 360), g.uniform(-1, 1)),
        imgaug.motion_blur,
        fused.motion_blur,
        device.motion_blur,
        pack=device.pack_motion_blur,
    ),
    Augmentation(
        "hue_saturation",
        lambda g: (int(g.integers(-16, 16, endpoint=True)),),
        imgaug.hue,
        fused.hue,
        device.hue,
    ),
    Augmentation(
        "contrast", lambda g: (g.uniform(0.85, 1.115),), imgaug.contrast, fused.contrast, device.contrast
    ),
    Augmentation("perspective", _perspective_params, imgaug.perspective, warp=fused.perspective),
    Augmentation("rotation", lambda g: (g.uniform(-10, 10),), imgaug.rotation, warp=fused.rotation),
)

# `--augment-table`: all, or those that leave a small, sharp picture: at 64 to 112 pixels noise and blur bury a person
AUGMENTATION_TABLES = {
    "full": AUGMENTATIONS,
    "light": tuple(one for one in AUGMENTATIONS if one.name not in ("blur", "noise", "motion_blur")),
}

SampledAugmentations = Sequence[tuple[Augmentation, Params]]


def sample_augmentations(generator: np.random.Generator, table: str = "full") -> SampledAugmentations:
    """Sample the augmentations of a clip from a table, and their parameters, in order of application."""
    if generator.random() >= CLIP_PROBABILITY:
        return []
    drawn = generator.random(len(AUGMENTATION_TABLES[table])) < AUGMENTATION_PROBABILITY
    chosen = itertools.compress(AUGMENTATION_TABLES[table], drawn)
    return [(one, one.sample_params(generator)) for one in chosen]


def augment_with_imgaug(frames: np.ndarray, augmentations: SampledAugmentations) -> np.ndarray:
    """Apply augmentations to every frame of `(T, H, W, 3)` with imgaug."""
    if not augmentations:
        return frames
    augmenters = [augmentation.augmenter(*params) for augmentation, params in augmentations]
    return augment_frames(frames, iaa().Sequential(augmenters, seed=0))


@dataclass(frozen=True)
class ClipParams:
    """Everything random about the pixels of a clip."""

    crop_box: CropBox
    augmentations: SampledAugmentations
    flipped: bool


def sample_clip_params(
    height: int,
    width: int,
    *,
    size: int,
    clip_size: int,
    short_side: int,
    augment: str,
    flip: bool,
    generator: np.random.Generator,
    table: str = "full",
) -> ClipParams:
    """Sample a square of `clip_size` from frames whose short side is scaled to `short_side`, flip and augmentations.

    The square is the same for every engine `augment`. It has even coordinates if it is halved in decoding.
    """
    side = max(1, round(min(height, width) * clip_size / max(short_side, clip_size)))
    top = int(generator.integers(height - side, endpoint=True))
    left = int(generator.integers(width - side, endpoint=True))
    if side >= 2 * size:
        top, left, side = (value - value % 2 for value in (top, left, side))
    flipped = flip and bool(generator.random() < FLIP_PROBABILITY)
    augmentations = sample_augmentations(generator, table) if augment != "none" else []
    return ClipParams(CropBox(top, left, side), augmentations, flipped)


def training_clip(
    frames: EncodedFrames, params: ClipParams, *, size: int, clip_size: int, augment: str
) -> np.ndarray:
    """Crop, augment and flip frames: uint8 `(T, size, size, 3)`.

    A `size` smaller than `clip_size` shows the same field of view at lower resolution. `augment` is the engine: "fused"
    decodes and resamples no more than `size` needs; "imgaug" augments frame by frame at `clip_size`. For "device" the
    clip is only cropped, with `sent_size` pixels a side, and `augment_batch` does the rest.
    """
    if augment == "imgaug":
        top, left, side = params.crop_box
        crop = frames.decode()[:, top : top + side, left : left + side]
        crop = augment_with_imgaug(resize(crop, clip_size, clip_size), params.augmentations)
        return resize(crop[:, :, ::-1] if params.flipped else crop, size, size)
    halved = params.crop_box.side >= 2 * size
    crop_box = CropBox(*(value >> halved for value in params.crop_box))
    if augment == "device":
        params, size = ClipParams(crop_box, [], flipped=False), sent_size(clip_size, size)
    shrink = clip_size / size
    out = np.empty((len(frames), size, size, 3), np.uint8)
    fused.fused_transform(
        frames.decode_each(halved, fast=True),
        out,
        crop_box=crop_box,
        warps=[one.warp(*values, clip_size=clip_size) for one, values in params.augmentations if one.warp],
        clip_size=clip_size,
        pixel_ops=[one.pixel_op(*values, size=size, shrink=shrink) for one, values in params.augmentations],
        flipped=params.flipped,
    )
    return out


def pack_params(params: ClipParams, *, size: int, clip_size: int, augment: str) -> torch.Tensor | None:
    """Return what `augment_batch` needs of a clip's parameters: float32 `(P,)`; None if `augment` is not "device"."""
    if augment != "device":
        return None
    warps = [one.warp(*values, clip_size=clip_size) for one, values in params.augmentations if one.warp]
    numbers = {one.name: one.pack(*values, shrink=clip_size / size) for one, values in params.augmentations}
    steps = [numbers.get(one.name, ()) for one in AUGMENTATIONS if one.device_op]
    return device.pack(warps, steps, params.flipped, clip_size=clip_size, size=size)


def augment_batch(clips: torch.Tensor, augmentations: torch.Tensor | None, size: int) -> torch.Tensor:
    """Finish clips that `training_clip` cropped for a device, on theirs: uint8 `(B, T, size, size, 3)`.

    `augmentations`: `pack_params` of each, `(B, P)`, on the CPU; None if nothing is left to do.
    """
    if augmentations is None:
        return clips
    ops = [one.device_op for one in AUGMENTATIONS if one.device_op]
    return device.device_transform(clips, augmentations, size, ops)


def validation_short_side(size: int) -> int:
    """Return the short side that frames are scaled to before a validation crop of `size`: 256 -> 294, 224 -> 257."""
    return round(size / VALIDATION_CROP)


def validation_clip(frames: np.ndarray, *, size: int) -> np.ndarray:
    """Return the center square of VALIDATION_CROP of the short side, scaled to `(T, size, size, 3)`."""
    frames = scale_short_side(frames, validation_short_side(size))
    top, left = ((side - size) // 2 for side in frames.shape[1:3])
    return np.ascontiguousarray(frames[:, top : top + size, left : left + size])


class Compose:
    """An imgaug augmenter for whole clips: all frames get the same augmentation, each clip another.

    `normalise` is `[means, standard deviations]` per channel, applied after division by 255. Called with uint8 frames
    `(T, H, W, 3)` and `end_size`, `(anything, H, W)`, it returns a float32 tensor `(3, T, H, W)`. In a dataloader
    worker the augmenter is seeded with the worker's seed, as all workers have copies of it.
    """

    def __init__(self, transforms: Augmenter, normalise: Sequence[Sequence[float]] | None = None) -> None:
        self.transforms = transforms
        self.normalise = (
            None if normalise is None else np.asarray(normalise, np.float32).reshape(2, 3, 1, 1, 1)
        )
        self._worker_seed: int | None = None

    def __call__(self, frames: np.ndarray, end_size: Sequence[int]) -> torch.Tensor:
        worker = get_worker_info()
        if worker is not None and worker.seed != self._worker_seed:
            self._worker_seed = worker.seed
            self.transforms.seed_(worker.seed % 2**31)
        _, height, width = end_size
        frames = resize(augment_frames(frames, self.transforms), height, width)
        clip = frames.transpose(3, 0, 1, 2).astype(np.float32) / 255
        if self.normalise is not None:
            mean, std = self.normalise
            clip = (clip - mean) / std
        return torch.from_numpy(np.ascontiguousarray(clip))
