"""Where a run computes: the CPU, a GPU, or several in one process."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import gather, parallel_apply, replicate, scatter

from train.parallel.distributed import DistContext

logger = logging.getLogger(__name__)

# what else torch says, of the CPU and of GPUs that somebody else has filled or taken
SHORTAGES = ("can't allocate memory", "CUDA error: out of memory", "device(s) is/are busy or unavailable")
CLIPS_A_GPU = 8  # of a batch, below which one GPU less is better: norms take statistics of its clips alone


def choose_gpus(wanted: int | None) -> int:
    """How many GPUs to use: all by default, 0 for the CPU. ValueError for more than there are, where there are some."""
    present = torch.cuda.device_count()
    if wanted is None:
        return present
    if wanted > present > 0:
        raise ValueError(f"--gpus {wanted}: this machine has {present}")
    if wanted > present:
        logger.warning("--gpus %d: this machine has none, running on the CPU", wanted)
        return 0
    return wanted


def choose_device(wanted: int | None, dist: DistContext, batch: int = 1) -> tuple[torch.device, int]:
    """Where this process computes, and on how many GPUs. One that was launched with others has the GPU of its rank, or
    the only one that it is shown.

    Where nobody says how many, as many of a machine's as have eight clips of a batch each.
    """
    if not dist.launched:
        gpus = choose_gpus(wanted)
        if wanted is None:
            gpus = min(gpus, max(1, batch // CLIPS_A_GPU))
        return torch.device("cuda", 0) if gpus else torch.device("cpu"), gpus
    if wanted is not None:
        logger.warning("--gpus %d: ignored, each process that is launched takes its own", wanted)
    present, shown = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if present == 1 and shown:
        return torch.device("cuda", 0), 1
    if 0 < present < dist.local_size:
        raise ValueError(f"{dist.local_size} processes were launched here, this machine has {present} GPUs")
    return torch.device("cuda", dist.local_rank) if present else torch.device("cpu"), min(present, 1)


def choose_backends(device: torch.device, precision: str) -> None:
    """Which libraries steps on a device are computed with, from here on."""
    # a run has few shapes: the time to try algorithms for each comes back
    torch.backends.cudnn.benchmark = device.type == "cuda"
    # oneDNN's bf16 gradients of small maps are wrong on some CPUs (torch 2.13 reads memory that nobody set)
    torch.backends.mkldnn.enabled = device.type != "cpu" or precision != "bf16"


class NoCompilerError(ValueError):
    """torch.compile does not work here; the message says why."""


def check_compiler(device: torch.device) -> None:
    """NoCompilerError where nothing can be compiled, as for a CPU without a C++ compiler. Takes some seconds."""
    try:
        torch.compile(torch.neg)(torch.zeros(8, device=device))
    except RuntimeError as error:  # of whatever lies below
        reason = str(error).strip().splitlines()[0]
        raise NoCompilerError(f"--compile: does not work here, {reason}") from error


def num_replicas(batch: int, gpus: int) -> int:
    """How many GPUs share a batch: as many as can have two clips each, which a batch norm needs, and at least one.

    Clips are dealt in equal parts, the last one smaller: 5 clips on 4 GPUs go as 3 and 2.
    """
    for count in range(min(gpus, batch), 1, -1):
        part = -(-batch // count)
        if batch - part * (-(-batch // part) - 1) >= 2:
            return -(-batch // part)
    return 1


def autocast_as_here(function: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """The same function for another thread, to which torch takes over whether autocast is on, but not its type."""
    dtype, enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_enabled(device_type)

    def call(*inputs: Any, **options: Any) -> Any:
        with torch.autocast(device_type, dtype=dtype, enabled=enabled):
            return function(*inputs, **options)

    return call


@contextmanager
def oom_as(kind: type[Exception], message: str) -> Iterator[None]:
    """Within, an error of `kind` is raised where a device, or the machine, has too little memory.

    It is made here: one that is made by who catches it would be held by its own traceback, and hold all its tensors.
    """
    try:
        yield
    except RuntimeError as reason:
        if not isinstance(reason, torch.OutOfMemoryError) and not any(
            text in str(reason) for text in SHORTAGES
        ):
            raise
        raise kind(message) from reason


class DataParallel(nn.Module):
    """Data parallelism in one process, as nn.DataParallel does it, but no replica gets a single clip."""

    def __init__(self, network: nn.Module, gpus: int) -> None:
        super().__init__()
        self.network = network
        self.gpus = gpus

    def forward(self, clips: Tensor, **options: bool) -> Tensor | tuple[Tensor, Tensor]:
        devices = list(range(num_replicas(len(clips), self.gpus)))
        if len(devices) == 1:
            return self.network(clips, **options)
        parts = scatter(clips, devices)
        replicas = [
            autocast_as_here(replica, "cuda")
            for replica in replicate(self.network, devices, detach=not torch.is_grad_enabled())
        ]
        outputs = parallel_apply(replicas, [(part,) for part in parts], [options] * len(parts), devices)
        return gather(outputs, devices[0])
