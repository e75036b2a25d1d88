"""The parts of a run, made from its options; train/run.py puts them together."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from humanfriendly.terminal import terminal_supports_colors
from torch import nn
from torch.utils.data import DataLoader

from data.batching import BatchShape, TrainingBatches, ValidationBatches
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
from train.loop import Trainer
from train.lr_scheduler import LearningRate
from train.normalisation import Normalisation
from train.options import Options
from train.state import TrainingState


class Loaders(NamedTuple):
    """Batches of clips; `plan` says which ones training gets in an epoch."""

    plan: TrainingBatches
    train: DataLoader[Batch]
    val: DataLoader[Batch]


def make_loaders(
    options: Options, dataset: Dataset, base: BatchShape, *, prefetch: int, pin_memory: bool
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
    plan = TrainingBatches(len(training), options.random_seed)
    return Loaders(
        plan=plan,
        train=make_loader(training, plan, workers=options.workers, pin_memory=pin_memory, prefetch=prefetch),
        val=make_loader(
            validation,
            ValidationBatches(len(validation), base),
            workers=options.workers,
            pin_memory=pin_memory,
            prefetch=prefetch,
        ),
    )


def make_trainer(
    options: Options, state: TrainingState, normalisation: Normalisation, device: torch.device
) -> Trainer:
    return Trainer(
        network=_wrapped(state.network, options.compile, options.gpus),
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
        normalisation=normalisation,
        device=device,
        precision=options.precision,
        clip_gradient=options.clip_gradient,
        watch_gates=bool(options.gates),
    )


def _wrapped(network: nn.Module, compiled: bool, gpus: int) -> nn.Module:
    if compiled:
        # blocks share their code, and each meets every shape of the cycles: more variants than torch expects
        torch._dynamo.config.recompile_limit = 1024
        torch._dynamo.config.accumulated_recompile_limit = 4096
        return torch.compile(network)
    return Replicas(network, gpus) if gpus > 1 else network


def make_callbacks(
    options: Options, folder: Path, first_epoch: int, gate_names: Sequence[str], device: torch.device
) -> list[Callback]:
    monitors: list[Monitor] = [
        AccuracyMonitor(device),
        SpeedMonitor(coloured=terminal_supports_colors(sys.stderr)),
        ShapeMonitor(),
    ]
    if options.gates:
        monitors.append(GateMonitor(gate_names))
    callbacks: list[Callback] = [
        BadSampleLog(folder / "bad_samples.csv"),
        ProgressLog(monitors, options.log_interval, options.end_epoch),
        ResultsTable(folder, first_epoch),
    ]
    if options.tensorboard:
        callbacks.append(TensorBoardLog(folder))
    return callbacks
