"""What the benchmark measures: reading clips with each pipeline, converting videos, and memory leaks."""

import os
import resource
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.batch_sampler import ClipSpec
from data.benchmark.reference_pipeline import fetch_from_original_store, reference_clip
from data.benchmark.test_videos import BenchmarkInputs
from data.convert.converter import Job, convert_video
from data.video_iterator import TrainDataset
from data.video_list import VideoIndex
from data.video_sampler import random_clip
from data.video_transforms import training_clip

INTERVAL, CLIP_SIZE, SHORT_SIDE = 2, 224, 294
CLIPS_PER_TURN = 8
Reader = Callable[[int], np.ndarray]  # seed -> clip


class Ratio(NamedTuple):
    """Speed in multiples of the original recipe's, median (`times`) and quartiles over all turns, and in clips/s."""

    times: float
    low: float
    high: float
    clips_per_second: float


def make_dataset(
    folders: Sequence[Path],
    length: int,
    interval: int = INTERVAL,
    clip_size: int = CLIP_SIZE,
    short_side: int = SHORT_SIDE,
    augment: str = "fused",
) -> TrainDataset:
    """Return the training clips of stores."""
    names, zeros = np.array([os.fsencode(folder) for folder in folders]), np.zeros(len(folders), int)
    return TrainDataset(
        VideoIndex(Path(), names, labels=zeros, sizes=zeros, missing=Counter()),
        intervals=[interval],
        base_length=length,
        clip_size=clip_size,
        short_side=short_side,
        augment=augment,
        flip=True,
    )


def reader(folders: Sequence[Path], length: int, size: int, **settings: Any) -> Reader:
    """Return `seed -> uint8 (length, size, size, 3)`: exactly what a training worker does for a clip of the stores.

    `settings` are those of `make_dataset`.
    """
    dataset = make_dataset(folders, length, **settings)
    return lambda seed: np.asarray(dataset[ClipSpec(seed % len(dataset), length, size, seed)].clip)


def milliseconds(folders: Sequence[Path], length: int, size: int, rounds: int) -> dict[str, float]:
    """Return the milliseconds of each part of the clips of `compare` with the fused engine, medians over the turns.

    "exact decoding" is that of validation, in place of "decoding".
    """
    dataset, seconds = make_dataset(folders, length), np.empty((rounds + 1, CLIPS_PER_TURN, 4))
    for seed, parts in enumerate(seconds.reshape(-1, 4)):
        index, times = seed % len(dataset), [time.perf_counter()]
        frames, params = dataset.sample(dataset.videos.folder(index), ClipSpec(index, length, size, seed))
        times.append(time.perf_counter())
        for fast in (False, True):
            deque(frames.decode_each(params.crop_box.side >= 2 * size, fast), maxlen=0)
            times.append(time.perf_counter())
        training_clip(frames, params, size=size, clip_size=dataset.clip_size, augment=dataset.augment)
        parts[:] = np.diff([*times, time.perf_counter()])
    seconds[:, :, 3] -= seconds[:, :, 2]
    medians = 1000 * np.median(seconds[1:].mean(axis=1), axis=0)
    names = ("not pixels", "exact decoding", "decoding", "augmenting")
    return dict(zip(names, medians.tolist(), strict=True))


def make_readers(inputs: BenchmarkInputs, length: int, size: int) -> dict[str, Reader]:
    """Return each pipeline by name, the original recipe first; all choose the same frames for a seed."""

    def read_original(seed: int) -> np.ndarray:
        video, generator = seed % len(inputs.num_frames), np.random.default_rng(seed)
        indices = random_clip(inputs.num_frames[video], length, [INTERVAL], generator)
        jpegs = fetch_from_original_store(inputs.originals[video], indices)
        return reference_clip(
            jpegs, size=size, clip_size=CLIP_SIZE, short_side=SHORT_SIDE, generator=generator
        )

    return {
        "original recipe": read_original,
        "ours, imgaug": reader(inputs.stores, length, size, augment="imgaug"),
        "ours, fused": reader(inputs.stores, length, size),
        "ours, half level": reader(inputs.half_level, length, size),
        "ours, device": reader(inputs.stores, length, size, augment="device"),
        "ours, half level, device": reader(inputs.half_level, length, size, augment="device"),
        "ours, not augmented": reader(inputs.stores, length, size, augment="none"),
    }


def compare(readers: dict[str, Reader], rounds: int) -> dict[str, Ratio]:
    """Time all readers in turn, `rounds` times after a warm-up with the same seeds; return ratios to the first one."""
    seconds = np.empty((rounds + 1, len(readers)))
    for turn in range(rounds + 1):
        for column, read in enumerate(readers.values()):
            started = time.perf_counter()
            for clip in range(CLIPS_PER_TURN):
                read(turn * CLIPS_PER_TURN + clip)
            seconds[turn, column] = (time.perf_counter() - started) / CLIPS_PER_TURN
    seconds = seconds[1:]
    low, median, high = np.quantile(seconds[:, :1] / seconds, (0.25, 0.5, 0.75), axis=0).tolist()
    speed = (1 / np.median(seconds, axis=0)).tolist()
    return {name: Ratio(*values) for name, *values in zip(readers, median, low, high, speed, strict=True)}


def conversion_rate(videos: Sequence[Path], folder: Path) -> float:
    """Convert videos to stores below `folder`; return frames/s."""
    started, frames = time.perf_counter(), 0
    for i, video in enumerate(videos):
        frames += convert_video(Job(video, folder / f"v{i}"), short_side=SHORT_SIDE, quality=3)[0]
    return frames / (time.perf_counter() - started)


def memory_growth(read: Reader, clips: int) -> tuple[float, int]:
    """Return by how many MB and open files the process grows over `clips` clips, after a tenth as many to warm up."""
    for seed in range(clips // 10):
        read(seed)
    memory, files = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/dev/fd"))
    for seed in range(clips):
        read(seed)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return grown / 1024, len(os.listdir("/dev/fd")) - files
