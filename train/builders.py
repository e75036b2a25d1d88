"""The parts of a run, made from its options; train/main.py puts them together."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from humanfriendly.terminal import terminal_supports_colors
from torch import nn

from data.batch_sampler import BatchShape, Part, TrainBatchSampler, ValBatchSampler
from data.clip_loader import ClipLoader, choose_prefetch_factor, shared_memory_bytes
from data.video_iterator import Batch, TrainDataset, ValDataset, make_loader
from data.video_list import Dataset
from network import create_network
from train.callbacks import (
    AccuracyMonitor,
    Callback,
    CorruptSampleLogger,
    CSVLogger,
    GateMonitor,
    Monitor,
    ProgressLogger,
    ShapeMonitor,
    SpeedMonitor,
    TensorBoardLogger,
)
from train.dry_run import Operations
from train.engine import Trainer
from train.lr_schedule import LRSchedule
from train.mixup import MixupCutmix
from train.multigrid import Schedule, cycle_shapes, with_equal_flops
from train.options import Options, network_kwargs
from train.parallel.activation_checkpointing import apply_activation_checkpointing
from train.parallel.batch_norm import convert_sub_batchnorm, convert_sync_batchnorm
from train.parallel.devices import DataParallel, check_compiler, choose_backends
from train.parallel.distributed import DistContext, Evaluated, Shared
from train.state import TrainState, init_state, load_state

logger = logging.getLogger(__name__)


class Loaders(NamedTuple):
    """Batches of clips; `plan` says which ones training gets in an epoch.

    `shared_memory`: bytes of it that the loaders of all processes on this machine hold at most.
    """

    plan: TrainBatchSampler
    train: ClipLoader[Batch]
    val: ClipLoader[Batch]
    shared_memory: int


def least_part(options: Options) -> int:
    """Clips that a process needs to take part in a step: two, unless no norm takes statistics of them alone."""
    return 1 if options.sync_batchnorm or options.freeze_batchnorm else 2


def make_loaders(
    options: Options,
    dataset: Dataset,
    base: BatchShape,
    shapes: Iterable[BatchShape],
    dist: DistContext,
) -> Loaders:
    training = TrainDataset(
        dataset.train,
        intervals=options.train_frame_interval,
        base_length=options.clip_length,
        clip_size=options.clip_size,
        short_side=options.short_side,
        augment=options.augment,
        flip=options.flip,
        frame_sampling=options.frame_sampling,
    )
    validation = ValDataset(dataset.val, interval=options.val_frame_interval, short_side=options.short_side)
    part = Part(dist.rank, dist.size, least_part(options))
    plan = TrainBatchSampler(len(training), options.random_seed, part)
    validation_part = part._replace(least=1)
    parts = [shape._replace(batch=part.largest(shape.batch)) for shape in shapes]
    parts.append(base._replace(batch=validation_part.largest(base.batch)))
    prefetch = choose_prefetch_factor(parts, options.workers, processes=dist.local_size)
    settings = {"workers": options.workers, "prefetch": prefetch}
    return Loaders(
        plan=plan,
        train=make_loader(training, plan, **settings),
        val=make_loader(validation, ValBatchSampler(len(validation), base, validation_part), **settings),
        shared_memory=shared_memory_bytes(parts, options.workers, prefetch) * dist.local_size,
    )


def make_network(options: Options, num_classes: int, dist: DistContext) -> nn.Module:
    """The network with new weights, as training wants it; its weights' names are the plain network's."""
    network = create_network(options.network, num_classes, **network_kwargs(options))
    if options.sync_batchnorm and dist.size > 1:
        convert_sync_batchnorm(network, dist)
    if options.sub_bn_size is not None:
        convert_sub_batchnorm(network, options.sub_bn_size)
        others = sum(isinstance(module, nn.GroupNorm) for module in network.modules())
        if others:
            logger.warning("--sub-bn-size: %d norms of %s are of each clip alone", others, options.network)
    if options.activation_checkpointing:
        apply_activation_checkpointing(network)
    if options.channels_last:
        network.to(memory_format=torch.channels_last_3d)
    return network


def make_learning_rate(options: Options) -> LRSchedule:
    return LRSchedule(
        base=options.lr_base,
        schedule=options.lr_schedule,
        steps=options.lr_steps,
        factor=options.lr_factor,
        end_epoch=options.end_epoch,
        warmup_epochs=options.warmup_epochs,
    )


def make_schedule(options: Options, n_clips: int, operations: Operations) -> Schedule:
    """The shapes of every epoch's steps."""
    base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
    phases = cycle_shapes(base, long_cycles=options.long_cycles, short_cycles=options.short_cycles)
    if options.batch_scaling == "flops":
        phases = with_equal_flops(phases, operations)
    stages = make_learning_rate(options).stages() if options.long_cycle_period == "stage" else ()
    return Schedule(n_clips, phases, stages)


