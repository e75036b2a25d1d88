"""Multigrid against plain training: the same network, motions and seed, to the same accuracy, by the clock."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.batch_sampler import BatchShape, ClipSpec, TrainBatchSampler, ValBatchSampler
from data.synthetic.shapes import MOTIONS, render
from data.video_iterator import Sample, make_loader
from data.video_sampler import center_clip, random_clip
from train.benchmark.step_time import make_measured
from train.builders import make_schedule
from train.dry_run import flops_of
from train.metrics import averages
from train.options import Options

INTERVAL = 2  # from frame to frame of a clip at the base length
STRETCH = 1.5  # epochs with cycles to those without, as published

VARIANTS: dict[str, dict[str, bool | str]] = {  # besides NO_CYCLES
    "none": {},
    "short": {"short_cycles": True},
    "long-epoch": {"long_cycles": True},
    "long-stage": {"long_cycles": True, "long_cycle_period": "stage"},
    "both-epoch": {"long_cycles": True, "short_cycles": True},
    "both-stage": {"long_cycles": True, "short_cycles": True, "long_cycle_period": "stage"},
}
NO_CYCLES: dict[str, bool | str] = {"long_cycles": False, "short_cycles": False, "long_cycle_period": "epoch"}


class Motions(Dataset[Sample]):
    """Clips of rendered videos in memory, without files or JPEG; a function of the request alone.

    Videos are as long as a clip of `length` frames at interval 2, their motions in turn. Training (`moves`): a random
    clip, faster where it has fewer frames, and a random square; validation: the middle of both.
    """

    def __init__(self, count: int, length: int, size: int, seed: int, moves: bool) -> None:
        self.length = length
        self.moves = moves
        generators = (np.random.default_rng((seed, number)) for number in range(count))
        names = list(MOTIONS)
        self.labels = [number % len(names) for number in range(count)]
        self.videos = [
            render(names[label], generator, INTERVAL * length, size)
            for label, generator in zip(self.labels, generators, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, request: ClipSpec) -> Sample:
        video = self.videos[request.index]
        n_frames, height, width, _ = video.shape
        generator = np.random.default_rng(request.seed)
        if self.moves:
            speed = (1.0, self.length / request.length)
            indices = random_clip(n_frames, request.length, [INTERVAL], generator, speed=speed)
            left = int(generator.integers(width - height + 1))
        else:
            indices, left = center_clip(n_frames, request.length, INTERVAL), (width - height) // 2
        frames = video[indices, :, left : left + height]
        if request.size != height:
            size = (request.size, request.size)
            frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        clip = torch.from_numpy(np.ascontiguousarray(frames))
        return Sample(clip, self.labels[request.index], request.index, [])


class Lap(NamedTuple):
    """After an epoch: seconds, steps and clips of training so far, validation top-1, and that of its training."""

    epoch: int
    seconds: float
    steps: int
    clips: int
    top1: float
    train_top1: float


class Result(NamedTuple):
    """A variant's race: its laps, of which the last is the first to reach the target, if `reached`."""

    variant: str
    epochs: int
    reached: bool
    laps: list[Lap]


def variant_options(options: Options, variant: str, epochs: int) -> Options:
    """From those of plain training. With a long cycle the base shape keeps its rate, so that the first has 8 times."""
    cycles = VARIANTS[variant]
    long = bool(cycles.get("long_cycles"))
    return replace(
        options,
        **(NO_CYCLES | cycles),
        lr_base=options.lr_base * (8 if long else 1),
        end_epoch=round(epochs * STRETCH) if cycles else epochs,
    )


def run_variant(
    variant: str,
    options: Options,
    train: Motions,
    val: Motions,
    target: float,
    on_lap: Callable[[str, Lap], None] = lambda variant, lap: None,
) -> Result:
    """Train from the seed on. The clock runs while training, clips included, and stands while validating."""
    torch.manual_seed(options.random_seed)
    trainer = make_measured(options, len(MOTIONS))
    schedule = make_schedule(options, len(train), flops_of(options, len(MOTIONS)))
    plan = TrainBatchSampler(len(train), options.random_seed)
    loader = make_loader(train, plan, workers=0)
    base = BatchShape(64, options.clip_length, options.clip_size)
    val_loader = make_loader(val, ValBatchSampler(len(val), base), workers=0)
    laps: list[Lap] = []
    seconds, steps_done, clips_done = 0.0, 0, 0
    for epoch in range(1, options.end_epoch + 1):
        steps = schedule.epoch(epoch)
        plan.set_epoch(epoch, [step.shape for step in steps])
        started = time.perf_counter()
        trained = sum((report.sums for report in trainer.train_epoch(epoch, steps, loader)), start=0)
        train_top1 = averages(trained).top1  # also waits for a GPU
        seconds += time.perf_counter() - started
        steps_done += len(steps)
        clips_done += len(train)
        validated, _ = trainer.validate(val_loader, skip_bad_samples=False)
        laps.append(Lap(epoch, seconds, steps_done, clips_done, averages(validated).top1, train_top1))
        on_lap(variant, laps[-1])
        if laps[-1].top1 >= target:
            break
    return Result(variant, options.end_epoch, laps[-1].top1 >= target, laps)
