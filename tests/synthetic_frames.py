"""Synthetic frames that say who they are: each is painted with its index and label, and read back after JPEG."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from data.frame_store import write_frame_store

CELLS = 5  # a grid of 5 x 5 black or white cells: 16 bits of index, 9 of label
BITS_OF_INDEX = 16


def paint(index: int, label: int = 0, size: int = 50) -> np.ndarray:
    """uint8 `(size, size, 3)`."""
    code = index | label << BITS_OF_INDEX
    bits = np.array([code >> i & 1 for i in range(CELLS**2)], np.uint8).reshape(CELLS, CELLS)
    picture = cv2.resize(bits * 255, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.repeat(picture[:, :, None], 3, axis=2)


def read_paint(frame: np.ndarray) -> tuple[int, int]:
    """(index, label) of a painted frame `(H, W, 3)` of any size."""
    cells = (
        cv2.resize(np.ascontiguousarray(frame[:, :, 1]), (CELLS, CELLS), interpolation=cv2.INTER_AREA) > 127
    )
    code = sum(1 << i for i, bit in enumerate(cells.ravel()) if bit)
    return code & (1 << BITS_OF_INDEX) - 1, code >> BITS_OF_INDEX


def painted_jpegs(n_frames: int, label: int = 0, size: int = 50) -> list[bytes]:
    return [simplejpeg.encode_jpeg(paint(i, label, size), colorspace="BGR") for i in range(n_frames)]


def indices_of(frames: np.ndarray) -> list[int]:
    return [read_paint(frame)[0] for frame in frames]


def make_stores(root: Path, ids: dict[str, Sequence[str]], n_frames: int = 12, size: int = 50) -> None:
    """Stores `root/jpg/<class>/<id>`; the frames of the n-th class are labelled n."""
    for label, (name, videos) in enumerate(ids.items()):
        for video in videos:
            write_frame_store(root / "jpg" / name / video, painted_jpegs(n_frames, label, size))
