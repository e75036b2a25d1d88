"""Fused augmentation of clips at their output size: one resampling for all geometry, then one operation after another.

Each function takes sampled parameters. *Warps* return a 3 x 3 matrix that maps pixel indices of the crop, `clip_size`
pixels a side, to their new position. The others return a *pixel op*, which changes the colors of one frame; whatever it
needs is computed once per clip. Kernels and noise are scaled to the output: `shrink` is `clip_size / size`.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

PixelOp = Callable[[np.ndarray], object]  # changes a frame, uint8 (size, size, 3), BGR, in place
GRAY_WEIGHTS = (0.114, 0.587, 0.299)  # of blue, green and red (ITU-R 601)


class CropBox(NamedTuple):
    """A square of the source frame, in pixels."""

    top: int
    left: int
    side: int


def interpolation(source: int, target: int) -> int:
    """Return area averaging for scaling to half a side or less, where linear sampling would skip pixels."""
    return cv2.INTER_AREA if source >= 2 * target else cv2.INTER_LINEAR


def scale_short_side(frames: np.ndarray, short_side: int) -> np.ndarray:
    """Return `(T, H, W, 3)` with its short side scaled to `short_side` pixels, keeping the aspect ratio."""
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    return resize(frames, max(short_side, round(height * scale)), max(short_side, round(width * scale)))


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `(T, H, W, 3)` frames at another size."""
    if frames.shape[1:3] == (height, width):
        return np.ascontiguousarray(frames)
    method = interpolation(min(frames.shape[1:3]), min(height, width))
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, resized, strict=True):
        cv2.resize(np.ascontiguousarray(source), (width, height), dst=target, interpolation=method)
    return resized


def identity(*params: float, size: int, shrink: float) -> PixelOp:
    """Skip Gaussian blur of sigma up to 0.3: its kernel, (0.004, 0.992, 0.004), does not change 8-bit frames."""
    return lambda frame: frame


def brightness(*per_channel: float, size: int, shrink: float) -> PixelOp:
    """Add a number to each channel."""
    # separately, because OpenCV adds negative numbers in 16 bits
    plus = (*(max(0.0, float(value)) for value in per_channel), 0.0)
    minus = (*(max(0.0, float(-value)) for value in per_channel), 0.0)

    def apply(frame: np.ndarray) -> None:
        cv2.add(frame, plus, dst=frame)  # type: ignore[call-overload]  # cv2's types know no scalars
        if any(minus):
            cv2.subtract(frame, minus, dst=frame)  # type: ignore[call-overload]

    return apply


def noise(scale: float, seed: float, *, size: int, shrink: float) -> PixelOp:
    """Add Gaussian noise, equal in all channels and frames, weaker where an output pixel averages several."""
    field = np.empty((size, size), np.float32)
    cv2.setRNGSeed(int(seed))  # five times as fast as NumPy's generator
    cv2.randn(field, 0, scale / shrink)  # type: ignore[call-overload]
    plus, minus = (
        cv2.merge([cv2.multiply(field, sign, dtype=cv2.CV_8U)] * 3)  # type: ignore[call-overload]
        for sign in (1, -1)
    )
    return lambda frame: cv2.subtract(cv2.add(frame, plus, dst=frame), minus, dst=frame)


def saturation(factor: float, *, size: int, shrink: float) -> PixelOp:
    """Scale the distance from gray by `factor`, rounding down as Pillow's ImageEnhance.Color does."""
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = factor * np.eye(3) + (1 - factor) * np.array(GRAY_WEIGHTS)
    matrix[:, 3] = -0.5
    return lambda frame: cv2.transform(frame, matrix, dst=frame)


def motion_blur(kernel: float, angle: float, direction: float, *, size: int, shrink: float) -> PixelOp:
    """Blur along a line of `kernel` pixels at `angle` degrees; `direction` weights its two ends."""
    matrix = motion_kernel(kernel, angle, direction, shrink)
    return lambda frame: cv2.filter2D(frame, -1, matrix, dst=frame, borderType=cv2.BORDER_REFLECT_101)


