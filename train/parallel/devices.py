"""Choose the CPU or the GPUs of a run, and report when they are out of memory."""

import logging
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.parallel.distributed import DistContext

logger = logging.getLogger(__name__)

# errors other than torch.OutOfMemoryError: of the CPU, and of GPUs that other processes use
OOM_MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "device(s) is/are busy or unavailable")
MIN_CLIPS_PER_GPU = 8  # by default: BatchNorm sees the clips of its GPU only


def choose_device(requested: int | None, dist: DistContext, batch_size: int = 1) -> tuple[torch.device, int]:
    """Return the (first) device of this process and its number of GPUs, 0 for the CPU.

    By default a single process uses as many GPUs as have `MIN_CLIPS_PER_GPU` clips of a batch each. A rank started by
    torchrun uses the GPU of its local rank, or the only one in CUDA_VISIBLE_DEVICES. Raises ValueError if there are
    some GPUs but fewer than requested, or than ranks.
    """
    available = torch.cuda.device_count()
    if not dist.launched:
        num_gpus = min(available, max(1, batch_size // MIN_CLIPS_PER_GPU)) if requested is None else requested
        if num_gpus > available > 0:
            raise ValueError(f"--gpus {num_gpus}: this machine has {available}")
        if num_gpus > available:
            logger.warning("--gpus %d: no GPU found, running on the CPU", num_gpus)
            num_gpus = 0
        return torch.device("cuda", 0) if num_gpus else torch.device("cpu"), num_gpus
    if requested is not None:
        logger.warning("--gpus %d: ignored, each rank uses one GPU", requested)
    if available == 1 and os.environ.get("CUDA_VISIBLE_DEVICES"):
        return torch.device("cuda", 0), 1
    if 0 < available < dist.local_world_size:
        raise ValueError(f"{dist.local_world_size} ranks were started, but this machine has {available} GPUs")
    return torch.device("cuda", dist.local_rank) if available else torch.device("cpu"), min(available, 1)


def default_precision(gpus: int) -> str:
    """Return the precision for a number of GPUs: bf16, fp16 if they do not compute in bf16, fp32 on the CPU."""
    if gpus == 0:
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def configure_backends(device: torch.device, precision: str, deterministic: bool = False) -> None:
    """Set the process-wide flags of torch, cuDNN and oneDNN for training on a device."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by the first matrix product
    torch.backends.cudnn.deterministic = deterministic
    # a run has few shapes, so benchmarking algorithms for each pays
    torch.backends.cudnn.benchmark = device.type == "cuda" and not deterministic
    # oneDNN's bf16 gradients of small maps are wrong on some CPUs (torch 2.13 reads uninitialized memory)
    torch.backends.mkldnn.enabled = device.type != "cpu" or precision != "bf16"  # type: ignore[assignment]


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use: by tensors on a GPU since the last reset, by this process (RSS) on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes  # macOS counts bytes


class NoCompilerError(ValueError):
    """torch.compile does not work on this machine; the message has the reason."""


def check_compiler(device: torch.device) -> None:
    """Compile a tiny function, which takes seconds. Raises NoCompilerError, as on a CPU without a C++ compiler."""
    try:
        torch.compile(torch.neg)(torch.zeros(8, device=device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise NoCompilerError(f"--compile: does not work on this machine: {reason}") from error


@contextmanager
def oom_as(error_class: type[Exception], message: str) -> Iterator[None]:
    """Raise `error_class(message)` in place of an out-of-memory error of a device or of the machine.

    The error is made here, as one that the caller had made would keep all tensors of its traceback alive.
    """
    try:
        yield
    except RuntimeError as error:
        is_oom = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OOM_MESSAGES)
        if not is_oom:
            raise
        raise error_class(message) from error
