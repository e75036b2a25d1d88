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
from data.clip_batch import Batch, Sample, collate
from data.common.cpus import cpus_per_rank
from data.video_iterator import TrainDataset, ValDataset
from train.builders import Loaders, make_state, make_trainer
from train.engine import Trainer
from train.multigrid import Step
from train.options import Options
from train.parallel.distributed import DistContext
from train.plan import Plan
from train.preflight import check_first_clips

logger = logging.getLogger(__name__)

SECONDS = 40.0  # of measuring, a quarter of it reading
MAX_CLIPS = 200  # read of each kind
MAX_STEPS = 20  # timed of each kind, after a first one, which is slower
SLOW_CPU = 5e9  # FLOP/s, until a kind was timed
ROW = "%9s %10.4g %12.4g %10s %8d %11.3g %8.3g  %s"

# clips that cost the same: passes (a forward pass is 1, with the backward pass 3), length, size
Kind = tuple[int, int, int]


def predict(
    reading: float, computing: float, size: float, *, cores: int, workers: int, threads: int, disk: float
) -> dict[str, Any]:
    """Return the figures of a phase, by its CPU seconds of reading, seconds of computing and bytes of JPEGs."""
    columns = {"reading": reading / max(1, min(workers, cores)), "computing": computing, "disk": size / disk}
    busy = computing  # and the workers at the same time, but not on the cores of `threads` that compute, 0 on a GPU
    if threads:
        busy = max(busy, (reading + threads * computing) / cores if workers else reading + computing)
    seconds = max(busy, *columns.values())
    return {
        "reading_seconds": columns["reading"],
        "computing_seconds": computing,
        "bound_by": max(columns, key=lambda name: columns[name]),
        "balancing_workers": math.ceil(reading / busy),
        "disk_bytes_per_second": size / seconds,
        "hours": seconds / 3600,
    }


def estimate_run(plan: Plan, options: Options, loaders: Loaders, dist: DistContext) -> dict[str, Any]:
    """Return the hours of a whole run and the figures of its phases; log them as a table. Takes about `SECONDS`."""
    epochs, ranks, middle = options.end_epoch, dist.world_size, (1, *plan.base[1:])
    batches = {(3, *shape[1:]): shape.batch for shape in sorted(plan.schedule.shapes(epochs))}
    costs = _measure(plan, options, loaders, {**batches, middle: plan.base.batch}, ranks)
    phases: list[tuple[tuple[int, int], str, dict[Kind, int]]] = []
    for phase in plan.phases:
        shapes = ", ".join(map(str, plan.schedule.phases[phase.phase]))
        phases.append((phase.epochs, shapes, {(3, *shape): n for shape, n in phase.clips.items()}))
    others = {"precise BatchNorm": plan.batchnorm_clips, "validation": len(plan.dataset.val)}
    phases += [((1, epochs), name, {middle: epochs * n}) for name, n in others.items() if n]
    cores = options.assume_cores or cpus_per_rank() * ranks
    workers = options.assume_cores or options.workers * ranks
    on_cpu = plan.device.type == "cpu" and options.assume_tflops is None
    threads, disk = torch.get_num_threads() * ranks if on_cpu else 0, options.assume_disk or math.inf
    rows = []
    logger.info("   epochs  reading s  computing s   bound by  workers    disk B/s    hours  batches")
    for span, name, clips in phases:
        *totals, scaled = np.sum([n * costs[kind] for kind, n in clips.items()], axis=0)
        row = predict(*totals, cores=cores, workers=workers, threads=threads, disk=disk)
        rows.append({"epochs": span, "batches": name, "scaled_by_flops": bool(scaled), **row})
        logger.info(ROW, f"{span[0]}-{span[1]}", *row.values(), name + ", scaled by FLOPs" * bool(scaled))
    hours = sum(row["hours"] for row in rows)
    logger.info("%.3g hours with %d workers on %d cores", hours, workers, cores)
    return {"hours": hours, "phases": rows}


