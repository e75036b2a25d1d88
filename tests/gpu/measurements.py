"""What is measured: training steps, their costliest operations, copies to the device, and inference."""

import gc
import itertools
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from data.batch_sampler import BatchShape
from data.clip_batch import Batch
from data.datasets import CUSTOM
from data.video_transforms import augment_batch, training_clip
from network import benchmark
from network.flops import count_flops
from tests.data.test_device_engine import CLIP_SIZE, encoded, sampled, sent
from tests.gpu.report import Report, Row
from train.benchmark.step_time import make_benchmark_trainer, random_batch, time_steps
from train.engine import StepOutOfMemoryError, Trainer
from train.lr_schedule import LRSchedule
from train.multigrid import Step, cycle_shapes
from train.options import Options, resolve

NUM_CLASSES, PROFILED_STEPS = 400, 10


class OutOfTimeError(Exception):
    """The time of the run is over."""


class Measurement(NamedTuple):
    """`work` returns rows of a table; `labels` and the batch's shape say of what."""

    table: str
    labels: dict[str, str]
    shape: BatchShape
    work: Callable[[BatchShape], list[Row]]

    def rows(self) -> list[Row]:
        """Return the rows at the shape, or at the largest half, quarter, ... of its batch that fits."""
        shape = self.shape
        while True:
            try:
                return [self.labels | {"batch": str(shape)} | row for row in self.work(shape)]
            except (StepOutOfMemoryError, torch.OutOfMemoryError):
                if shape.batch < 4:
                    raise
            shape = shape._replace(batch=shape.batch // 2)
            free_memory()


def measure(plan: list[Measurement], report: Report, deadline: float) -> None:
    """Add the rows of each measurement to a report, or the reason why it has none; stop at a monotonic time."""

    def stop(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    for measurement in plan:
        what = ", ".join([*measurement.labels.values(), str(measurement.shape)])
        try:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, deadline - time.monotonic()))
            table, rows = measurement.table, measurement.rows()
        except (
            Exception
        ) as error:  # out of memory, no compiler, a kernel's error: the others are still measured
            late = time.monotonic() >= deadline
            reason = "out of time" if late else f"{type(error).__name__}: {error}".splitlines()[0]
            table, rows = "not measured", [{"table": measurement.table, "what": what, "reason": reason}]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        report.add(table, *rows)
        print(f"{table}: {what}", flush=True)
        free_memory()
    signal.signal(signal.SIGALRM, before)


def free_memory() -> None:
    gc.collect()
    torch.cuda.empty_cache()


