"""Augmentation of whole clips at the size at which they are seen: one resampling, then each operation frame by frame.

Every function takes an operation's drawn values and gives its form for this engine. A *warp* is a 3 x 3 matrix that
takes pixel indices of the crop, `clip_size` pixels a side, to where they are moved. A *painter* changes one frame,
uint8 `(size, size, 3)`, BGR; what it needs is made once a clip. What works on neighbourhoods shrinks with the clip:
`shrink` is `clip_size / size`.
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np


def resize_method(source: int, target: int) -> int:
    """Area averaging where a side shrinks to half or less, where linear sampling would pass over pixels."""
    return cv2.INTER_AREA if source >= 2 * target else cv2.INTER_LINEAR


def scale_short_side(frames: np.ndarray, short_side: int) -> np.ndarray:
    """`(T, H, W, 3)` with its short side at `short_side`, the aspect kept."""
    height, width = frames.shape[1:3]
    scale = short_side / min(height, width)
    return resize(frames, max(short_side, round(height * scale)), max(short_side, round(width * scale)))


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """`(T, H, W, 3)` at another size, by the method that `resize_method` says."""
    if frames.shape[1:3] == (height, width):
        return np.ascontiguousarray(frames)
    method = resize_method(min(frames.shape[1:3]), min(height, width))
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for source, target in zip(frames, resized, strict=True):
        cv2.resize(np.ascontiguousarray(source), (width, height), dst=target, interpolation=method)
    return resized


PixelOp = Callable[[np.ndarray], np.ndarray]  # changes its argument in place, and returns it
Window = tuple[int, int, int]  # top, left, side: a square of the source
WEIGHTS = (0.114, 0.587, 0.299)  # of blue, green and red in a grey value (ITU-R 601)


def identity(*values: float, size: int, shrink: float) -> None:
    """Gaussian blur of sigma up to 0.3: its kernel, (0.004, 0.992, 0.004), leaves 8-bit pictures as they are."""


def added(*per_channel: float, size: int, shrink: float) -> PixelOp:
    """Add a number to each channel."""
    # apart, because a sum with negative numbers is taken in 16 bits
    more = (*(max(0.0, float(value)) for value in per_channel), 0.0)
    less = (*(max(0.0, float(-value)) for value in per_channel), 0.0)

    def paint(frame: np.ndarray) -> np.ndarray:
        cv2.add(frame, more, dst=frame)
        return cv2.subtract(frame, less, dst=frame) if any(less) else frame

    return paint


def noise(scale: float, seed: float, *, size: int, shrink: float) -> PixelOp:
    """Gaussian noise, the same in all channels and frames; a mean of several pixels has less of it."""
    field = np.empty((size, size), np.float32)
    cv2.setRNGSeed(int(seed))  # five times as fast as NumPy's
    cv2.randn(field, 0, scale / shrink)
    more, less = (cv2.merge([cv2.multiply(field, sign, dtype=cv2.CV_8U)] * 3) for sign in (1, -1))
    return lambda frame: cv2.subtract(cv2.add(frame, more, dst=frame), less, dst=frame)


def colored(factor: float, *, size: int, shrink: float) -> PixelOp:
    """Away from grey by `factor`, as Pillow's ImageEnhance.Color, which rounds down."""
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = factor * np.eye(3) + (1 - factor) * np.array(WEIGHTS)
    matrix[:, 3] = -0.5
    return lambda frame: cv2.transform(frame, matrix, dst=frame)


def motion_blurred(
    kernel: float, angle: float, direction: float, *, size: int, shrink: float
) -> PixelOp | None:
    """Blur along a line through a square of `kernel` pixels, turned by `angle` degrees, heavier at one of its ends."""
    side = 2 * round((int(kernel) / shrink - 1) / 2) + 1  # odd
    if side < 3:
        return None
    matrix = motion_kernel(side, angle, direction)
    return lambda frame: cv2.filter2D(frame, -1, matrix, dst=frame, borderType=cv2.BORDER_REFLECT_101)


