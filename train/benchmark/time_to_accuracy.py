"""Time to accuracy: train the same network on the same videos with each multigrid config, to the same top-1."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from data.batch_sampler import BatchShape, ClipSpec, batchnorm_batches, train_batches, val_batches
from data.clip_batch import Sample
from data.clip_loader import ClipLoader
from data.synthetic.shapes import MOTION_CLASSES, render_video
from data.video_sampler import center_clip, random_clip
from train.benchmark.step_time import make_benchmark_trainer
from train.builders import make_schedule
from train.dry_run import make_clip_flops, relative_flops, summarize_schedule
from train.metrics import compute_metrics
from train.options import Options
from train.parallel.distributed import DistContext
from train.plan import count_batchnorm_clips

INTERVAL = 2  # temporal stride of a clip at the base length
EPOCH_FACTOR = 1.5  # epochs with cycles to epochs without, as published

CONFIGS = {  # long_cycles, short_cycles, long_cycle_period
    "none": (False, False, "epoch"),
    "short": (False, True, "epoch"),
    "long-epoch": (True, False, "epoch"),
    "long-lr-stage": (True, False, "lr-stage"),
    "both-epoch": (True, True, "epoch"),
    "both-lr-stage": (True, True, "lr-stage"),
}


class MovingShapes(Dataset[Sample]):
    """Rendered videos in memory; a clip is a function of its spec.

    Videos are as long as a clip of `length` frames; their motions take turns. In training, clips and crops are random,
    and shorter clips have a larger stride; in validation both are centered.
    """

    def __init__(self, num_videos: int, length: int, size: int, seed: int, train: bool) -> None:
        self.length = length
        self.train = train
        names = list(MOTION_CLASSES)
        self.labels = [number % len(names) for number in range(num_videos)]
        self.videos = [
            render_video(names[label], np.random.default_rng((seed, number)), INTERVAL * length, size)
            for number, label in enumerate(self.labels)
        ]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, spec: ClipSpec) -> Sample:
        video = self.videos[spec.index]
        num_frames, height, width, _ = video.shape
        generator = np.random.default_rng(spec.seed)
        if self.train:
            speed = (1.0, self.length / spec.length)
            indices = random_clip(num_frames, spec.length, [INTERVAL], generator, speed=speed)
            left = int(generator.integers(width - height + 1))
        else:
            indices, left = center_clip(num_frames, spec.length, INTERVAL), (width - height) // 2
        frames = video[indices, :, left : left + height]
        if spec.size != height:
            size = (spec.size, spec.size)
            frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
        return Sample(torch.from_numpy(np.ascontiguousarray(frames)), self.labels[spec.index], spec.index, [])


class EpochResult(NamedTuple):
    """Training time, steps and clips up to the end of an epoch, and its validation top-1."""

    epoch: int
    seconds: float
    steps: int
    clips: int
    top1: float


def config_options(options: Options, config: str, epochs: int) -> Options:
    """Return the options of a config. `lr_base` is multiplied by 8 with a long cycle: equal LRs at the base shape."""
    long_cycles, short_cycles, period = CONFIGS[config]
    return replace(
        options,
        long_cycles=long_cycles,
        short_cycles=short_cycles,
        long_cycle_period=period,
        lr_base=options.lr_base * (8 if long_cycles else 1),
        end_epoch=round(epochs * EPOCH_FACTOR) if long_cycles or short_cycles else epochs,
    )


def train_to_accuracy(
    options: Options, train: MovingShapes, val: MovingShapes, target: float
) -> Iterator[EpochResult]:
    """Train until validation top-1 reaches `target` or the epochs are over; yield the result of each epoch.

    Times include data loading and precise BatchNorm, not validation.
    """
    torch.manual_seed(options.random_seed)
    trainer = make_benchmark_trainer(options, len(MOTION_CLASSES))
    clip_flops = make_clip_flops(options, len(MOTION_CLASSES))
    schedule = make_schedule(options, len(train), clip_flops)
    base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
    phases = summarize_schedule(schedule, trainer.lr_schedule, clip_flops)
    compute = relative_flops(phases, len(train) * options.end_epoch, base, clip_flops)
    num_batchnorm_clips = count_batchnorm_clips(options, len(train), compute)
    batchnorm = batchnorm_batches(len(train), num_batchnorm_clips, base, options.random_seed)
    val_shape = base._replace(batch=64)
    seconds, num_steps = 0.0, 0
    for epoch in range(1, options.end_epoch + 1):
        steps = schedule.epoch(epoch)
        batches = train_batches(len(train), options.random_seed, epoch, [step.shape for step in steps])
        started = time.perf_counter()
        for _ in trainer.train_epoch(epoch, steps, ClipLoader(train, batches, workers=0)):
            pass
        if batchnorm:
            batchnorm_loader = ClipLoader(train, batchnorm, workers=0)
            trainer.update_batchnorm(trainer.network, batchnorm_loader, DistContext())
        trainer.check_finite()  # waits for the GPU
        seconds += time.perf_counter() - started
        num_steps += len(steps)
        val_loader = ClipLoader(val, val_batches(len(val), val_shape), workers=0)
        reports = trainer.evaluate(epoch, len(val), val_shape, val_loader, skip_bad_samples=False)
        top1 = compute_metrics(torch.stack([report.sums for report in reports]).sum(dim=0)).top1
        yield EpochResult(epoch, seconds, num_steps, epoch * len(train), top1)
        if top1 >= target:
            return
