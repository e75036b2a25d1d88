"""python -m data.benchmark [--videos FOLDER] [--quality 3] [--rounds 15] [--json FILE]

How fast clips are read, augmentations and all, beside the original's recipe on the same frames: clips a second of one
process on one core, and how many times the recipe's. Frames are 360 lines high.

Variants take turns, a few clips each, the same ones with the same operations; ratios are taken turn by turn, and
medians and quartiles of them reported. Makes its own videos where none are given.
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.benchmark.reference_pipeline import fetch_from_files, fetch_from_store, reference_clip
from data.benchmark.test_videos import LINES, Sources, jpegs_of, made, make_videos
from data.convert.converter import Job, convert_video
from data.frame_store import FrameStore, write_frame_store
from data.video_iterator import Sample, make_loader, read_training_clip
from data.video_sampler import random_clip

SHAPES = ((4, 80), (8, 112), (16, 158), (16, 224))  # frames, pixels: those of multigrid at 16 x 224
INTERVAL, CLIP_SIZE, SHORT_SIDE = 2, 224, 294
CLIPS_A_TURN = 16
Reader = Callable[[int], object]  # seed -> clip


class Ratio(NamedTuple):
    """Of two rates, turn by turn: the median and the quartiles; and clips a second of the first."""

    times: float
    low: float
    high: float
    clips_per_second: float


def reader(
    folders: Sequence[Path],
    length: int,
    size: int,
    interval: int = INTERVAL,
    clip_size: int = CLIP_SIZE,
    short_side: int = SHORT_SIDE,
    augment: str = "fused",
) -> Callable[[int], np.ndarray]:
    """`seed` -> uint8 `(length, size, size, 3)`: exactly what a training worker does for a clip of the stores."""

    def read(seed: int) -> np.ndarray:
        return read_training_clip(
            Path(folders[seed % len(folders)]),
            length=length,
            size=size,
            seed=seed,
            base_length=length,
            intervals=[interval],
            clip_size=clip_size,
            short_side=short_side,
            augment=augment,
            flip=True,
        )

    return read


def variants(sources: Sources, length: int, size: int) -> dict[str, Reader]:
    """Everything that is timed at one shape, the baseline first."""

    def indices(seed: int) -> tuple[int, list[int], np.random.Generator]:
        which, generator = seed % len(sources.frames), np.random.default_rng(seed)
        return which, random_clip(sources.frames[which], length, [INTERVAL], generator), generator

    def original(folders: list[Path], fetch: Callable[[Path, list[int]], list[bytes]]) -> Reader:
        def read(seed: int) -> np.ndarray:
            which, chosen, generator = indices(seed)
            return reference_clip(
                fetch(folders[which], chosen),
                size=size,
                clip_size=CLIP_SIZE,
                short_side=SHORT_SIDE,
                generator=generator,
            )

        return read

    def decode_alone(seed: int) -> None:
        which, chosen, _ = indices(seed)
        frames = FrameStore(sources.stores[which]).fetch(chosen)
        side = min(frames.height, frames.width) * CLIP_SIZE / SHORT_SIDE
        for _ in frames.decode_each(halved=side >= 2 * size):
            pass

    def decode_video(seed: int) -> list[np.ndarray]:
        which, chosen, _ = indices(seed)
        capture = cv2.VideoCapture(str(sources.videos[which]))
        capture.set(cv2.CAP_PROP_POS_FRAMES, chosen[0])
        frames = [capture.read()[1] for _ in range(chosen[-1] - chosen[0] + 1)]
        capture.release()
        return frames[::INTERVAL]

    return {
        "original recipe, SQLite": original(sources.originals, fetch_from_store),
        "original recipe, JPEG files": original(sources.files, fetch_from_files),
        "ours, imgaug": reader(sources.stores, length, size, augment="imgaug"),
        "ours, fused": reader(sources.stores, length, size),
        "ours, not augmented": reader(sources.stores, length, size, augment="none"),
        "limit: fetch and decode alone": decode_alone,
        "source video: seek and decode alone": decode_video,
    }


def compare(readers: dict[str, Reader], rounds: int) -> dict[str, Ratio]:
    """Each against the first one; all take a turn in every round, with the same seeds, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for turn in range(-1, rounds):
        for name, read in readers.items():
            started = time.perf_counter()
            for clip in range(CLIPS_A_TURN):
                read((turn + 1) * CLIPS_A_TURN + clip)
            if turn >= 0:
                seconds[name].append((time.perf_counter() - started) / CLIPS_A_TURN)
    first = seconds[next(iter(readers))]
    results = {}
    for name, own in seconds.items():
        low, middle, high = statistics.quantiles(
            [a / b for a, b in zip(first, own, strict=True)], n=4, method="inclusive"
        )
        results[name] = Ratio(middle, low, high, 1 / statistics.median(own))
    return results


class _Clips(Dataset[Sample]):
    def __init__(self, read: Callable[[int], np.ndarray]) -> None:
        self.read = read

    def __getitem__(self, seed: int) -> Sample:
        return Sample(torch.from_numpy(self.read(seed)), 0, seed, [])


def workers_rate(read: Callable[[int], np.ndarray], workers: int, clips: int) -> float:
    """Clips a second of a training loader."""
    batches = [list(range(first, first + 8)) for first in range(0, clips + 16, 8)]
    loader = iter(make_loader(_Clips(read), batches, workers=workers, prefetch=2))
    next(loader), next(loader)  # while workers start
    started = time.perf_counter()
    read_clips = sum(len(batch.labels) for batch in loader)
    return read_clips / (time.perf_counter() - started)


def cost_of_sources(folder: Path, rounds: int) -> dict[str, Ratio]:
    """At 4 x 80, stores of 294 lines from sources of 1080 lines and 3,000 frames against those of 360 and 300."""
    small, large = (make_videos(made(folder / str(lines)), 2, 10, lines) for lines in (LINES, 1080))
    stores = {}
    for name, videos in (("360", small), ("1080", large)):
        stores[name] = [folder / "294" / f"{name}_{i}" for i in range(len(videos))]
        for video, store in zip(videos, stores[name], strict=True):
            convert_video(Job(video, store), short_side=SHORT_SIDE, quality=3)
    jpegs = jpegs_of(small[0], 3)
    for name, count in (("300", 300), ("3000", 3000)):
        stores[name] = [folder / "long" / name]
        write_frame_store(stores[name][0], (jpegs * 10)[:count])

    def fetch(name: str) -> Reader:
        def read(seed: int) -> None:
            store = FrameStore(stores[name][0])
            chosen = np.random.default_rng(seed).integers(store.n_frames, size=16)
            store.fetch([int(index) for index in chosen])

        return read

    sources = compare({name: reader(stores[name], 4, 80) for name in ("1080", "360")}, rounds)
    lengths = compare({name: fetch(name) for name in ("3000", "300")}, rounds)
    return {
        "1080-line sources against 360, 4 x 80": sources["360"],
        "3,000 frames against 300": lengths["300"],
    }


def growth(read: Callable[[int], np.ndarray], clips: int) -> tuple[float, int]:
    """MB by which the process grows over `clips` clips, and open files, after as many as a tenth to settle."""
    for seed in range(clips // 10):
        read(seed)
    before, files = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/dev/fd"))
    for seed in range(clips):
        read(seed)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    return (after - before) * unit / 2**20, len(os.listdir("/dev/fd")) - files
