"""The original's recipe for reading a clip, for comparison: the pipeline of its README on a store of its format.

Every frame is decoded at full size, scaled, cropped and augmented by imgaug at full size, then shrunk, in float.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

from data.frame_store import DATABASE, jpeg_size
from data.imgaug_engine import iaa
from data.video_transforms import sample_clip_params

MEAN, STD = np.array((124, 117, 104), np.float32) / 255, 1 / (0.0167 * 255)


def write_original_store(folder: Path, jpegs: Sequence[bytes]) -> None:
    """Write a store as the original's converter does: a table without an index."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE Images (ObjId STRING, frames BLOB)")
        rows = [(f"{folder.name}/frame_{i:05d}", jpeg) for i, jpeg in enumerate(jpegs, start=1)]
        connection.executemany("INSERT INTO Images VALUES (?, ?)", rows)


def fetch_from_original_store(folder: Path, indices: Sequence[int]) -> list[bytes]:
    """Return frames as JPEGs; selecting them by name scans the table."""
    names = [f"{folder.name}/frame_{index + 1:05d}" for index in indices]
    query = f"SELECT ObjId, frames FROM Images WHERE ObjId IN ({','.join('?' * len(names))})"
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        found = dict(connection.execute(query, names).fetchall())
    return [found[name] for name in names]


def reference_clip(
    jpegs: Sequence[bytes], *, size: int, clip_size: int, short_side: int, generator: np.random.Generator
) -> np.ndarray:
    """Return a normalized clip, float32 `(3, T, size, size)`; all frames get the same augmentations.

    Augmentations and flip are sampled as for training clips, so that both pipelines do the same work with equal
    generators. The crop is another one.
    """
    params = sample_clip_params(
        *jpeg_size(jpegs[0]),
        size=size,
        clip_size=clip_size,
        short_side=short_side,
        augment="imgaug",
        flip=True,
        generator=generator,
    )
    crop_seed, order_seed = (int(seed) for seed in generator.integers(2**31, size=2))
    augmenters = [
        iaa().Resize({"shorter-side": short_side, "longer-side": "keep-aspect-ratio"}),
        iaa().CropToFixedSize(clip_size, clip_size, seed=crop_seed),
        *(augmentation.augmenter(*values) for augmentation, values in params.augmentations),
        iaa().Fliplr(float(params.flipped)),
    ]
    sequence = iaa().Sequential(augmenters, seed=order_seed).to_deterministic()
    frames = []
    for jpeg in jpegs:
        frame = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        frames.append(cv2.resize(sequence.augment_image(frame), (size, size)))
    clip = (np.stack(frames).astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(clip.transpose(3, 0, 1, 2))