def motion_kernel(side: int, angle: float, direction: float) -> np.ndarray:
    """`(side, side)`, of sum 1, in steps of 1/255 before that, as imgaug's."""
    end = (direction + 1) / 2
    line = np.zeros((side, side), np.float32)
    line[:, side // 2] = np.linspace(end, 1 - end, num=side)
    steps = (line * 255).astype(np.uint8)
    middle = (side / 2 - 0.5, side / 2 - 0.5)
    turned = cv2.warpAffine(steps, cv2.getRotationMatrix2D(middle, -angle, 1), (side, side)).astype(
        np.float32
    )
    return turned / turned.sum()


def hue_shifted(value: float, *, size: int, shrink: float) -> PixelOp:
    """Add to hue, of 255 around the circle, and to saturation."""
    turn = int(value / 255 * 180)
    # seen with red and blue exchanged hue runs the other way round: adding turns it back
    towards, back = (
        (cv2.COLOR_BGR2HSV, cv2.COLOR_HSV2BGR) if turn >= 0 else (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB)
    )
    more, less = (abs(turn), max(0.0, float(value)), 0.0, 0.0), (0.0, max(0.0, float(-value)), 0.0, 0.0)
    colors = np.empty((size, size, 3), np.uint8)  # for all frames: touching new memory costs more

    def paint(frame: np.ndarray) -> np.ndarray:
        cv2.cvtColor(frame, towards, dst=colors)
        cv2.add(colors, more, dst=colors)  # hues over 180 go on around the circle
        cv2.subtract(colors, less, dst=colors)
        return cv2.cvtColor(colors, back, dst=frame)

    return paint


def contrasted(alpha: float, *, size: int, shrink: float) -> PixelOp:
    """Away from 127 by `alpha`, rounded down."""
    rest = 127 * (1 - alpha) - 0.499  # which makes down of nearest, and leaves 127
    return lambda frame: cv2.addWeighted(frame, alpha, frame, 0, rest, dst=frame)


def perspective(*offsets: float, clip_size: int) -> np.ndarray:
    """Corners that lie inwards by shares of the side, (x, y) from top left clockwise, go to the crop's corners."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32) * np.reshape(offsets, (4, 2))
    seen = ((corners + inwards) * clip_size).astype(np.float32)
    return cv2.getPerspectiveTransform(seen, corners * clip_size)


def rotation(degrees: float, *, clip_size: int) -> np.ndarray:
    """Clockwise about the middle."""
    middle = clip_size / 2 - 0.5
    return np.vstack([cv2.getRotationMatrix2D((middle, middle), -degrees, 1), (0, 0, 1)])


def fuse(
    frames: Iterable[tuple[list[int], np.ndarray]],
    out: np.ndarray,
    *,
    window: Window,
    warps: Iterable[np.ndarray],
    clip_size: int,
    painters: Iterable[PixelOp],
    mirrored: bool,
) -> None:
    """Fill `out` `(T, size, size, 3)` from (places, frame) pairs: the window of each, warped, painted and mirrored.

    `warps` come one after the other, in indices of a crop of `clip_size` pixels; what is outside of the crop is black.
    """
    size = out.shape[1]
    top, left, side = window
    painters, warps = list(painters), list(warps)
    method = resize_method(side, size)
    # a warp takes the mean of four pixels: where the window has more for one of the output, it is shrunk before
    shrunk = bool(warps) and method == cv2.INTER_AREA
    maps = _fixed_point_map(warps, size if shrunk else side, clip_size, size)
    for places, frame in frames:
        crop = frame[top : top + side, left : left + side]
        if shrunk:
            crop = cv2.resize(crop, (size, size), interpolation=method)
        target = out[places[0]]
        if maps is not None:
            cv2.remap(crop, *maps, cv2.INTER_LINEAR, dst=target, borderMode=cv2.BORDER_CONSTANT)
        else:
            cv2.resize(crop, (size, size), dst=target, interpolation=method)
        for painter in painters:
            painter(target)
        if mirrored:
            cv2.flip(target, 1, dst=target)
        out[places[1:]] = target


def _fixed_point_map(
    warps: list[np.ndarray], side: int, clip_size: int, size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """For each pixel of the output where it comes from in the window, as cv2.remap likes it; None without warps."""
    if not warps:
        return None
    forward = _scaling(side, clip_size)  # from the window to the crop
    for warp in warps:
        forward = warp @ forward
    _, back = cv2.invert(_scaling(clip_size, size) @ forward)
    indices = np.arange(size, dtype=np.float32)
    x, y, z = (
        (row[0] * indices)[None, :] + (row[1] * indices + row[2])[:, None] for row in back.astype(np.float32)
    )
    return cv2.convertMaps(x / z, y / z, cv2.CV_16SC2)


def _scaling(source: float, target: float) -> np.ndarray:
    """Pixel indices of one size to those of another: middles of pixels lie at halves."""
    factor = target / source
    return np.array([[factor, 0, factor / 2 - 0.5], [0, factor, factor / 2 - 0.5], [0, 0, 1]])
