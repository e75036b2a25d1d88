"""Looking one batch ahead, and copying batches to the device."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from data.clip_batch import BadSample, Batch, gather
from train.parallel.prefetcher import BufferRing, DevicePrefetcher, lookahead


def make_batch(value: int, size: int = 8) -> Batch:
    labels = torch.tensor([value])
    return Batch(
        torch.full((size,), value, dtype=torch.uint8), labels, labels, [BadSample("jpg/a", str(value))]
    )


def test_the_next_item_is_prepared_by_another_thread_while_the_last_is_used() -> None:
    taken_by, prepared_by = [], []
    prepared = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for item in range(5):
            taken_by.append(threading.current_thread())
            yield item

    def prepare(item: int) -> int:
        prepared_by.append(threading.current_thread())
        prepared.release()
        return 10 * item

    for number, item in enumerate(lookahead(items(), prepare)):
        assert item == 10 * number
        if number < 4:
            assert prepared.acquire(timeout=60)  # without being asked for the next one
        assert len(taken_by) == min(number + 2, 5)
    assert set(taken_by) == {threading.main_thread()}  # forks workers
    assert len(set(prepared_by)) == 1
    assert threading.main_thread() not in prepared_by


@pytest.mark.parametrize("fails", ["items", "prepare"])
def test_errors_are_raised_after_the_earlier_items(fails: str) -> None:
    def items() -> Iterator[int]:
        yield from (0, 1)
        if fails == "items":
            raise KeyError("lost")
        yield 2

    def prepare(item: int) -> int:
        if item == 2:
            raise KeyError("lost")
        return item

    generator = lookahead(items(), prepare)
    assert [next(generator), next(generator)] == [0, 1]
    with pytest.raises(KeyError, match="lost"):
        next(generator)


def test_an_epoch_that_is_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    generator = lookahead(range(10), str)
    assert next(generator) == "0"
    assert threading.active_count() == before + 1
    generator.close()
    assert threading.active_count() == before


class Copy:
    """Of a buffer: done when it was waited for."""

    def __init__(self) -> None:
        self.is_done = False

    def synchronize(self) -> None:
        self.is_done = True


def test_a_buffer_is_reused_when_the_copy_from_it_is_done() -> None:
    allocated: list[int] = []

    def allocate(size: int) -> torch.Tensor:
        allocated.append(size)
        return torch.empty(size, dtype=torch.uint8)

    ring = BufferRing(allocate)
    copies, views = [Copy() for _ in range(5)], []
    for number, copy in enumerate(copies):
        chunks = [make_batch(2 * number, 8), make_batch(2 * number + 1, 4 + number % 2)]
        batch = gather(chunks, partial(ring.take, copied=copy))
        views.append(batch.clips)
        assert batch.clips.tolist() == [2 * number] * 8 + [2 * number + 1] * (4 + number % 2)
        assert batch.labels.tolist() == batch.indices.tolist() == [2 * number, 2 * number + 1]
        assert [bad.reason for bad in batch.bad] == [str(2 * number), str(2 * number + 1)]
        assert [copy.is_done for copy in copies] == [True] * (number - 1) + [False] * min(6 - number, 5)
    assert len({view.data_ptr() for view in views}) == 2
    assert allocated == [0, 12, 13]  # once for the largest batch of each


def test_batches_on_the_device_are_neither_copied_nor_read_ahead() -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[Batch]]:
        for value in range(3):
            taken.append(value)
            yield [make_batch(value)]

    for number, batch in enumerate(DevicePrefetcher(torch.device("cpu"))(batches())):
        assert taken == list(range(number + 1))
        assert batch.bad[0].reason == str(number)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("on_device", [False, True])
def test_computation_waits_for_the_copy_and_memory_is_reused_after_it(on_device: bool) -> None:
    device = torch.device("cuda", 0)
    matrix = torch.randn(4096, 4096, device=device)
    batches = ([make_batch(value, 1 << 25) for _ in range(2)] for value in range(4))
    if on_device:
        batches = ([chunk._replace(clips=chunk.clips.to(device)) for chunk in batch] for batch in batches)
    sums = []
    for number, batch in enumerate(DevicePrefetcher(device)(batches)):
        assert batch.bad[0].reason == str(number)
        assert batch.clips.device == batch.labels.device == device
        for _ in range(10):  # the GPU is busy when the next batch is copied
            matrix = matrix @ matrix / 64
        sums.append(batch.clips.sum(dtype=torch.int64) + batch.labels[0])
    assert [int(total) for total in sums] == [(value << 26) + value for value in range(4)]