def _measure(
    plan: Plan, options: Options, loaders: Loaders, batches: dict[Kind, int], ranks: int
) -> dict[Kind, np.ndarray]:
    """Return what a clip of each kind costs, as `predict` takes it, and whether that is scaled by FLOPs: from the kind
    before, for lack of time. `batches`: clips of a step, over all ranks; a CPU is timed with fewer, at least two.
    """
    train, val = loaders.train_dataset, loaders.val_dataset
    check_first_clips(train, val, plan.base, options.skip_bad_samples)
    cv2.setNumThreads(0)  # as in workers
    # pretrained weights cost no time; with a learning rate of 0 losses stay finite
    fresh = replace(options, pretrained_3d=None, freeze_batchnorm=False)
    state = make_state(fresh, plan.num_classes, plan.device, DistContext())
    trainer = make_trainer(replace(options, lr_base=0.0), state, plan.device, DistContext())
    on_cpu, per_flop = plan.device.type == "cpu", 1 / SLOW_CPU  # seconds
    flops = {kind: kind[0] * plan.clip_flops(*kind[1:]) for kind in batches}
    deadline = time.perf_counter() + SECONDS
    costs: dict[Kind, np.ndarray] = {}
    for kind in sorted(batches, key=lambda kind: flops[kind]):
        seconds = (deadline - time.perf_counter()) / (len(batches) - len(costs))
        reading, size, samples = _read(train, train if kind[0] == 3 else val, kind, seconds / 4)
        clips, scaled = -(-batches[kind] // ranks), False
        if on_cpu:
            clips = min(clips, max(2, int(seconds / 4 / flops[kind] / per_flop)))
        if options.assume_tflops is not None:
            per_flop = ranks / options.assume_tflops / 1e12
        elif costs and clips * flops[kind] * per_flop > deadline - time.perf_counter():
            scaled = True
        else:
            batch = collate([*itertools.islice(itertools.cycle(samples), clips)])
            step = _time_step(trainer, kind, batch, 1)
            if (steps := min(MAX_STEPS, int(seconds / 2 / step))) > 0:
                step = _time_step(trainer, kind, batch, steps)
            per_flop = step / clips / flops[kind]
        costs[kind] = np.array([reading, flops[kind] * per_flop / ranks, size, scaled])
    return costs


def _read(
    train: TrainDataset, dataset: TrainDataset | ValDataset, kind: Kind, seconds: float
) -> tuple[float, float, list[Sample]]:
    """Read clips for some seconds. Return CPU seconds and bytes of JPEGs of one, and some of the clips."""
    costs: list[tuple[float, int]] = []
    samples: list[Sample] = []
    deadline = time.perf_counter() + seconds
    for index in epoch_order(len(dataset), seed=0, epoch=1)[:MAX_CLIPS].tolist():
        spec = ClipSpec(index, *kind[1:], clip_seed(0, 1, index))
        started = time.thread_time()
        sample = dataset[spec]
        reading = time.thread_time() - started
        if sample.clip is not None:
            frames, _ = train.sample(dataset.videos.folder(sample.index), spec)
            costs.append((reading, sum(map(len, frames.jpegs.values()))))
            samples = [*samples, sample][-8:]
        if samples and time.perf_counter() > deadline:
            break
    return *np.mean(costs[1:] or costs, axis=0), samples  # the first one is slower


def _time_step(trainer: Trainer, kind: Kind, batch: Batch, steps: int) -> float:
    """Return the seconds of a step, the mean of some."""
    shape, batches = BatchShape(len(batch.labels), *kind[1:]), itertools.repeat([batch], steps)
    started = time.perf_counter()
    if kind[0] == 3:
        reports = trainer.train_epoch(1, [Step(0, shape)] * steps, batches)
    else:
        reports = trainer.evaluate(1, steps * shape.batch, shape, batches, skip_bad_samples=True)
    list(reports)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps
