"""How the original reads a clip, for comparison: the recipe of its README, and its converter's layout on the disk.

Every frame is decoded whole, scaled, cropped and augmented by imgaug at full size, then shrunk, in float.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from data.frame_store import DATABASE, jpeg_size
from data.video_transforms import iaa, sample_clip_params

MEANS, DEVIATIONS = np.array((124, 117, 104), np.float32) / 255, 1 / (0.0167 * 255)


def write_original_store(folder: Path, jpegs: Sequence[bytes]) -> None:
    """A table without a key, as the original's converter makes it."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("CREATE TABLE Images (ObjId STRING, frames BLOB)")
        rows = [(f"{folder.name}/frame_{i:05d}", jpeg) for i, jpeg in enumerate(jpegs, start=1)]
        connection.executemany("INSERT INTO Images VALUES (?, ?)", rows)
        connection.commit()


def write_jpeg_files(folder: Path, jpegs: Sequence[bytes]) -> None:
    """A file a frame."""
    folder.mkdir(parents=True)
    for i, jpeg in enumerate(jpegs, start=1):
        (folder / f"frame_{i:05d}.jpg").write_bytes(jpeg)


def fetch_from_store(folder: Path, indices: Sequence[int]) -> list[bytes]:
    """By name, which scans the table."""
    names = [f"{folder.name}/frame_{index + 1:05d}" for index in indices]
    query = f"SELECT ObjId, frames FROM Images WHERE ObjId IN ({','.join('?' * len(names))})"
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        found = dict(connection.execute(query, names).fetchall())
    return [found[name] for name in names]


def fetch_from_files(folder: Path, indices: Sequence[int]) -> list[bytes]:
    return [(folder / f"frame_{index + 1:05d}.jpg").read_bytes() for index in indices]


def reference_clip(
    jpegs: Sequence[bytes], *, size: int, clip_size: int, short_side: int, generator: np.random.Generator
) -> np.ndarray:
    """float32 `(3, T, size, size)`, normalised. All frames get the same.

    Which operations, and whether it is mirrored, is drawn as `training_clip` draws it, so that both do the same work
    for the same generator; the square is another.
    """
    height, width = jpeg_size(jpegs[0])
    draw = sample_clip_params(
        height,
        width,
        size=size,
        clip_size=clip_size,
        short_side=short_side,
        augment="imgaug",
        flip=True,
        generator=generator,
    )
    crop, order = (int(seed) for seed in generator.integers(2**31, size=2))
    augmenters = [
        iaa().Resize({"shorter-side": short_side, "longer-side": "keep-aspect-ratio"}),
        iaa().CropToFixedSize(clip_size, clip_size, seed=crop),
        *(operation.augmenter(*values) for operation, values in draw.drawn),
        iaa().Fliplr(float(draw.mirrored)),
    ]
    sequence = iaa().Sequential(augmenters, seed=order).to_deterministic()
    frames = []
    for jpeg in jpegs:
        frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        frames.append(cv2.resize(sequence.augment_image(frame), (size, size)))
    clip = (np.stack(frames).astype(np.float32) / 255 - MEANS) / DEVIATIONS
    return np.ascontiguousarray(clip.transpose(3, 0, 1, 2))
