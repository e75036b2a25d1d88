"""The plan of a run: everything that follows from its options and the dataset before the network is created."""

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import torch

from data.batch_sampler import BatchShape
from data.datasets import DatasetSpec
from data.video_list import DatasetSplits, load_dataset
from train.builders import make_lr_schedule, make_schedule
from train.dry_run import (
    ClipFlops,
    PhaseSummary,
    check_sizes,
    make_clip_flops,
    relative_flops,
    summarize_schedule,
)
from train.lr_schedule import LRSchedule
from train.multigrid import MultigridSchedule
from train.options import Options, resolve
from train.parallel.devices import choose_device
from train.parallel.distributed import DistContext

PRECISE_BN_FRACTION = 0.1  # of an epoch's time; a clip needs a third of its training step, a forward pass


@dataclass(frozen=True)
class Plan:
    """The options, with all defaults filled in, device, videos and steps of a run. `base`: its base shape."""

    spec: DatasetSpec
    options: Options
    device: torch.device
    dataset: DatasetSplits
    base: BatchShape
    clip_flops: ClipFlops
    schedule: MultigridSchedule
    lr_schedule: LRSchedule

    @property
    def num_classes(self) -> int:
        return len(self.dataset.classes)

    @cached_property
    def phases(self) -> list[PhaseSummary]:
        """The phases of the run, in order."""
        return summarize_schedule(self.schedule, self.lr_schedule, self.clip_flops)

    @property
    def relative_flops(self) -> float:
        """The FLOPs of the run relative to one without cycles."""
        num_clips = len(self.dataset.train) * self.options.end_epoch
        return relative_flops(self.phases, num_clips, self.base, self.clip_flops)

    @property
    def batchnorm_clips(self) -> int:
        """The number of clips that precise BatchNorm statistics are taken from; 0: none."""
        return count_batchnorm_clips(self.options, len(self.dataset.train), self.relative_flops)

    def lr(self, epoch: int, step: int) -> float:
        """Return the learning rate of a step, from 0, of an epoch, from 1."""
        steps = self.schedule.epoch(epoch)
        return self.lr_schedule.at(epoch, step, len(steps), steps[step].phase)


def count_batchnorm_clips(options: Options, num_videos: int, relative_flops: float) -> int:
    """Return `--precise-bn`, but no more clips than take `PRECISE_BN_FRACTION` of the mean epoch, in full batches, at
    least one.
    """
    if not options.precise_bn:
        return 0
    affordable = 3 * PRECISE_BN_FRACTION * relative_flops * num_videos
    clips, batch = min(options.precise_bn, int(affordable)), min(options.batch_size, num_videos)
    return max(1, clips // batch) * batch


def make_plan(spec: DatasetSpec, options: Options, dist: DistContext) -> Plan:
    """Return the plan of a run. Raises ValueError or OSError for options that do not work here; writes nothing."""
    device, gpus = choose_device(options.gpus, dist, options.batch_size)
    options = resolve(spec, options, gpus)
    for package in ("tensorboard", "wandb"):
        if getattr(options, package) and find_spec(package) is None:
            raise ValueError(f"--{package}: needs the package {package}: pip install {package}")
    if options.compile and gpus > 1:
        raise ValueError(f"--compile: works on one GPU, not {gpus}; use --gpus 1")
    dataset = dist.call_on_main(lambda: _load_dataset(spec, options))
    clip_flops = make_clip_flops(options, len(dataset.classes))
    schedule = make_schedule(options, len(dataset.train), clip_flops)
    check_sizes(schedule.shapes(options.end_epoch))
    base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
    lr_schedule = make_lr_schedule(options)
    return Plan(spec, options, device, dataset, base, clip_flops, schedule, lr_schedule)


def _load_dataset(spec: DatasetSpec, options: Options) -> DatasetSplits:
    assert options.dataset is not None
    return load_dataset(
        options.dataset, spec, options.variant, options.labels, options.num_classes, options.max_missing
    )
