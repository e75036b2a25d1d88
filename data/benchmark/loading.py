"""What the benchmark measures of the loader: two workers against one, and the first batch of an epoch."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.batch_sampler import BatchShape, ClipSpec
from data.benchmark.reading import make_dataset
from data.clip_loader import ClipLoader, plan_prefetch
from data.video_iterator import TrainDataset

SHAPE = BatchShape(48, 16, 224)
BATCHES, ROUNDS = 2, 5


def load_ratios(folders: Sequence[Path]) -> tuple[float, float]:
    """Return the speed of two workers in multiples of one's, and the time of the first batch of two in multiples of
    clips / 2 x a clip's time in one worker: medians of rounds in which both take turns.
    """
    dataset = make_dataset(folders, SHAPE.length)
    rounds = [[_read(dataset, workers) for workers in (1, 2)] for _ in range(ROUNDS)]
    (_, one), (first, two) = np.transpose(rounds, (1, 2, 0))
    return float(np.median(one / two)), float(np.median(first / (one / BATCHES / 2)))


def _read(dataset: TrainDataset, workers: int) -> tuple[float, float]:
    """Return the seconds until workers, started before, have loaded the first of BATCHES batches, and all."""
    prefetch, _ = plan_prefetch([SHAPE], workers, flags="SHAPE in data/benchmark/loading.py")
    batch = [ClipSpec(seed % len(dataset), SHAPE.length, SHAPE.size, seed) for seed in range(SHAPE.batch)]
    # empty batches are all that is read ahead when the clock starts
    batches = [batch[:workers], *[[]] * (prefetch * workers), *[batch] * BATCHES]
    loader = ClipLoader(dataset, batches, workers=workers, prefetch_factor=prefetch)
    next(loader)
    started = time.perf_counter()
    seconds = [time.perf_counter() - started for _ in loader]
    loader.close()
    return seconds[-BATCHES], seconds[-1]