@dataclass
class Bench:
    """Makes measurements on a device. `networks`: the most important first; `base`: the shape without cycles."""

    device: torch.device
    networks: tuple[str, ...]
    base: BatchShape
    repeats: int

    def plan(self) -> list[Measurement]:
        """Return all measurements in order of importance, as the last ones may find no time."""
        steps, passes, networks, base = self.steps, self.passes, self.networks, self.base
        coarsest = cycle_shapes(base, long_cycles=True, short_cycles=True)[0][-1]
        named = [name for name in networks if f"srtg_{name}" not in networks]  # others are there to compare
        first, *others = named
        return [
            *(steps(name, base) for name in networks),
            Measurement("profile", {"network": first}, base, partial(self.costliest_operations, first)),
            *(self.copies(first, clips_from) for clips_from in ("device", "CPU")),
            steps(first, base, mode="compiled"),
            *(steps(name, coarsest) for name in networks),
            *(Measurement("augmentation", {}, shape, self.augmentation) for shape in (coarsest, base)),
            *(steps(name, base, memory="contiguous") for name in named),
            *(passes(name) for name in named),
            *(steps(name, base, mode="compiled") for name in others),
            passes(first, mode="compiled"),
            steps(first, coarsest, mode="compiled"),
            steps(first, base, memory="contiguous", mode="compiled"),
            *(steps(name, coarsest, memory="contiguous") for name in named),
        ]

    def steps(
        self, name: str, shape: BatchShape, *, memory: str = "channels-last", mode: str = "eager"
    ) -> Measurement:
        def work(shape: BatchShape) -> list[Row]:
            trainer = self.trainer(name, memory, mode)
            batch, flops = (
                random_batch(shape, NUM_CLASSES, self.device),
                partial(count_flops, name, NUM_CLASSES),
            )
            timed = partial(time_steps, trainer, batch, shape, flops, repeats=2)
            rows = [timed(warmup=0 if number else 3) for number in range(self.repeats)]
            return [sorted(rows, key=lambda row: row["step ms"])[self.repeats // 2]]

        return Measurement("steps", {"network": name, "memory": memory, "mode": mode}, shape, work)

    def passes(self, name: str, *, mode: str = "eager") -> Measurement:
        def work(shape: BatchShape) -> list[Row]:
            sizes = (
                f"--batch {shape.batch} --length {shape.length} --size {shape.size} --repeats {self.repeats}"
            )
            flags = [*sizes.split(), "--precision", "bf16", "--channels-last"]
            flags += ["--compile"] if mode == "compiled" else []
            forward, both = benchmark.benchmark(name, benchmark.parse_arguments(flags), self.device)
            return [{"forward": forward.median, "forward and backward": both.median}]

        return Measurement("passes", {"network": name, "mode": mode}, self.base, work)

    def copies(self, name: str, clips_from: str) -> Measurement:
        def work(shape: BatchShape) -> list[Row]:
            trainer = self.trainer(name)
            device = self.device if clips_from == "device" else torch.device("cpu")
            batch, count = random_batch(shape, NUM_CLASSES, device), 4 * self.repeats
            train_steps(trainer, batch, shape, 3)
            started = time.perf_counter()
            waiting = train_steps(trainer, batch, shape, count)
            seconds = time.perf_counter() - started
            return [{"step ms": 1000 * seconds / count, "waiting": waiting / seconds}]

        return Measurement("copies", {"network": name, "clips from": clips_from}, self.base, work)

    def augmentation(self, shape: BatchShape) -> list[Row]:
        frames, size = encoded(shape.length), shape.size
        params = [sampled(frames, seed, size) for seed in range(16)]
        row = {}
        for augment in ("fused", "device"):
            started = time.process_time()
            for one in params * self.repeats:
                training_clip(frames, one, size=size, clip_size=CLIP_SIZE, augment=augment)
            seconds = time.process_time() - started
            row[f"worker, {augment}"] = 1000 * seconds / self.repeats / len(params)
        clips, augmentations = sent(frames, params, size)
        chosen = torch.arange(shape.batch) % len(params)
        batch, augmentations = clips[chosen].to(self.device), augmentations[chosen]
        float(augment_batch(batch, augmentations, size).float().mean())  # a warm-up, and waits for a GPU
        started = time.perf_counter()
        for _ in range(self.repeats):
            finished = augment_batch(batch, augmentations, size)
        float(finished[-1].float().mean())
        return [row | {"device": 1000 * (time.perf_counter() - started) / self.repeats}]

    def costliest_operations(self, name: str, shape: BatchShape) -> list[Row]:
        trainer, batch = self.trainer(name), random_batch(shape, NUM_CLASSES, self.device)
        on_gpu = self.device.type == "cuda"
        train_steps(trainer, batch, shape, 3)
        with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as trace:
            train_steps(trainer, batch, shape, PROFILED_STEPS)
        rows = []
        for event in trace.key_averages():
            if (
                event.device_type == DeviceType.CPU and not event.is_user_annotation
            ):  # no kernel, but what starts it
                microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
                row = {"operation": event.key, "calls": event.count / PROFILED_STEPS}
                rows.append(row | {"ms": microseconds / 1000 / PROFILED_STEPS})
        total = sum(row["ms"] for row in rows)
        costliest = sorted(rows, key=lambda row: -row["ms"])[:10]
        return [row | {"share": row["ms"] / total} for row in costliest]

    def trainer(self, name: str, memory: str = "channels-last", mode: str = "eager") -> Trainer:
        torch.compiler.reset()  # networks share code, which torch compiles only for so many variants
        flags = {"channels_last": memory == "channels-last", "compile": mode == "compiled"}
        options = Options(dataset=Path(), network=name, precision="bf16", **flags)
        options = resolve(CUSTOM, options, gpus=int(self.device.type == "cuda"))
        trainer = make_benchmark_trainer(options, NUM_CLASSES)
        trainer.lr_schedule = LRSchedule(1e-9, "step", (), 1.0, 1, 0)  # training on noise stays finite
        return trainer


def train_steps(trainer: Trainer, batch: Batch, shape: BatchShape, count: int) -> float:
    """Train on the same batch in each step, and wait for the device; return the seconds of waiting for clips."""
    reports = trainer.train_epoch(1, [Step(0, shape)] * count, itertools.repeat([batch], count))
    waiting = sum(report.data_time for report in reports)
    trainer.check_finite()  # waits for a GPU
    return waiting
