"""Synthetic frames that show their index and label, and can be read back after JPEG compression and scaling."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from data.store_writer import write_frame_store

CELLS = 5  # a grid of 5 x 5 black or white cells: 16 bits of index, 9 of label
INDEX_BITS = 16


def paint(index: int, label: int = 0, size: int = 50) -> np.ndarray:
    """Return a frame: uint8 `(size, size, 3)`."""
    code = index | label << INDEX_BITS
    bits = np.array([code >> i & 1 for i in range(CELLS**2)], np.uint8).reshape(CELLS, CELLS)
    gray = cv2.resize(bits * 255, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.repeat(gray[:, :, None], 3, axis=2)


def read_frame(frame: np.ndarray) -> tuple[int, int]:
    """Return (index, label) of a painted frame `(H, W, 3)` of any size."""
    green = np.ascontiguousarray(frame[:, :, 1])
    cells = cv2.resize(green, (CELLS, CELLS), interpolation=cv2.INTER_AREA) > 127
    code = sum(1 << i for i, bit in enumerate(cells.ravel()) if bit)
    return code & (1 << INDEX_BITS) - 1, code >> INDEX_BITS


def indices_of(frames: np.ndarray) -> list[int]:
    return [read_frame(frame)[0] for frame in frames]


def painted_jpegs(n_frames: int, label: int = 0, size: int = 50) -> list[bytes]:
    return [simplejpeg.encode_jpeg(paint(i, label, size), colorspace="BGR") for i in range(n_frames)]


def make_stores(root: Path, ids: Mapping[str, Sequence[str]], n_frames: int = 12, size: int = 50) -> None:
    """Write stores `root/jpg/<class>/<id>`; frames of the n-th class have label n."""
    for label, (name, videos) in enumerate(ids.items()):
        for video in videos:
            write_frame_store(root / "jpg" / name / video, painted_jpegs(n_frames, label, size))