def make_state(
    options: Options,
    num_classes: int,
    device: torch.device,
    dist: DistContext,
    checkpoint: Mapping[str, Any] | None = None,
) -> TrainState:
    """What a run begins with: as a checkpoint has it, else new, from the weights that `options` name if there are."""
    network = make_network(options, num_classes, dist)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    updates = {
        "fine_tune_factor": options.fine_tune_factor,
        "optimizer": options.optimizer,
        "ema": options.ema,
    }
    if checkpoint is None:
        if options.freeze_batchnorm and options.pretrained_3d is None:
            logger.warning("--freeze-batchnorm: without --pretrained-3d FILE norms pass on what they get")
        weights = {"weights": options.pretrained_3d, "layout": options.pretrained_format}
        choices = {"channel_order": options.channel_order, "fine_tune": options.fine_tune}
        return init_state(network, scaler, device, **weights, **choices, **updates)
    state = load_state(network, scaler, device, checkpoint=checkpoint, **updates)
    if not dist.is_main_process:
        state.sums.zero_()  # counted by the first process
    return state


def make_trainer(options: Options, state: TrainState, device: torch.device, dist: DistContext) -> Trainer:
    choose_backends(device, options.precision)
    if options.compile:
        check_compiler(device)
    network = _wrapped(state.network, options)
    if dist.size > 1:
        sizes = {"classes": state.network.fc.out_features, "gates": len(state.network.gate_names)}
        network = Shared(network, dist, device, **sizes, sync_batchnorm=options.sync_batchnorm)
    return Trainer(
        network=network,
        validated=Evaluated(_wrapped(state.average.network, options), dist) if options.ema else network,
        optimizer=state.optimizer,
        scaler=state.scaler,
        learning_rate=make_learning_rate(options),
        normalization=state.normalization,
        regularisation=MixupCutmix(
            label_smoothing=options.label_smoothing,
            mixup=options.mixup,
            cutmix=options.cutmix,
            seed=options.random_seed,
        ),
        device=device,
        precision=options.precision,
        accumulate=options.accumulate,
        clip_grad_norm=options.clip_grad_norm,
        log_gates=bool(options.gates),
        freeze_batchnorm=options.freeze_batchnorm,
        processes=dist.size,
    )


def _wrapped(network: nn.Module, options: Options) -> nn.Module:
    if options.compile:
        # blocks share their code, and each meets every shape of the cycles: more variants than torch expects
        torch._dynamo.config.recompile_limit = 1024
        torch._dynamo.config.accumulated_recompile_limit = 4096
        network = torch.compile(network)
    return DataParallel(network, options.gpus) if options.gpus > 1 else network


def make_callbacks(
    options: Options,
    folder: Path,
    first_epoch: int,
    gate_names: Sequence[str],
    device: torch.device,
    dist: DistContext,
) -> list[Callback]:
    """What watches; only the first process writes, but all add up what is logged."""
    monitors: list[Monitor] = [
        AccuracyMonitor(device, dist),
        SpeedMonitor(colored=terminal_supports_colors(sys.stderr)),
        ShapeMonitor(),
    ]
    if options.gates:
        monitors.append(GateMonitor(gate_names, device, dist))
    progress = ProgressLogger(monitors, options.log_interval, options.end_epoch)
    if not dist.is_main_process:
        return [progress]
    table = CSVLogger(folder, first_epoch, gate_names)
    callbacks = [CorruptSampleLogger(folder / "bad_samples.csv"), progress, table]
    if options.tensorboard:
        callbacks.append(TensorBoardLogger(folder))
    return callbacks
