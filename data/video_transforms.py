"""What happens to a clip: scaling, cropping, augmentation, and the numbers of each. All its frames get the same.

The only file that imports imgaug. imgaug 0.4.0 uses names that NumPy has dropped; they are put back before it is
imported, so a user's own `import imgaug` works after this one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch


def _restore_numpy_names() -> None:
    if not hasattr(np, "sctypes"):  # gone in NumPy 2.0
        np.sctypes = {
            "int": [np.int8, np.int16, np.int32, np.int64],
            "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
            "float": [np.float16, np.float32, np.float64, np.longdouble],
            "complex": [np.complex64, np.complex128, np.clongdouble],
            "others": [bool, object, bytes, str, np.void],
        }
    for name, kind in (
        ("bool", bool),
        ("int", int),
        ("float", float),
        ("complex", complex),
        ("object", object),
    ):
        if name not in vars(np):  # gone in NumPy 1.24
            setattr(np, name, kind)


_restore_numpy_names()

import imgaug.augmenters as iaa  # noqa: E402
from imgaug.parameters import DeterministicList  # noqa: E402

CLIP_PROBABILITY = 0.8  # that a clip is augmented at all
OPERATION_PROBABILITY = 0.4  # that it gets each operation, then
FLIP_PROBABILITY = 0.5

Values = tuple[float, ...]


@dataclass(frozen=True)
class Operation:
    """An augmentation: `draw` its values once for a clip, `augmenter` builds imgaug's form of it for those values."""

    name: str
    draw: Callable[[np.random.Generator], Values]
    augmenter: Callable[..., iaa.Augmenter]


def _seed(generator: np.random.Generator) -> int:
    return int(generator.integers(2**31))


# In the order in which they are applied. Frames are BGR.
AUGMENTATIONS = (
    Operation(
        "blur",
        lambda g: (g.choice((0.1, 0.2, 0.3)),),
        lambda sigma: iaa.GaussianBlur(sigma),
    ),
    Operation(
        "add",
        lambda g: tuple(g.integers(-5, 15, size=3, endpoint=True)),
        lambda *per_channel: iaa.Add(
            DeterministicList([int(value) for value in per_channel]), per_channel=True
        ),
    ),
    Operation(
        "noise",
        lambda g: (76.5, _seed(g)),
        lambda scale, seed: iaa.AdditiveGaussianNoise(scale=scale, seed=seed),
    ),
    Operation(
        "colour",
        lambda g: (g.uniform(1.2, 1.6),),
        lambda factor: iaa.WithColorspace(
            "RGB", from_colorspace="BGR", children=iaa.pillike.EnhanceColor(factor)
        ),
    ),
    Operation(
        "motion_blur",
        lambda g: (g.choice((3, 5, 7)), g.uniform(0, 360), g.uniform(-1, 1)),
        lambda kernel, angle, direction: iaa.MotionBlur(k=int(kernel), angle=angle, direction=direction),
    ),
    Operation(
        "hue_saturation",
        lambda g: (g.integers(-16, 16, endpoint=True),),
        lambda value: iaa.AddToHueAndSaturation(int(value), from_colorspace="BGR"),
    ),
    Operation(
        "contrast",
        lambda g: (g.uniform(0.85, 1.115),),
        lambda alpha: iaa.LinearContrast(alpha),
    ),
    Operation(
        "perspective",
        lambda g: (g.uniform(0.02, 0.05), _seed(g)),
        lambda scale, seed: iaa.PerspectiveTransform(scale=scale, seed=seed),
    ),
    Operation(
        "rotation",
        lambda g: (g.uniform(-10, 10),),
        lambda degrees: iaa.Rotate(degrees),
    ),
)


def draw_augmentations(generator: np.random.Generator) -> list[tuple[Operation, Values]]:
    """The operations a clip gets, with their values, in order."""
    if generator.random() >= CLIP_PROBABILITY:
        return []
    chosen = [operation for operation in AUGMENTATIONS if generator.random() < OPERATION_PROBABILITY]
    return [(operation, operation.draw(generator)) for operation in chosen]


