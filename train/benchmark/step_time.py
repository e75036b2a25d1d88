"""The real training step, timed: that of the run's own trainer, on clips in memory and through the loader."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from data.batch_sampler import BatchShape
from data.datasets import CUSTOM
from data.video_iterator import Batch
from train.builders import make_schedule, make_state, make_trainer
from train.dry_run import flops_of
from train.engine import AUTOCAST, Trainer
from train.lr_schedule import LRSchedule
from train.multigrid import Step
from train.options import Options
from train.parallel.devices import choose_backends
from train.parallel.distributed import DistContext
from train.run import Run

BACKWARD = 2  # times the operations of the forward pass: gradients of the inputs, and of the weights


class StepConfig(NamedTuple):
    """How a step is computed: `precision` fp32, bf16 or fp16, `layout` of weights in memory, eager or compiled."""

    precision: str
    channels_last: bool
    compiled: bool

    def __str__(self) -> str:
        layout = "channels-last" if self.channels_last else "contiguous"
        return f"{self.precision} {layout} {'compiled' if self.compiled else 'eager'}"


class StepTime(NamedTuple):
    """Of one shape: a step's time, and what it makes of the device. `gigabytes`: the most it held, None on a CPU."""

    shape: BatchShape
    seconds: float
    clips_per_second: float
    teraflops: float
    gigabytes: float | None


class LoadingTime(NamedTuple):
    """Of the steps of one shape, read by the loader: how many, their time, and how long they waited for clips."""

    shape: BatchShape
    steps: int
    seconds: float
    waited: float


def make_measured(options: Options, num_classes: int) -> Trainer:
    """The trainer that a run with these options, resolved ones, begins with."""
    device, dist = torch.device("cuda", 0) if options.gpus else torch.device("cpu"), DistContext()
    return make_trainer(options, make_state(options, num_classes, device, dist), device, dist)


def peak_matmul_flops(device: torch.device, precision: str) -> float:
    """TFLOP/s of matrix products with the libraries that steps use: the best of several sizes, layouts and tries.

    The layouts are those of a layer's output and of its two gradients, which differ tenfold for bf16 on CPUs.
    """
    choose_backends(device, precision)
    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32
    settings.allow_tf32 = torch.backends.cudnn.allow_tf32  # products in fp32 round as convolutions do
    best = 0.0
    for size in (128, 512, 1024) if device.type == "cpu" else (1024, 8192):
        matrix = torch.randn(size, size, device=device, dtype=AUTOCAST[precision])
        pairs = [(matrix, matrix.T), (matrix, matrix), (matrix.T, matrix)]
        seconds = [_seconds_of_product(*pair) for pair in pairs for _ in range(3)]
        best = max(best, 2 * size**3 / min(seconds))
        if max(seconds) > 0.1:  # the next size would take long
            break
    settings.allow_tf32 = before
    return best / 1e12


def _seconds_of_product(one: torch.Tensor, other: torch.Tensor) -> float:
    """The average over a twentieth of a second."""
    started, products = time.perf_counter(), 0
    while products == 0 or time.perf_counter() - started < 0.05:
        one @ other
        _wait(one.device)
        products += 1
    return (time.perf_counter() - started) / products


def time_steps(
    options: Options,
    combination: StepConfig,
    shapes: list[BatchShape],
    *,
    num_classes: int,
    warmup: int,
    repeats: int,
) -> Iterator[StepTime]:
    """Each shape in turn, on one batch of random pixels that lies on the device."""
    precision, channels_last, compiled = combination
    options = replace(options, precision=precision, channels_last=channels_last, compile=compiled)
    trainer = make_measured(options, num_classes)
    trainer.learning_rate = LRSchedule(1e-9, "step", (), 1.0, 1, 0)  # noise teaches nothing, and stays finite
    operations = flops_of(options, num_classes)
    for shape in shapes:
        batch = _random_batch(shape, num_classes, trainer.device)
        _run_steps(trainer, shape, batch, warmup)
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        _run_steps(trainer, shape, batch, repeats)
        seconds = (time.perf_counter() - started) / repeats
        rate = shape.batch / seconds
        yield StepTime(
            shape=shape,
            seconds=seconds,
            clips_per_second=rate,
            teraflops=rate * (1 + BACKWARD) * operations(shape.length, shape.size) / 1e12,
            gigabytes=torch.cuda.max_memory_allocated() / 1e9 if trainer.device.type == "cuda" else None,
        )


def _random_batch(shape: BatchShape, num_classes: int, device: torch.device) -> Batch:
    size = (shape.batch, shape.length, shape.size, shape.size, 3)
    labels = torch.arange(shape.batch, device=device) % num_classes
    clips = torch.randint(256, size, dtype=torch.uint8, device=device)
    return Batch(clips, labels, labels, [])


def _run_steps(trainer: Trainer, shape: BatchShape, batch: Batch, count: int) -> None:
    for _ in trainer.train_epoch(1, [Step(0, shape)] * count, [batch] * count):
        pass
    _wait(trainer.device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def time_loading(options: Options, clips: int) -> list[LoadingTime]:
    """An epoch of `clips` clips of the data set, read, augmented and trained on as in a run; a row a shape.

    The first step, whose clips nobody could read ahead, is left out.
    """
    run = Run(CUSTOM, options, DistContext())
    schedule = make_schedule(run.options, min(clips, len(run.dataset.train)), run.operations)
    steps = schedule.epoch(1)
    if len(steps) < 2:
        raise ValueError(f"--loader-clips {clips}: is a single step at these shapes, needs at least two")
    run.loaders.plan.set_epoch(1, [step.shape for step in steps])
    rows: dict[BatchShape, LoadingTime] = {}
    before = None
    for report in run.trainer.train_epoch(1, steps, run.loaders.train):
        run.trainer.check_finite()  # waits for a GPU: what follows is the next step's
        now = time.perf_counter()
        if before is not None:
            _, count, seconds, waited = rows.get(report.shape, LoadingTime(report.shape, 0, 0.0, 0.0))
            waited += report.waited
            rows[report.shape] = LoadingTime(report.shape, count + 1, seconds + now - before, waited)
        before = now
    return list(rows.values())
