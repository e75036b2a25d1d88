"""Copying batches to the device."""

import pytest
import torch

from train.parallel.prefetcher import DevicePrefetcher


def test_tensors_on_the_device_are_not_copied() -> None:
    clips, labels = torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8), torch.tensor([0, 1])
    assert DevicePrefetcher(torch.device("cpu"))(clips, labels) == [clips, labels]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_computation_waits_for_the_copy_and_memory_is_reused_after_it() -> None:
    device = torch.device("cuda", 0)
    prefetcher = DevicePrefetcher(device)
    matrix = torch.randn(4096, 4096, device=device)
    sums = []
    for value in range(4):
        (copied,) = prefetcher(torch.full((1 << 26,), value, dtype=torch.uint8))
        for _ in range(10):  # the GPU is busy when the next batch is copied
            matrix = matrix @ matrix / 64
        sums.append(copied.sum(dtype=torch.int64))
        del copied
    assert [int(total) for total in sums] == [value << 26 for value in range(4)]
