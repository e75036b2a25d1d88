"""What happens to a clip: scaling, cropping, augmentation, and the numbers of each. All its frames get the same.

The only file that imports imgaug, and only where it is used. imgaug 0.4.0 uses names that NumPy has dropped; they are
put back at once, so a user's own `import imgaug` works after importing this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import get_worker_info

from data import augmentation as fused
from data.augmentation import resize, scale_short_side
from data.frame_store import EncodedFrames


def _restore_numpy_names() -> None:
    if not hasattr(np, "sctypes"):  # gone in NumPy 2.0
        np.sctypes = {
            "int": [np.int8, np.int16, np.int32, np.int64],
            "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
            "float": [np.float16, np.float32, np.float64, np.longdouble],
            "complex": [np.complex64, np.complex128, np.clongdouble],
            "others": [bool, object, bytes, str, np.void],
        }
    for kind in (bool, int, float, complex, object):
        if kind.__name__ not in vars(np):  # gone in NumPy 1.24
            setattr(np, kind.__name__, kind)


_restore_numpy_names()
if TYPE_CHECKING:
    from imgaug.augmenters import Augmenter


def iaa() -> ModuleType:
    """imgaug.augmenters, imported where they are used: a second, with scipy and skimage, that most runs save."""
    import imgaug.augmenters  # noqa: PLC0415

    return imgaug.augmenters


CLIP_PROBABILITY = 0.8  # that a clip is augmented at all
OPERATION_PROBABILITY = 0.4  # that it gets each operation, then
FLIP_PROBABILITY = 0.5

Values = tuple[float, ...]


@dataclass(frozen=True)
class Operation:
    """An augmentation: `draw` its values once for a clip, and its forms for those values in both engines.

    `augmenter` builds imgaug's. Of the fused engine (data/augmentation.py) `warp` moves pixels, `painter` changes colors.
    """

    name: str
    draw: Callable[[np.random.Generator], Values]
    augmenter: Callable[..., Augmenter]
    painter: Callable[..., fused.PixelOp | None] = fused.identity
    warp: Callable[..., np.ndarray] | None = None


def _given_perspective(*offsets: float) -> Augmenter:
    """With a given matrix, at full size: imgaug's own draws one, and resamples twice."""

    class GivenPerspective(iaa().PerspectiveTransform):
        def _draw_samples(self, shapes: list[tuple[int, ...]], random_state: object) -> object:
            samples = super()._draw_samples(shapes, random_state)
            samples.max_heights = samples.max_widths = [shape[0] for shape in shapes]
            samples.matrices = [fused.perspective(*offsets, clip_size=side) for side in samples.max_heights]
            return samples

    return GivenPerspective(scale=0.01, keep_size=False)


def _one_of(values: Sequence[float], generator: np.random.Generator) -> float:
    return values[generator.integers(len(values))]


def _seed(generator: np.random.Generator) -> int:
    return int(generator.integers(2**31))


def _draw_perspective(generator: np.random.Generator) -> Values:
    """How far each corner moves inwards, x and y, in shares of the side."""
    scale = generator.uniform(0.02, 0.05)
    return tuple(np.abs(generator.normal(0, scale, size=8)).clip(max=0.4))


