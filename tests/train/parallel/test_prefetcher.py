"""Batches to the device."""

import pytest
import torch

from train.parallel.prefetcher import DevicePrefetcher


def test_what_is_on_the_device_already_is_not_copied() -> None:
    clips, labels = torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8), torch.tensor([0, 1])
    assert DevicePrefetcher(torch.device("cpu"))(clips, labels) == [clips, labels]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_computes_waits_for_the_copy_and_memory_is_not_given_away_before() -> None:
    device = torch.device("cuda", 0)
    copier = DevicePrefetcher(device)
    batches = [torch.full((1 << 26,), value, dtype=torch.uint8) for value in range(4)]
    sums = []
    for batch in batches:
        (copied,) = copier(batch)
        torch.cuda._sleep(10**7)  # the device is busy when the next batch is copied
        sums.append(copied.sum(dtype=torch.int64))
        del copied
    assert [int(total) for total in sums] == [value << 26 for value in range(4)]
