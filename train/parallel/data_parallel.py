"""Data parallelism over the GPUs of one process."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import data_parallel


def torchrun_command(num_gpus: int, argv: Sequence[str]) -> str:
    """Return the command that starts the run of a `sys.argv` with one process per GPU.

    ["train_ucf101.py", "--dataset", "ucf", "--gpus", "4"] -> torchrun --nproc-per-node 4 train_ucf101.py --dataset ucf
    """
    path = Path(argv[0])
    program = ["-m", path.parent.name] if path.name == "__main__.py" else [argv[0]]
    command = re.sub(r" --gpus[ =]\d+", "", shlex.join([*program, *argv[1:]]))
    return f"torchrun --nproc-per-node {num_gpus} {command}"


def num_replicas(batch_size: int, num_gpus: int) -> int:
    """Return how many GPUs share a batch: as many as get two clips each, which BatchNorm needs; at least one.

    Clips are dealt in equal shards, the last one smaller: 5 clips on 4 GPUs are split 3, 2.
    """
    for count in range(min(num_gpus, batch_size), 1, -1):
        shard = -(-batch_size // count)
        num_shards = -(-batch_size // shard)
        if batch_size - shard * (num_shards - 1) >= 2:
            return num_shards
    return 1


class AutocastModule(nn.Module):
    """A module that runs, in any thread, under the autocast that was active here when it was wrapped.

    `data_parallel` hands on whether autocast is enabled, but not its dtype.
    """

    def __init__(self, module: nn.Module, device_type: str) -> None:
        super().__init__()
        self.module = module
        self.device_type = device_type
        self.dtype = torch.get_autocast_dtype(device_type)
        self.enabled = torch.is_autocast_enabled(device_type)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device_type, dtype=self.dtype, enabled=self.enabled):
            return self.module(*args, **kwargs)


class DataParallel(nn.Module):
    """`nn.DataParallel`, but no replica gets a single clip."""

    def __init__(self, network: nn.Module, num_gpus: int) -> None:
        super().__init__()
        self.network = network
        self.num_gpus = num_gpus

    def forward(self, clips: Tensor, **kwargs: bool) -> Tensor | tuple[Tensor, Tensor]:
        devices = list(range(num_replicas(len(clips), self.num_gpus)))
        if len(devices) == 1:
            return self.network(clips, **kwargs)
        return data_parallel(AutocastModule(self.network, "cuda"), clips, devices, module_kwargs=kwargs)
