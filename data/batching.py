"""What to load: shapes of batches, requests for clips, and the batch samplers that carry both to the loader's workers.

Randomness is a value here: order and seeds follow from (seed, epoch, video), so that equal requests give equal clips on
any worker, and an epoch can be entered at any step.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class BatchShape(NamedTuple):
    """`batch` clips of `length` frames of `size` x `size` pixels."""

    batch: int
    length: int
    size: int


class ClipRequest(NamedTuple):
    """One clip: of the video number `index` of its split, `length` frames of `size` pixels, drawn with `seed`."""

    index: int
    length: int
    size: int
    seed: int


def clip_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of a clip's own random stream. A hash, so that neighbours share nothing."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])


def epoch_order(n_videos: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch draws its videos: a permutation."""
    return np.random.default_rng((seed, epoch)).permutation(n_videos)


class TrainingBatches(Sampler[list[ClipRequest]]):
    """Batches of one epoch, each of its own shape; every video is drawn once.

    `set_epoch` says which epoch, its shapes (their batches sum to the number of videos), and the step to start from.
    """

    def __init__(self, n_videos: int, seed: int) -> None:
        self.n_videos = n_videos
        self.seed = seed
        self.set_epoch(1, [])

    def set_epoch(self, epoch: int, shapes: Sequence[BatchShape], first_step: int = 0) -> None:
        self.epoch = epoch
        self.shapes = list(shapes)
        self.first_step = first_step

    def __len__(self) -> int:
        return len(self.shapes) - self.first_step

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        order = epoch_order(self.n_videos, self.seed, self.epoch)
        drawn = 0
        for step, shape in enumerate(self.shapes):
            indices = order[drawn : drawn + shape.batch]
            drawn += shape.batch
            if step >= self.first_step:
                yield [
                    ClipRequest(int(i), shape.length, shape.size, clip_seed(self.seed, self.epoch, int(i)))
                    for i in indices
                ]


class ValidationBatches(Sampler[list[ClipRequest]]):
    """Every video once, in order, at one shape."""

    def __init__(self, n_videos: int, shape: BatchShape) -> None:
        self.n_videos = n_videos
        self.shape = shape

    def __len__(self) -> int:
        return -(-self.n_videos // self.shape.batch)

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        batch, length, size = self.shape
        for first in range(0, self.n_videos, batch):
            last = min(first + batch, self.n_videos)
            yield [ClipRequest(index, length, size, seed=0) for index in range(first, last)]