# In the order in which they are applied. Frames are BGR.
AUGMENTATIONS = (
    Operation(
        "blur",
        draw=lambda g: (_one_of((0.1, 0.2, 0.3), g),),
        augmenter=lambda sigma: iaa().GaussianBlur(sigma),
    ),
    Operation(
        "add",
        draw=lambda g: tuple(g.integers(-5, 15, size=3, endpoint=True)),
        augmenter=lambda *per_channel: iaa().Add(
            iaa().iap.DeterministicList([int(value) for value in per_channel]), per_channel=True
        ),
        painter=fused.added,
    ),
    Operation(
        "noise",
        draw=lambda g: (76.5, _seed(g)),
        augmenter=lambda scale, seed: iaa().AdditiveGaussianNoise(scale=scale, seed=seed),
        painter=fused.noise,
    ),
    Operation(
        "color",
        draw=lambda g: (g.uniform(1.2, 1.6),),
        augmenter=lambda factor: iaa().WithColorspace(
            "RGB", from_colorspace="BGR", children=iaa().pillike.EnhanceColor(factor)
        ),
        painter=fused.colored,
    ),
    Operation(
        "motion_blur",
        draw=lambda g: (_one_of((3, 5, 7), g), g.uniform(0, 360), g.uniform(-1, 1)),
        augmenter=lambda kernel, angle, direction: iaa().MotionBlur(
            k=int(kernel), angle=angle, direction=direction
        ),
        painter=fused.motion_blurred,
    ),
    Operation(
        "hue_saturation",
        draw=lambda g: (g.integers(-16, 16, endpoint=True),),
        augmenter=lambda value: iaa().AddToHueAndSaturation(int(value), from_colorspace="BGR"),
        painter=fused.hue_shifted,
    ),
    Operation(
        "contrast",
        draw=lambda g: (g.uniform(0.85, 1.115),),
        augmenter=lambda alpha: iaa().LinearContrast(alpha),
        painter=fused.contrasted,
    ),
    Operation(
        "perspective",
        draw=_draw_perspective,
        augmenter=_given_perspective,
        warp=fused.perspective,
    ),
    Operation(
        "rotation",
        draw=lambda g: (g.uniform(-10, 10),),
        augmenter=lambda degrees: iaa().Rotate(degrees),
        warp=fused.rotation,
    ),
)

Drawn = Sequence[tuple[Operation, Values]]


def sample_augmentations(generator: np.random.Generator) -> Drawn:
    """The operations a clip gets, with their values, in order."""
    if generator.random() >= CLIP_PROBABILITY:
        return []
    chosen = [operation for operation in AUGMENTATIONS if generator.random() < OPERATION_PROBABILITY]
    return [(operation, operation.draw(generator)) for operation in chosen]


def augment_with_imgaug(frames: np.ndarray, drawn: Drawn) -> np.ndarray:
    """The drawn operations on every frame `(T, H, W, 3)`, by imgaug."""
    if not drawn:
        return frames
    augmenters = [operation.augmenter(*values) for operation, values in drawn]
    return _augment_alike(frames, iaa().Sequential(augmenters, seed=0))


def _augment_alike(frames: np.ndarray, augmenter: Augmenter) -> np.ndarray:
    fixed = augmenter.to_deterministic()
    return np.stack([fixed.augment_image(frame) for frame in frames])


def training_clip(
    frames: EncodedFrames,
    *,
    size: int,
    clip_size: int,
    short_side: int,
    augment: str,
    flip: bool,
    generator: np.random.Generator,
) -> np.ndarray:
    """A random square of `clip_size` of frames with a short side of `short_side`, augmented, perhaps mirrored.

    uint8 `(T, size, size, 3)`: a smaller `size` sees the same field of view at lower resolution. `augment` is an
    engine: "fused", which decodes and resamples no more than `size` needs, "imgaug", or "none", which keeps the crop
    and the mirror. With the same generator all of them see the same square.
    """
    draw = sample_clip_params(
        frames.height,
        frames.width,
        size=size,
        clip_size=clip_size,
        short_side=short_side,
        augment=augment,
        flip=flip,
        generator=generator,
    )
    if augment == "imgaug":
        return _clip_by_imgaug(frames.decode(), draw.window, draw.drawn, draw.mirrored, clip_size, size)
    return _clip_by_fusing(frames, draw.window, draw.drawn, draw.mirrored, clip_size, size)


@dataclass(frozen=True)
class ClipParams:
    """What is random in a clip's pictures: the square of the source, the operations with their values, the mirror."""

    window: fused.Window
    drawn: Drawn
    mirrored: bool


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
) -> ClipParams:
    """What `training_clip` draws with the same generator for frames of that size."""
    window = _draw_window(height, width, size, clip_size, max(short_side, clip_size), generator)
    mirrored = flip and bool(generator.random() < FLIP_PROBABILITY)
    return ClipParams(window, sample_augmentations(generator) if augment != "none" else [], mirrored)


