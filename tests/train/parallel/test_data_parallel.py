"""Sharing a batch between the GPUs of one process; the arithmetic needs none."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from train.parallel.data_parallel import AutocastModule, DataParallel, num_replicas, torchrun_command


@pytest.mark.parametrize("num_gpus", [1, 2, 3, 4, 8])
def test_no_replica_gets_a_single_clip(num_gpus: int) -> None:
    for batch_size in range(1, 40):
        count = num_replicas(batch_size, num_gpus)
        shards = [len(shard) for shard in torch.arange(batch_size).chunk(count)]
        assert len(shards) == count <= num_gpus
        assert count == 1 or min(shards) >= 2


def test_all_gpus_are_used_if_the_batch_allows() -> None:
    assert [num_replicas(batch_size, 4) for batch_size in (8, 32, 5, 3, 1)] == [4, 4, 2, 1, 1]


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["train_ucf101.py", "--dataset", "my ucf", "--gpus", "4", "--ema-decay", "0.9"],
         "torchrun --nproc-per-node 4 train_ucf101.py --dataset 'my ucf' --ema-decay 0.9"),
        (["/here/train/__main__.py", "--gpus=4", "--dataset", "d"],
         "torchrun --nproc-per-node 4 -m train --dataset d"),
    ],
)  # fmt: skip
def test_torchrun_command_has_the_flags_of_the_run(argv: list[str], command: str) -> None:
    assert torchrun_command(4, argv) == command


def test_small_batches_stay_on_one_device() -> None:
    network = DataParallel(torch.nn.Linear(3, 2), num_gpus=4)
    assert network(torch.zeros(2, 3)).shape == (2, 2)


@pytest.mark.parametrize("enabled", [True, False])
def test_replicas_compute_in_the_precision_of_the_main_thread(enabled: bool) -> None:
    """torch's threads computed in fp16 where bf16 was chosen."""
    linear = torch.nn.Linear(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), ThreadPoolExecutor(1) as thread:
        output = thread.submit(AutocastModule(linear, "cpu"), torch.zeros(1, 3)).result()
    assert output.dtype == (torch.bfloat16 if enabled else torch.float32)
