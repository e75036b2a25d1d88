"""What a run will take: a few clips are read and a few steps trained, and both multiplied by the schedule."""

import itertools
import logging
import math
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch

from data.batch_sampler import BatchShape, ClipSpec, clip_seed, epoch_order
from data.clip_batch import Sample, collate
from data.common.cpus import cpus_per_rank
from data.video_iterator import TrainDataset
from train.builders import make_state, make_trainer
from train.engine import Trainer
from train.multigrid import Step
from train.parallel.distributed import DistContext
from train.plan import Plan

logger = logging.getLogger(__name__)

SECONDS = 40.0  # of measuring, a quarter of it reading
MAX_STEPS = 20  # timed of each shape
CPU_STEP = 3e11  # FLOPs of a timed step on a CPU, or two clips; a whole batch could take minutes
# what a clip costs without training it, relative to a training step: reading, computing, bytes
FORWARD = np.array([1, 1 / 3, 1])
HEADER = "   epochs  reading s  computing s   bound by  workers needed  disk MB/s    total s  batches"
ROW = (
    "%(epochs)9s %(reading_seconds)10.1f %(computing_seconds)12.1f %(bound_by)10s %(workers_needed)15d "
    "%(disk_mb_per_second)10.1f %(total_seconds)10.1f  %(batches)s"
)


def predict(
    reading: float, computing: float, size: float, *, cores: int, workers: int, threads: int, disk: float
) -> dict[str, Any]:
    """Return the figures of a phase, by its CPU seconds of reading, seconds of computing and bytes of JPEGs.

    `threads`: cores that compute, 0 on a GPU. `disk`: bytes per second.
    """
    parts = {"reading": reading / max(1, min(workers, cores)), "computing": computing, "disk": size / disk}
    # a CPU reads and computes on the same cores; without workers one waits for the other
    shared = (reading + threads * computing) / cores if workers else reading + computing
    total = max(shared, *parts.values())
    return {
        "reading_seconds": parts["reading"],
        "computing_seconds": computing,
        "bound_by": max(parts, key=lambda name: parts[name]),
        "workers_needed": math.ceil(reading / computing),
        "disk_mb_per_second": size / total / 1e6,
        "total_seconds": total,
    }


def estimate_run(plan: Plan, train: TrainDataset, ranks: int) -> dict[str, Any]:
    """Return the hours of a whole run and the figures of its phases; log them as a table. Takes about `SECONDS`."""
    options, on_cpu = plan.options, plan.device.type == "cpu" and plan.options.assume_tflops is None
    cores = options.assume_cores or cpus_per_rank() * ranks
    workers = options.assume_cores or options.workers * ranks
    threads, disk = torch.get_num_threads() * ranks if on_cpu else 0, options.assume_disk or math.inf
    costs = _measure(plan, train, ranks)
    phases: list[tuple[tuple[int, int], str, Any]] = []
    for phase in plan.phases:
        shapes = ", ".join(map(str, plan.schedule.phases[phase.phase]))
        phases.append((phase.epochs, shapes, sum(n * costs[clip] for clip, n in phase.clips.items())))
    name = "validation" + ", precise BatchNorm" * (plan.batchnorm_clips > 0)
    forward_clips = options.end_epoch * (len(plan.dataset.val) + plan.batchnorm_clips)
    phases.append(((1, options.end_epoch), name, forward_clips * costs[plan.base[1:]] * FORWARD))
    rows: list[dict[str, Any]] = []
    logger.info(HEADER)
    for (first, last), batches, cost in phases:
        row = predict(*cost, cores=cores, workers=workers, threads=threads, disk=disk)
        rows.append({"epochs": f"{first}-{last}", "batches": batches, **row})
        logger.info(ROW, rows[-1])
    minutes = sum(row["total_seconds"] for row in rows) / 60
    duration = f"{minutes / 60:.1f} hours" if minutes > 60 else f"{minutes:.1f} minutes"
    logger.info("the run takes %s (workers: %d, cores: %d)", duration, workers, cores)
    return {"hours": minutes / 60, "phases": rows}


def _measure(plan: Plan, train: TrainDataset, ranks: int) -> dict[tuple[int, int], np.ndarray]:
    """Return what a training clip of each length and size costs, as `predict` takes it."""
    cv2.setNumThreads(0)  # as in workers
    # pretrained weights cost no time; with a learning rate of 0 losses stay finite
    options = replace(plan.options, pretrained_3d=None, freeze_batchnorm=False, lr_base=0.0)
    state = make_state(options, plan.num_classes, plan.device, DistContext())
    trainer = make_trainer(options, state, plan.device, DistContext())
    shapes = {shape[1:]: shape for shape in sorted({*plan.schedule.shapes(options.end_epoch), plan.base})}
    flops = {clip: 3 * plan.clip_flops(*clip) for clip in shapes}  # the backward pass as two forward passes
    costs: dict[tuple[int, int], np.ndarray] = {}
    deadline, per_flop = time.perf_counter() + SECONDS, 0.0  # seconds
    for clip in sorted(shapes, key=lambda clip: flops[clip]):
        seconds = (deadline - time.perf_counter()) / (len(shapes) - len(costs))
        reading, size, samples = _read(train, clip, seconds / 4)
        batch = -(-shapes[clip].batch // ranks)
        if plan.device.type == "cpu":
            batch = min(batch, max(2, int(CPU_STEP / flops[clip])))
        if options.assume_tflops is not None:
            per_flop = ranks / options.assume_tflops / 1e12
        elif per_flop and batch * flops[clip] * per_flop > deadline - time.perf_counter():
            logger.info("%s: a step takes too long, scaled by FLOPs from the shape before", shapes[clip])
        else:
            step = _time_step(trainer, BatchShape(batch, *clip), samples, seconds / 2)
            per_flop = step / batch / flops[clip]
        costs[clip] = np.array([reading, flops[clip] * per_flop / ranks, size])
    return costs


def _read(train: TrainDataset, clip: tuple[int, int], seconds: float) -> tuple[float, float, list[Sample]]:
    """Read clips for some seconds. Return CPU seconds and bytes of JPEGs of one, and some of the clips."""
    costs: list[tuple[float, int]] = []
    samples: list[Sample] = []
    deadline = time.perf_counter() + seconds
    for index in epoch_order(len(train), seed=0, epoch=1).tolist():
        spec = ClipSpec(index, *clip, clip_seed(0, 1, index))
        started = time.thread_time()
        sample = train[spec]
        reading = time.thread_time() - started
        frames, _ = train.sample(train.videos.folder(sample.index), spec)
        costs.append((reading, sum(map(len, frames.jpegs.values()))))
        samples = [*samples, sample][-8:]
        if time.perf_counter() > deadline:
            break
    return *np.mean(costs[1:] or costs, axis=0), samples  # the first one is slower


def _time_step(trainer: Trainer, shape: BatchShape, samples: list[Sample], seconds: float) -> float:
    """Return the median seconds of the training steps that fit into some seconds."""
    batch = collate([*itertools.islice(itertools.cycle(samples), shape.batch)])
    ends = [time.perf_counter()]
    for _ in trainer.train_epoch(1, [Step(0, shape)] * MAX_STEPS, itertools.repeat([batch], MAX_STEPS)):
        if on_gpu := trainer.device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        if len(ends) > 1 + 4 * on_gpu and ends[-1] - ends[0] > seconds:
            break
    return float(np.median(np.diff(ends)))
