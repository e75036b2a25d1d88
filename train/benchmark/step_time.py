"""Time of training steps by batch shape, with the Trainer of a run."""

import functools
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch.utils.benchmark import Timer

from data.batch_sampler import BatchShape
from data.video_iterator import Batch
from train.builders import make_state, make_trainer
from train.dry_run import ClipFlops
from train.engine import AUTOCAST_DTYPES, Trainer
from train.multigrid import Step
from train.options import Options
from train.parallel.devices import configure_backends
from train.parallel.distributed import DistContext
from train.parallel.step_timer import StepTimes


class StepTime(NamedTuple):
    """Mean seconds of a step of one shape, and of its parts: waiting for data, forward and backward pass with update.

    `flops` are per second, `mfu` is their ratio to `peak_matmul_flops`. `memory`: peak bytes on the GPU, None on a CPU.
    """

    shape: BatchShape
    steps: int
    seconds: float
    data: float
    forward: float
    backward: float
    clips_per_second: float
    flops: float
    mfu: float
    memory: int | None


def make_benchmark_trainer(options: Options, num_classes: int) -> Trainer:
    """Return the trainer with which a run with these (resolved) options starts."""
    device, dist = torch.device("cuda", 0) if options.gpus else torch.device("cpu"), DistContext()
    return make_trainer(options, make_state(options, num_classes, device, dist), device, dist)


@functools.cache
def peak_matmul_flops(device: torch.device, precision: str) -> float:
    """Return the FLOP/s of the fastest of several matrix products, with the libraries that training uses.

    Operands are those of a linear layer's forward and backward pass, which differ tenfold for bf16 on CPUs.
    """
    configure_backends(device, precision)
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    settings.allow_tf32 = torch.backends.cudnn.allow_tf32  # as convolutions in fp32
    best = 0.0
    for size in (128, 512, 1024) if device.type == "cpu" else (1024, 8192):
        matrix = torch.randn(size, size, device=device, dtype=AUTOCAST_DTYPES[precision])
        seconds: list[float] = []
        for left, right in ((matrix, matrix.T), (matrix, matrix), (matrix.T, matrix)):
            operands = {"left": left, "right": right}
            timer = Timer("left @ right", globals=operands, num_threads=torch.get_num_threads())
            seconds += timer.blocked_autorange(min_run_time=0.1).times
        best = max(best, 2 * size**3 / min(seconds))
        if max(seconds) > 0.1:  # the next size would take long
            break
    settings.allow_tf32 = before
    return best


def random_batch(shape: BatchShape, num_classes: int, device: torch.device) -> Batch:
    """Return a batch of random pixels in device memory."""
    size = (shape.batch, shape.length, shape.size, shape.size, 3)
    labels = torch.arange(shape.batch, device=device) % num_classes
    return Batch(torch.randint(256, size, dtype=torch.uint8, device=device), labels, labels, [])


def time_epoch(
    trainer: Trainer, steps: Sequence[Step], batches: Iterable[Batch], clip_flops: ClipFlops, warmup: int
) -> list[StepTime]:
    """Train an epoch and return the mean times of each shape's steps, without its first `warmup`.

    Waits for the GPU after each step.
    """
    is_cuda = trainer.device.type == "cuda"
    timed: dict[BatchShape, list[tuple[float, float, StepTimes, int]]] = defaultdict(list)
    previous = time.perf_counter()
    for report in trainer.train_epoch(1, steps, batches):
        memory = 0
        if is_cuda:
            torch.cuda.synchronize()
            memory = torch.cuda.max_memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        now = time.perf_counter()
        times = StepTimes.sum((report.times, trainer.timer.read()))
        timed[report.shape].append((now - previous, report.data_time, times, memory))
        previous = now
    rows = []
    for shape, measurements in timed.items():
        if len(measurements) <= warmup:
            continue
        seconds, data, times_of_steps, memory_of_steps = zip(*measurements[warmup:], strict=True)
        count, times = len(seconds), StepTimes.sum(times_of_steps)
        clips_per_second = count * shape.batch / sum(seconds)
        flops = clips_per_second * 3 * clip_flops(shape.length, shape.size)  # backward: two forward passes
        rows.append(
            StepTime(
                shape=shape,
                steps=count,
                seconds=sum(seconds) / count,
                data=sum(data) / count,
                forward=times.forward / count,
                backward=times.backward / count,
                clips_per_second=clips_per_second,
                flops=flops,
                mfu=flops / peak_matmul_flops(trainer.device, trainer.precision),
                memory=max(memory_of_steps) if is_cuda else None,
            )
        )
    return rows