def _draw_window(
    height: int, width: int, size: int, clip_size: int, short_side: int, generator: np.random.Generator
) -> fused.Window:
    """The square of the source; on even pixels if it is halved in decoding."""
    side = max(1, round(min(height, width) * clip_size / short_side))
    top = int(generator.integers(height - side, endpoint=True))
    left = int(generator.integers(width - side, endpoint=True))
    if side >= 2 * size:
        top, left, side = (value - value % 2 for value in (top, left, side))
    return top, left, side


def _clip_by_imgaug(
    frames: np.ndarray, window: fused.Window, drawn: Drawn, mirrored: bool, clip_size: int, size: int
) -> np.ndarray:
    top, left, side = window
    crop = frames[:, top : top + side, left : left + side]
    crop = augment_with_imgaug(resize(crop, clip_size, clip_size), drawn)
    return resize(crop[:, :, ::-1] if mirrored else crop, size, size)


def _clip_by_fusing(
    frames: EncodedFrames, window: fused.Window, drawn: Drawn, mirrored: bool, clip_size: int, size: int
) -> np.ndarray:
    halved = window[2] >= 2 * size
    if halved:
        window = tuple(value // 2 for value in window)
    painters = (operation.painter(*values, size=size, shrink=clip_size / size) for operation, values in drawn)
    out = np.empty((len(frames), size, size, 3), np.uint8)
    fused.fuse(
        frames.decode_each(halved),
        out,
        window=window,
        warps=[operation.warp(*values, clip_size=clip_size) for operation, values in drawn if operation.warp],
        clip_size=clip_size,
        painters=[painter for painter in painters if painter is not None],
        mirrored=mirrored,
    )
    return out


def validation_clip(frames: np.ndarray, *, size: int, short_side: int) -> np.ndarray:
    """Short side to `short_side`, or `size` if larger, then the centre `(T, size, size, 3)`."""
    frames = scale_short_side(frames, max(short_side, size))
    top, left = ((side - size) // 2 for side in frames.shape[1:3])
    return np.ascontiguousarray(frames[:, top : top + size, left : left + size])


class Compose:
    """An imgaug augmenter on whole clips: every frame gets the same augmentation, each clip another. In a loader's
    worker the augmenter is seeded with the worker's seed.

    `transforms` is any imgaug augmenter. `normalise` is `[means, deviations]`, a number a channel, applied after
    division by 255. Called as `(frames, end_size)`: uint8 `(T, H, W, 3)` and `(anything, H, W)` -> float32 `(3, T, H,
    W)`.
    """

    def __init__(self, transforms: Augmenter, normalise: Sequence[Sequence[float]] | None = None) -> None:
        if not isinstance(transforms, iaa().Augmenter):
            raise ValueError(f"transforms must be an imgaug augmenter, was given {type(transforms).__name__}")
        self.transforms = transforms
        self._worker: int | None = None
        self.normalise = (
            None if normalise is None else np.asarray(normalise, np.float32).reshape(2, 3, 1, 1, 1)
        )

    def __call__(self, frames: np.ndarray, end_size: Sequence[int]) -> torch.Tensor:
        frames = np.asarray(frames)
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(f"frames must be uint8 (T, H, W, 3), were {frames.dtype} {frames.shape}")
        worker = get_worker_info()
        if (
            worker is not None and worker.seed != self._worker
        ):  # they are copies, which would all draw the same
            self._worker = worker.seed
            self.transforms.seed_(worker.seed % 2**31)
        _, height, width = end_size
        frames = resize(_augment_alike(frames, self.transforms), height, width)
        clip = frames.transpose(3, 0, 1, 2).astype(np.float32) / 255
        if self.normalise is not None:
            means, deviations = self.normalise
            clip = (clip - means) / deviations
        return torch.from_numpy(np.ascontiguousarray(clip))
