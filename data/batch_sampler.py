"""Which clips each batch holds: batch shapes, sample indices, and the batches of training and validation.

Order and clip seeds are functions of (seed, epoch, video), so the same index gives the same clip in any worker, and an
epoch can start at any step.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class BatchShape(NamedTuple):
    """`batch` clips of `length` frames of `size` x `size` pixels; `str` gives `48x16x224x224`."""

    batch: int
    length: int
    size: int

    def __str__(self) -> str:
        return f"{self.batch}x{self.length}x{self.size}x{self.size}"


class ClipSpec(NamedTuple):
    """Sample index of a clip: video `index` of its split, `length` frames of `size` pixels, sampled with `seed`."""

    index: int  # type: ignore[assignment]  # mypy confuses it with tuple.index
    length: int
    size: int
    seed: int


class RankShard(NamedTuple):
    """The shard of every batch that one rank of several loads: consecutive clips, disjoint from those of other ranks.

    Shards differ by at most one clip, and hold at least `min_clips` clips or none; rank 0 always has some. 7 clips on 4
    ranks are split 2, 2, 2, 1, and with `min_clips=2` 3, 2, 2, 0.
    """

    rank: int = 0
    world_size: int = 1
    min_clips: int = 1

    def num_participants(self, num_clips: int) -> int:
        """Return the number of ranks with clips of a batch of `num_clips`: the lowest ranks."""
        return max(1, min(self.world_size, num_clips // self.min_clips))

    def slice_of(self, num_clips: int) -> slice:
        """Return which of `num_clips` clips belong to this rank: an empty slice if it is idle."""
        num_participants = self.num_participants(num_clips)
        if self.rank >= num_participants:
            return slice(num_clips, num_clips)
        smaller, rest = divmod(num_clips, num_participants)
        first = self.rank * smaller + min(self.rank, rest)
        return slice(first, first + smaller + (self.rank < rest))

    def largest(self, num_clips: int) -> int:
        """Return the number of clips in the largest shard."""
        return -(-num_clips // self.num_participants(num_clips))


FULL_BATCH = RankShard()


def clip_seed(seed: int, epoch: int, index: int) -> int:
    """Return the seed of a clip's own random stream; hashed, so that streams of neighbors are independent."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])


def epoch_order(num_videos: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of videos in an epoch: a permutation."""
    return np.random.default_rng((seed, epoch)).permutation(num_videos)


def train_batches(
    num_videos: int,
    seed: int,
    epoch: int,
    shapes: Iterable[BatchShape],
    first_step: int = 0,
    shard: RankShard = FULL_BATCH,
) -> Iterator[list[ClipSpec]]:
    """Yield this rank's shard of the batches of an epoch from `first_step` on; every video occurs once over all ranks.

    `shapes`: of all steps of the epoch, together one clip a video. The batches do not depend on the number of ranks.
    """
    order = epoch_order(num_videos, seed, epoch)
    first = 0
    for step, shape in enumerate(shapes):
        indices = order[first : first + shape.batch]
        first += shape.batch
        if step >= first_step:
            yield [
                ClipSpec(int(i), shape.length, shape.size, clip_seed(seed, epoch, int(i)))
                for i in indices[shard.slice_of(len(indices))]
            ]


def val_batches(
    num_videos: int, shape: BatchShape, shard: RankShard = FULL_BATCH
) -> Iterator[list[ClipSpec]]:
    """Yield this rank's shard of batches of one shape that hold every video once, in order."""
    batch, length, size = shape
    for first in range(0, num_videos, batch):
        videos = range(first, min(first + batch, num_videos))
        yield [ClipSpec(index, length, size, seed=0) for index in videos[shard.slice_of(len(videos))]]


def batchnorm_batches(
    num_videos: int, num_clips: int, shape: BatchShape, seed: int, shard: RankShard = FULL_BATCH
) -> list[list[ClipSpec]]:
    """Return this rank's shard of batches of random training clips, from which precise BatchNorm statistics are taken.

    `num_clips` clips, each of another video, the same for the same seed.
    """
    order = epoch_order(num_videos, seed, epoch=0)[:num_clips]
    specs = [ClipSpec(int(i), shape.length, shape.size, clip_seed(seed, 0, int(i))) for i in order]
    batches = (specs[first : first + shape.batch] for first in range(0, len(specs), shape.batch))
    return [batch[shard.slice_of(len(batch))] for batch in batches]
