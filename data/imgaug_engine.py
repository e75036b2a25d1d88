"""imgaug's form of each augmentation, applied frame by frame. The only file that imports imgaug, and only when used.

imgaug 0.4.0 uses names that NumPy has removed. Importing this file restores them, so that `import imgaug` works
afterwards in a user's own code too.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import cv2
import numpy as np

from data import fused_engine


def _restore_numpy_names() -> None:
    if not hasattr(np, "sctypes"):  # removed in NumPy 2.0
        np.sctypes = {  # type: ignore[attr-defined]
            "int": [np.int8, np.int16, np.int32, np.int64],
            "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
            "float": [np.float16, np.float32, np.float64, np.longdouble],
            "complex": [np.complex64, np.complex128, np.clongdouble],
            "others": [bool, object, bytes, str, np.void],
        }
    for kind in (bool, int, float, complex, object):
        if kind.__name__ not in vars(np):  # removed in NumPy 1.24
            setattr(np, kind.__name__, kind)


_restore_numpy_names()
Augmenter: TypeAlias = Any  # imgaug.augmenters.Augmenter


def iaa() -> ModuleType:
    """Return imgaug.augmenters. Importing it takes a second, with scipy and skimage, and most runs do not need it."""
    import imgaug.augmenters  # noqa: PLC0415

    return imgaug.augmenters


def blur(sigma: float) -> Augmenter:
    return iaa().GaussianBlur(sigma)


def brightness(*per_channel: float) -> Augmenter:
    values = iaa().iap.DeterministicList([int(value) for value in per_channel])
    return iaa().Add(values, per_channel=True)


def noise(scale: float, seed: float) -> Augmenter:
    return iaa().AdditiveGaussianNoise(scale=scale, seed=seed)


def saturation(factor: float) -> Augmenter:
    children = iaa().pillike.EnhanceColor(factor)
    return iaa().WithColorspace("RGB", from_colorspace="BGR", children=children)


def motion_blur(kernel: float, angle: float, direction: float) -> Augmenter:
    return iaa().MotionBlur(k=int(kernel), angle=angle, direction=direction)


def hue(value: float) -> Augmenter:
    return iaa().AddToHueAndSaturation(int(value), from_colorspace="BGR")


def contrast(alpha: float) -> Augmenter:
    return iaa().LinearContrast(alpha)


def perspective(*offsets: float) -> Augmenter:
    """Warp by a given matrix: imgaug's PerspectiveTransform samples its own, and resamples twice."""

    def warp(images: Sequence[np.ndarray], *_: object) -> list[np.ndarray]:
        matrices = [fused_engine.perspective(*offsets, clip_size=len(image)) for image in images]
        return [
            cv2.warpPerspective(image, matrix, image.shape[1::-1])
            for image, matrix in zip(images, matrices, strict=True)
        ]

    return iaa().Lambda(func_images=warp)


def rotation(degrees: float) -> Augmenter:
    return iaa().Rotate(degrees)


def augment_frames(frames: np.ndarray, augmenter: Augmenter) -> np.ndarray:
    """Apply an augmenter to frames `(T, H, W, 3)`, with the same random values in each."""
    deterministic = augmenter.to_deterministic()
    return np.stack([deterministic.augment_image(frame) for frame in frames])
