"""Batches are a function of (seed, epoch, video), and ranks share each of them."""

import pytest

from data.batch_sampler import (
    FULL_BATCH,
    BatchShape,
    ClipSpec,
    RankShard,
    batchnorm_batches,
    clip_seed,
    train_batches,
    val_batches,
)

SHAPES = [BatchShape(4, 2, 16), BatchShape(2, 4, 32), BatchShape(3, 4, 16)]
VAL_SHAPE = BatchShape(4, 8, 32)


def epoch_batches(
    epoch: int, first_step: int = 0, seed: int = 1, shard: RankShard = FULL_BATCH
) -> list[list[ClipSpec]]:
    return list(train_batches(9, seed, epoch, SHAPES, first_step, shard))


def test_each_video_occurs_once_in_batches_of_the_given_shapes() -> None:
    """The original drew video 1 twice and the last one never."""
    batches = epoch_batches(1)
    assert sorted(spec.index for batch in batches for spec in batch) == list(range(9))
    assert [len(batch) for batch in batches] == [4, 2, 3]
    for batch, shape in zip(batches, SHAPES, strict=True):
        assert {(spec.length, spec.size) for spec in batch} == {(shape.length, shape.size)}


def test_equal_epochs_are_equal_and_other_epochs_or_seeds_differ() -> None:
    batches = epoch_batches(3)
    assert epoch_batches(3) == batches
    for others in (epoch_batches(4), epoch_batches(3, seed=2)):
        assert [s.index for batch in others for s in batch] != [s.index for batch in batches for s in batch]
        assert {s.seed for b in others for s in b}.isdisjoint(s.seed for b in batches for s in b)
    seeds = {clip_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(200)}
    assert len(seeds) == 5000


def test_an_epoch_can_start_at_any_step() -> None:
    for step in range(3):
        assert epoch_batches(2, first_step=step) == epoch_batches(2)[step:]


def test_validation_batches_hold_each_video_once_in_order() -> None:
    batches = val_batches(10, VAL_SHAPE)
    assert [[spec.index for spec in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("min_clips", [1, 2])
@pytest.mark.parametrize("world_size", range(1, 9))
def test_shards_are_disjoint_complete_and_even(world_size: int, min_clips: int) -> None:
    for num_clips in range(1, 70):
        shards = [RankShard(rank, world_size, min_clips) for rank in range(world_size)]
        clips = [range(num_clips)[shard.slice_of(num_clips)] for shard in shards]
        assert [i for shard_clips in clips for i in shard_clips] == list(range(num_clips))
        lengths = [len(shard_clips) for shard_clips in clips if shard_clips]
        assert len(clips[0]) > 0
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) >= min(min_clips, num_clips)
        assert len(lengths) == shards[0].num_participants(num_clips)
        assert max(lengths) == shards[0].largest(num_clips)


@pytest.mark.parametrize(("min_clips", "lengths"), [(1, [2, 2, 2, 1]), (2, [3, 2, 2, 0])])
def test_shards_of_the_docstring(min_clips: int, lengths: list[int]) -> None:
    assert [len(range(7)[RankShard(rank, 4, min_clips).slice_of(7)]) for rank in range(4)] == lengths


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_batches_do_not_depend_on_the_number_of_ranks(world_size: int) -> None:
    ranks = [epoch_batches(3, shard=RankShard(rank, world_size, 2)) for rank in range(world_size)]
    joined = [[spec for shard in step for spec in shard] for step in zip(*ranks, strict=True)]
    assert joined == epoch_batches(3)
    val_ranks = [list(val_batches(10, VAL_SHAPE, RankShard(rank, world_size))) for rank in range(world_size)]
    joined = [[spec for shard in step for spec in shard] for step in zip(*val_ranks, strict=True)]
    assert joined == list(val_batches(10, VAL_SHAPE))


def test_clips_of_batchnorm_statistics_are_the_same_for_a_seed_on_any_number_of_ranks() -> None:
    batches = batchnorm_batches(20, 12, VAL_SHAPE, seed=1)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    assert len({spec.index for batch in batches for spec in batch}) == 12
    assert batchnorm_batches(20, 12, VAL_SHAPE, seed=2) != batches
    ranks = [batchnorm_batches(20, 12, VAL_SHAPE, 1, RankShard(rank, 3, 2)) for rank in range(3)]
    assert [[spec for shard in batch for spec in shard] for batch in zip(*ranks, strict=True)] == batches
