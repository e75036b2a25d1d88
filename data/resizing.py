"""Frames at another size. Where they are augmented as well, data/fused.py resamples them once for both."""

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
