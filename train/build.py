"""The parts of a run, made from its options; train/run.py puts them together."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from humanfriendly.terminal import terminal_supports_colors
from torch import nn
from torch.utils.data import DataLoader

from data.batching import BatchShape, Part, TrainingBatches, ValidationBatches
from data.labels import Dataset
from data.video_iterator import Batch, TrainingClips, ValidationClips, make_loader
from train.callbacks import (
    AccuracyMonitor,
    BadSampleLog,
    Callback,
    GateMonitor,
    Monitor,
    ProgressLog,
    ResultsTable,
    ShapeMonitor,
    SpeedMonitor,
    TensorBoardLog,
)
from train.devices import Replicas
from train.distributed import Shared, World
from train.loop import Trainer
from train.lr_scheduler import LearningRate
from train.options import Options
from train.state import TrainingState


class Loaders(NamedTuple):
    """Batches of clips; `plan` says which ones training gets in an epoch."""

    plan: TrainingBatches
    train: DataLoader[Batch]
    val: DataLoader[Batch]


def least_part(options: Options) -> int:
    """Clips that a process needs to take part in a step: two, unless no norm takes statistics of them alone."""
    return 1 if options.sync_batchnorm or options.freeze_batchnorm else 2


def make_loaders(
    options: Options, dataset: Dataset, base: BatchShape, world: World, pin_memory: bool
) -> Loaders:
    training = TrainingClips(
        dataset.train,
        intervals=options.train_frame_interval,
        base_length=options.clip_length,
        clip_size=options.clip_size,
        short_side=options.short_side,
        augment=options.augment,
        flip=options.flip,
        frame_sampling=options.frame_sampling,
    )
    validation = ValidationClips(
        dataset.val, interval=options.val_frame_interval, short_side=options.short_side
    )
    part = Part(world.rank, world.size, least_part(options))
    plan = TrainingBatches(len(training), options.random_seed, part)
    return Loaders(
        plan=plan,
        train=make_loader(training, plan, workers=options.workers, pin_memory=pin_memory),
        val=make_loader(
            validation,
            ValidationBatches(len(validation), base, part._replace(least=1)),
            workers=options.workers,
            pin_memory=pin_memory,
        ),
    )


def make_trainer(options: Options, state: TrainingState, device: torch.device, world: World) -> Trainer:
    return Trainer(
        network=_wrapped(state.network, options, device, world),
        optimiser=state.optimiser,
        scaler=state.scaler,
        learning_rate=LearningRate(
            base=options.lr_base,
            schedule=options.lr_schedule,
            steps=options.lr_steps,
            factor=options.lr_factor,
            end_epoch=options.end_epoch,
            warmup_epochs=options.warmup_epochs,
        ),
        normalisation=state.normalisation,
        device=device,
        precision=options.precision,
        clip_gradient=options.clip_gradient,
        watch_gates=bool(options.gates),
        freeze_batchnorm=options.freeze_batchnorm,
        processes=world.size,
    )


def _wrapped(network: nn.Module, options: Options, device: torch.device, world: World) -> nn.Module:
    wrapped = network
    if options.compile:
        # blocks share their code, and each meets every shape of the cycles: more variants than torch expects
        torch._dynamo.config.recompile_limit = 1024
        torch._dynamo.config.accumulated_recompile_limit = 4096
        wrapped = torch.compile(network)
    if options.gpus > 1:
        wrapped = Replicas(wrapped, options.gpus)
    if world.size > 1:
        wrapped = Shared(
            wrapped,
            world,
            device,
            classes=network.fc.out_features,
            gates=len(network.gate_names),
            synchronised=options.sync_batchnorm,
        )
    return wrapped


def make_callbacks(
    options: Options,
    folder: Path,
    first_epoch: int,
    gate_names: Sequence[str],
    device: torch.device,
    world: World,
) -> list[Callback]:
    """What watches; only the first process writes, but all add up what is logged."""
    monitors: list[Monitor] = [
        AccuracyMonitor(device, world),
        SpeedMonitor(coloured=terminal_supports_colors(sys.stderr)),
        ShapeMonitor(),
    ]
    if options.gates:
        monitors.append(GateMonitor(gate_names, device, world))
    progress = ProgressLog(monitors, options.log_interval, options.end_epoch)
    if not world.is_first:
        return [progress]
    callbacks = [BadSampleLog(folder / "bad_samples.csv"), progress, ResultsTable(folder, first_epoch)]
    if options.tensorboard:
        callbacks.append(TensorBoardLog(folder))
    return callbacks
