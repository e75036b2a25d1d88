"""Sharing a batch between GPUs; the arithmetic needs none."""

import pytest
import torch

from train.devices import Replicas, choose_gpus, replica_count


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("batch", range(1, 40))
def test_no_replica_gets_a_single_clip(batch: int, gpus: int) -> None:
    count = replica_count(batch, gpus)
    parts = [len(part) for part in torch.arange(batch).chunk(count)]
    assert len(parts) == count <= gpus
    assert count == 1 or min(parts) >= 2


def test_all_gpus_work_where_the_batch_allows() -> None:
    assert [replica_count(batch, 4) for batch in (8, 32, 5, 3, 1)] == [4, 4, 2, 1, 1]


def test_small_batches_stay_on_one_device() -> None:
    network = Replicas(torch.nn.Linear(3, 2), gpus=4)
    assert network(torch.zeros(2, 3)).shape == (2, 2)


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
