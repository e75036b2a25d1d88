"""What to load: shapes of batches, requests for clips, and the batch samplers that carry both to the loader's workers.

Randomness is a value here: order and seeds follow from (seed, epoch, video), so that equal requests give equal clips on
any worker, and an epoch can be entered at any step.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class BatchShape(NamedTuple):
    """`batch` clips of `length` frames of `size` x `size` pixels; `str` gives `48x16x224x224`."""

    batch: int
    length: int
    size: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.length}x{self.size}x{self.size}"


class ClipSpec(NamedTuple):
    """One clip: of the video number `index` of its split, `length` frames of `size` pixels, drawn with `seed`."""

    index: int
    length: int
    size: int
    seed: int


class Part(NamedTuple):
    """What one of several processes takes of every batch: a run of its clips, disjoint from all others'.

    Parts differ by one clip at most, and hold `least` clips at least or none; that of rank 0 is never empty. 7 clips
    for 4 processes are dealt as 2, 2, 2, 1, and where a part needs two clips as 3, 2, 2, 0.
    """

    rank: int = 0
    size: int = 1
    least: int = 1

    def num_participants(self, clips: int) -> int:
        """How many processes share a batch of so many clips: those of the lowest ranks."""
        return max(1, min(self.size, clips // self.least))

    def of(self, clips: int) -> slice:
        """The clips of a batch that are this process's; empty where it sits out."""
        num_participants = self.num_participants(clips)
        if self.rank >= num_participants:
            return slice(clips, clips)
        smaller, rest = divmod(clips, num_participants)
        first = self.rank * smaller + min(self.rank, rest)
        return slice(first, first + smaller + (self.rank < rest))

    def largest(self, clips: int) -> int:
        """The clips of the largest part."""
        return -(-clips // self.num_participants(clips))


WHOLE = Part()


def clip_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of a clip's own random stream. A hash, so that neighbours share nothing."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])


def epoch_order(n_videos: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch draws its videos: a permutation."""
    return np.random.default_rng((seed, epoch)).permutation(n_videos)


class TrainBatchSampler(Sampler[list[ClipSpec]]):
    """This process's part of the batches of one epoch, each of its own shape; every video is drawn once by one process.

    The batches do not depend on the number of processes. `set_epoch` says which epoch, its shapes (their batches sum to
    the number of videos), and the step to start from.
    """

    def __init__(self, n_videos: int, seed: int, part: Part = WHOLE) -> None:
        self.n_videos = n_videos
        self.seed = seed
        self.part = part
        self.set_epoch(1, [])

    def set_epoch(self, epoch: int, shapes: Sequence[BatchShape], first_step: int = 0) -> None:
        self.epoch = epoch
        self.shapes = list(shapes)
        self.first_step = first_step

    def __len__(self) -> int:
        return len(self.shapes) - self.first_step

    def __iter__(self) -> Iterator[list[ClipSpec]]:
        order = epoch_order(self.n_videos, self.seed, self.epoch)
        drawn = 0
        for step, shape in enumerate(self.shapes):
            indices = order[drawn : drawn + shape.batch]
            drawn += shape.batch
            if step >= self.first_step:
                yield [
                    ClipSpec(int(i), shape.length, shape.size, clip_seed(self.seed, self.epoch, int(i)))
                    for i in indices[self.part.of(len(indices))]
                ]


class ValBatchSampler(Sampler[list[ClipSpec]]):
    """This process's part of batches that hold every video once, in order, at one shape."""

    def __init__(self, n_videos: int, shape: BatchShape, part: Part = WHOLE) -> None:
        self.n_videos = n_videos
        self.shape = shape
        self.part = part

    def __len__(self) -> int:
        return -(-self.n_videos // self.shape.batch)

    def __iter__(self) -> Iterator[list[ClipSpec]]:
        batch, length, size = self.shape
        for first in range(0, self.n_videos, batch):
            videos = range(first, min(first + batch, self.n_videos))
            yield [ClipSpec(index, length, size, seed=0) for index in videos[self.part.of(len(videos))]]