def motion_kernel(kernel: float, angle: float, direction: float, shrink: float) -> np.ndarray:
    """Return float32 `(side, side)` with sum 1, quantized to 8 bits before rotation as in imgaug."""
    side = min(int(kernel), 2 * round((int(kernel) / shrink - 1) / 2) + 1)  # odd, and not larger
    if side < 3:
        return np.ones((1, 1), np.float32)
    end = (direction + 1) / 2
    line = np.zeros((side, side), np.float32)
    line[:, side // 2] = np.linspace(end, 1 - end, num=side)
    quantized = (line * 255).astype(np.uint8)
    center = (side / 2 - 0.5, side / 2 - 0.5)
    rotated = cv2.warpAffine(quantized, cv2.getRotationMatrix2D(center, -angle, 1), (side, side))
    return rotated.astype(np.float32) / rotated.sum(dtype=np.float32)


def hue(value: float, *, size: int, shrink: float) -> PixelOp:
    """Add `value` to hue, where 255 is the full circle, and to saturation."""
    turn = int(value / 255 * 180)
    # with red and blue exchanged hue runs backwards, so adding to it turns it back
    to_hsv, from_hsv = (
        (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR) if turn >= 0 else (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB)
    )
    shift = brightness(abs(turn), value, 0, size=size, shrink=shrink)  # hues above 180 wrap around
    hsv = np.empty((size, size, 3), np.uint8)  # one buffer for all frames is faster

    def apply(frame: np.ndarray) -> None:
        cv2.cvtColor(frame, to_hsv, dst=hsv)
        shift(hsv)
        cv2.cvtColor(hsv, from_hsv, dst=frame)

    return apply


def contrast(alpha: float, *, size: int, shrink: float) -> PixelOp:
    """Scale the distance from 127 by `alpha`, rounding down."""
    offset = 127 * (1 - alpha) - 0.499  # turns rounding to nearest into rounding down, and keeps 127
    return lambda frame: cv2.addWeighted(frame, alpha, frame, 0, offset, dst=frame)


def perspective(*offsets: float, clip_size: int) -> np.ndarray:
    """Move points to the crop's corners that lie inwards of them by (x, y) fractions, clockwise from top left."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32) * np.reshape(offsets, (4, 2))
    source = ((corners + inwards) * clip_size).astype(np.float32)
    return cv2.getPerspectiveTransform(source, corners * clip_size)


def rotation(degrees: float, *, clip_size: int) -> np.ndarray:
    """Rotate clockwise about the center."""
    center = clip_size / 2 - 0.5
    return np.vstack([cv2.getRotationMatrix2D((center, center), -degrees, 1), (0, 0, 1)])


def fused_transform(
    frames: Iterable[tuple[list[int], np.ndarray]],
    out: np.ndarray,
    *,
    crop_box: CropBox,
    warps: Sequence[np.ndarray],
    clip_size: int,
    pixel_ops: Sequence[PixelOp],
    flipped: bool,
) -> None:
    """Crop, warp, resize, recolor and flip each of (positions, frame) into `out`, `(T, size, size, 3)`.

    `warps` are applied in order, in pixel indices of a crop of `clip_size`; what lies outside of the crop is black.
    """
    size = out.shape[1]
    top, left, side = crop_box
    method = interpolation(side, size)
    # remap averages only four pixels, so a much larger crop is shrunk first
    shrink_first = bool(warps) and method == cv2.INTER_AREA
    maps = _remap_tables(warps, size if shrink_first else side, clip_size, size) if warps else None
    for positions, frame in frames:
        crop = frame[top : top + side, left : left + side]
        if shrink_first:
            crop = cv2.resize(crop, (size, size), interpolation=method)
        target = out[positions[0]]
        if maps is not None:
            cv2.remap(crop, *maps, cv2.INTER_LINEAR, dst=target, borderMode=cv2.BORDER_CONSTANT)
        else:
            cv2.resize(crop, (size, size), dst=target, interpolation=method)
        for pixel_op in pixel_ops:
            pixel_op(target)
        if flipped:
            cv2.flip(target, 1, dst=target)
        for position in positions[1:]:
            out[position] = target


def _remap_tables(
    warps: Sequence[np.ndarray], side: int, clip_size: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where in a crop of `side` pixels each output pixel comes from, as fixed-point tables for cv2.remap."""
    backward = backward_matrix(warps, side, clip_size, size)
    indices = np.arange(size, dtype=np.float32)
    x, y, z = (
        (row[0] * indices)[None, :] + (row[1] * indices + row[2])[:, None]
        for row in backward.astype(np.float32)
    )
    return cv2.convertMaps(x / z, y / z, cv2.CV_16SC2)


def backward_matrix(warps: Sequence[np.ndarray], side: int, clip_size: int, size: int) -> np.ndarray:
    """Return the 3 x 3 matrix that maps pixel indices of the output to those of a crop of `side` pixels."""
    forward = _scaling(side, clip_size)
    for warp in warps:
        forward = warp @ forward
    return cv2.invert(_scaling(clip_size, size) @ forward)[1]


def _scaling(source: float, target: float) -> np.ndarray:
    """Map pixel indices of one size to those of another; index 0 is the center of the first pixel."""
    factor = target / source
    return np.array([[factor, 0, factor / 2 - 0.5], [0, factor, factor / 2 - 0.5], [0, 0, 1]])
