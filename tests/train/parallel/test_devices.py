"""Sharing a batch between GPUs; the arithmetic needs none."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch

from train.parallel.devices import (
    DataParallel,
    autocast_as_here,
    choose_device,
    choose_gpus,
    num_replicas,
    oom_as,
)
from train.parallel.distributed import DistContext


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("batch", range(1, 40))
def test_no_replica_gets_a_single_clip(batch: int, gpus: int) -> None:
    count = num_replicas(batch, gpus)
    parts = [len(part) for part in torch.arange(batch).chunk(count)]
    assert len(parts) == count <= gpus
    assert count == 1 or min(parts) >= 2


def test_all_gpus_work_where_the_batch_allows() -> None:
    assert [num_replicas(batch, 4) for batch in (8, 32, 5, 3, 1)] == [4, 4, 2, 1, 1]


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_a_gpu_more_is_used_where_it_gets_eight_clips() -> None:
    """The first page's batch of 8 went to four GPUs, two clips each, whose norms saw next to nothing."""
    first = torch.device("cuda", 0)
    assert [choose_device(None, DistContext(), batch)[1] for batch in (1, 8, 16, 32, 64)] == [1, 1, 2, 4, 4]
    assert choose_device(4, DistContext(), 8) == (first, 4)  # who says so gets them


def test_a_process_that_is_shown_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where SLURM gives each task its own; the number of the process on the machine was taken for a GPU's."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    dist = DistContext(rank=3, size=4, local_rank=3, local_size=4, launched=True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ValueError, match="4 processes were launched here, this machine has 1 GPUs"):
        choose_device(None, dist)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert choose_device(None, dist) == (torch.device("cuda", 0), 1)


def test_small_batches_stay_on_one_device() -> None:
    network = DataParallel(torch.nn.Linear(3, 2), gpus=4)
    assert network(torch.zeros(2, 3)).shape == (2, 2)


@pytest.mark.parametrize("enabled", [True, False])
def test_replicas_compute_in_the_precision_of_their_run(enabled: bool) -> None:
    """torch's threads take over that autocast is on, but computed in fp16 where bf16 was asked for."""
    linear = torch.nn.Linear(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), ThreadPoolExecutor(1) as thread:
        there = thread.submit(autocast_as_here(linear, "cpu"), torch.zeros(1, 3)).result()
        assert there.dtype == linear(torch.zeros(1, 3)).dtype
    assert there.dtype == (torch.bfloat16 if enabled else torch.float32)


def test_a_shortage_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(OSError, match="too much"), oom_as(OSError, "too much"):
        torch.empty(2**60)
    with pytest.raises(OSError, match="too much"), oom_as(OSError, "too much"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(OSError, match="too much"), oom_as(OSError, "too much"):
        raise torch.AcceleratorError("CUDA error: out of memory")  # where somebody else has filled it
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), oom_as(OSError, "too much"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_a_shortage_of_memory_keeps_nothing() -> None:
    """Else a benchmark's next network would find what the last one, for which there was no room, had taken."""

    def fail() -> None:
        large = torch.zeros(8)
        kept.append(weakref.ref(large))
        with oom_as(OSError, "too much"):
            raise torch.OutOfMemoryError("CUDA out of memory")

    kept: list[weakref.ref[torch.Tensor]] = []
    gc.disable()
    try:
        with suppress(OSError):
            fail()
        assert kept[0]() is None
    finally:
        gc.enable()


def test_gpus_are_all_or_as_many_as_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_gpus(wanted) for wanted in (None, 0, 1, 2)] == [2, 0, 1, 2]
    with pytest.raises(ValueError, match="--gpus 3: this machine has 2"):
        choose_gpus(3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [choose_gpus(wanted) for wanted in (None, 0, 4)] == [0, 0, 0]
    assert "--gpus 4: this machine has none, running on the CPU" in caplog.text
