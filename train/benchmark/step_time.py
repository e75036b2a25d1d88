"""Time of training steps by batch shape, with the Trainer of a run."""

import functools
import itertools
import time
from typing import Any

import torch
from torch.utils.benchmark import Timer

from data.batch_sampler import BatchShape
from data.clip_batch import Batch
from train.builders import make_state, make_trainer
from train.dry_run import ClipFlops
from train.engine import AUTOCAST_DTYPES, Trainer
from train.multigrid import Step
from train.options import Options
from train.parallel.devices import configure_backends
from train.parallel.distributed import DistContext
from train.parallel.step_timer import StepTimes


def make_benchmark_trainer(options: Options, num_classes: int) -> Trainer:
    """Return the trainer with which a run with these (resolved) options starts."""
    device, dist = torch.device("cuda", 0) if options.gpus else torch.device("cpu"), DistContext()
    return make_trainer(options, make_state(options, num_classes, device, dist), device, dist)


@functools.cache
def peak_matmul_flops(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the fastest matrix product of a large linear layer, with the libraries of training.

    Its forward and backward pass have different operands, whose products differ tenfold for bf16 on CPUs.
    """
    configure_backends(device, precision, torch.are_deterministic_algorithms_enabled())
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    settings.allow_tf32 = torch.backends.cudnn.allow_tf32  # as convolutions in fp32
    size = 512 if device.type == "cpu" else 8192
    matrix = torch.randn(size, size, device=device, dtype=AUTOCAST_DTYPES[precision])
    seconds: list[float] = []
    for left, right in ((matrix, matrix.T), (matrix, matrix), (matrix.T, matrix)):
        operands = {"left": left, "right": right}
        timer = Timer("left @ right", globals=operands, num_threads=torch.get_num_threads())
        seconds += timer.blocked_autorange(min_run_time=0.1).times
    settings.allow_tf32 = before
    return 2 * size**3 / min(seconds)


def random_batch(shape: BatchShape, num_classes: int, device: torch.device) -> Batch:
    """Return a batch of random pixels in device memory."""
    size = (shape.batch, shape.length, shape.size, shape.size, 3)
    labels = torch.arange(shape.batch, device=device) % num_classes
    return Batch(torch.randint(256, size, dtype=torch.uint8, device=device), labels, labels, [])


def time_steps(
    trainer: Trainer, batch: Batch, shape: BatchShape, clip_flops: ClipFlops, *, warmup: int, repeats: int
) -> dict[str, Any]:
    """Train `warmup` steps, then `repeats` steps on the same batch, and return the mean times of the latter.

    "step ms" and its parts "forward" and "backward" (with the update), "clips/s", "TFLOP/s", "MFU" (the ratio to
    `peak_matmul_flops`), and on a GPU "GB", its peak memory.
    """
    is_cuda = trainer.device.type == "cuda"

    def finish() -> StepTimes:
        """Wait for the GPU and return the times of the last steps."""
        if is_cuda:
            torch.cuda.synchronize()
        return trainer.timer.read()

    count = warmup + repeats
    reports = trainer.train_epoch(1, [Step(0, shape)] * count, itertools.repeat([batch], count))
    for _ in range(warmup):
        next(reports)
    finish()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    times = StepTimes.sum([*(report.times for report in reports), finish()])
    seconds = (time.perf_counter() - started) / repeats
    flops = shape.batch * 3 * clip_flops(shape.length, shape.size) / seconds  # backward: two forward passes
    memory = {"GB": torch.cuda.max_memory_allocated() / 1e9} if is_cuda else {}
    return {
        "batch": str(shape),
        "step ms": 1000 * seconds,
        "forward": 1000 * times.forward / repeats,
        "backward": 1000 * times.backward / repeats,
        "clips/s": shape.batch / seconds,
        "TFLOP/s": flops / 1e12,
        "MFU": flops / peak_matmul_flops(trainer.device, trainer.precision),
        **memory,
    }