def augment_with_imgaug(frames: np.ndarray, drawn: Sequence[tuple[Operation, Values]]) -> np.ndarray:
    """The drawn operations on every frame `(T, H, W, 3)`, by imgaug."""
    if not drawn:
        return frames
    augmenters = [operation.augmenter(*values) for operation, values in drawn]
    return _augment_alike(frames, iaa.Sequential(augmenters, seed=0))


def _augment_alike(frames: np.ndarray, augmenter: iaa.Augmenter) -> np.ndarray:
    fixed = augmenter.to_deterministic()
    return np.stack([fixed.augment_image(frame) for frame in frames])


def training_clip(
    frames: np.ndarray,
    *,
    size: int,
    clip_size: int,
    short_side: int,
    augment: str,
    flip: bool,
    generator: np.random.Generator,
) -> np.ndarray:
    """Short side to `short_side`, a random square of `clip_size`, augmentation, perhaps a mirror, then `size`.

    `frames` and the result are uint8 `(T, H, W, 3)`. A smaller `size` sees the same field of view at lower resolution.
    `augment` is "imgaug" or "none"; "none" keeps the crop and the mirror.
    """
    frames = scale_short_side(frames, max(short_side, clip_size))
    height, width = frames.shape[1:3]
    top = int(generator.integers(height - clip_size, endpoint=True))
    left = int(generator.integers(width - clip_size, endpoint=True))
    frames = frames[:, top : top + clip_size, left : left + clip_size]
    mirrored = flip and generator.random() < FLIP_PROBABILITY
    if augment == "imgaug":
        frames = augment_with_imgaug(np.ascontiguousarray(frames), draw_augmentations(generator))
    if mirrored:
        frames = frames[:, :, ::-1]
    return resize(frames, size, size)


def validation_clip(frames: np.ndarray, *, size: int, short_side: int) -> np.ndarray:
    """Short side to `short_side`, or `size` if larger, then the centre `(T, size, size, 3)`."""
    frames = scale_short_side(frames, max(short_side, size))
    top, left = ((side - size) // 2 for side in frames.shape[1:3])
    return np.ascontiguousarray(frames[:, top : top + size, left : left + size])


def scale_short_side(frames: np.ndarray, short_side: int) -> np.ndarray:
    """`(T, H, W, 3)` with its short side at `short_side`, the aspect kept."""
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    return resize(frames, max(short_side, round(height * scale)), max(short_side, round(width * scale)))


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """`(T, H, W, 3)` at another size; area averaging where it shrinks, as linear sampling aliases there."""
    if frames.shape[1:3] == (height, width):
        return np.ascontiguousarray(frames)
    shrinks = height < frames.shape[1] and width < frames.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, resized, strict=True):
        cv2.resize(np.ascontiguousarray(source), (width, height), dst=target, interpolation=method)
    return resized


class Compose:
    """An imgaug augmenter on whole clips: every frame gets the same augmentation, each clip another.

    `transforms` is any imgaug augmenter. `normalise` is `[means, deviations]`, a number a channel, applied after
    division by 255. Called as `(frames, end_size)`: uint8 `(T, H, W, 3)` and `(anything, H, W)` -> float32 `(3, T, H,
    W)`.
    """

    def __init__(self, transforms: iaa.Augmenter, normalise: Sequence[Sequence[float]] | None = None) -> None:
        if not isinstance(transforms, iaa.Augmenter):
            raise ValueError(f"transforms must be an imgaug augmenter, was given {type(transforms).__name__}")
        self.transforms = transforms
        self.normalise = (
            None if normalise is None else np.asarray(normalise, np.float32).reshape(2, 3, 1, 1, 1)
        )

    def __call__(self, frames: np.ndarray, end_size: Sequence[int]) -> torch.Tensor:
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 (T, H, W, 3), were {frames.dtype} {frames.shape}")
        _, height, width = end_size
        frames = resize(_augment_alike(frames, self.transforms), height, width)
        clip = frames.transpose(3, 0, 1, 2).astype(np.float32) / 255
        if self.normalise is not None:
            means, deviations = self.normalise
            clip = (clip - means) / deviations
        return torch.from_numpy(np.ascontiguousarray(clip))
