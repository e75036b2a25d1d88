"""Requests follow from (seed, epoch, video) alone."""

import pytest

from data.batch_sampler import BatchShape, Part, TrainBatchSampler, ValBatchSampler, clip_seed

SHAPES = [BatchShape(4, 2, 16), BatchShape(2, 4, 32), BatchShape(3, 4, 16)]


def epoch(number: int, first_step: int = 0, seed: int = 1) -> list:
    batches = TrainBatchSampler(9, seed)
    batches.set_epoch(number, SHAPES, first_step)
    return list(batches)


def test_every_video_once_each_batch_of_its_shape() -> None:
    """The original drew video 1 twice and the last one never."""
    batches = epoch(1)
    assert sorted(request.index for batch in batches for request in batch) == list(range(9))
    assert [len(batch) for batch in batches] == [4, 2, 3]
    for batch, shape in zip(batches, SHAPES, strict=True):
        assert {(request.length, request.size) for request in batch} == {(shape.length, shape.size)}


def test_same_epoch_same_requests_another_epoch_or_seed_others() -> None:
    assert epoch(3) == epoch(3)
    order = [request.index for batch in epoch(3) for request in batch]
    for others in (epoch(4), epoch(3, seed=2)):
        assert [request.index for batch in others for request in batch] != order
        assert {r.seed for b in others for r in b}.isdisjoint(r.seed for b in epoch(3) for r in b)


def test_an_epoch_entered_late_goes_on_as_if_it_had_not_stopped() -> None:
    assert epoch(2, first_step=1) == epoch(2)[1:]
    batches = TrainBatchSampler(9, 1)
    batches.set_epoch(2, SHAPES, first_step=2)
    assert len(batches) == 1


def test_seeds_of_clips_differ() -> None:
    seeds = {clip_seed(s, e, i) for s in range(5) for e in range(5) for i in range(200)}
    assert len(seeds) == 5000


def test_validation_sees_each_video_once_in_order() -> None:
    batches = ValBatchSampler(10, BatchShape(4, 8, 32))
    assert [[request.index for request in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("size", range(1, 9))
def test_parts_share_a_batch_of_any_size(size: int, least: int) -> None:
    for clips in range(1, 70):
        taken = [range(clips)[Part(rank, size, least).of(clips)] for rank in range(size)]
        assert [i for part in taken for i in part] == list(range(clips))  # disjoint and complete
        lengths = [len(part) for part in taken if part]
        assert len(taken[0]) > 0
        assert max(lengths) - min(lengths) <= 1
        assert min(lengths) >= min(least, clips)
        assert len(lengths) == Part(0, size, least).num_participants(clips)
        assert max(lengths) == Part(0, size, least).largest(clips)


def test_clips_are_dealt_as_the_docstring_says() -> None:
    for least, lengths in ((1, [2, 2, 2, 1]), (2, [3, 2, 2, 0])):
        assert [len(range(7)[Part(rank, 4, least).of(7)]) for rank in range(4)] == lengths


@pytest.mark.parametrize("size", range(1, 9))
def test_processes_draw_the_batches_of_one_process_between_them(size: int) -> None:
    """Whatever their number, and each clip with the seed that it has in one process."""
    parts = []
    for rank in range(size):
        batches = TrainBatchSampler(9, 1, Part(rank, size, 2))
        batches.set_epoch(3, SHAPES, first_step=1)
        parts.append(list(batches))
    assert [[request for part in step for request in part] for step in zip(*parts, strict=True)] == epoch(3)[
        1:
    ]
    shape = BatchShape(4, 8, 32)
    shared = [list(ValBatchSampler(10, shape, Part(rank, size))) for rank in range(size)]
    whole = list(ValBatchSampler(10, shape))
    assert [[request for part in step for request in part] for step in zip(*shared, strict=True)] == whole
