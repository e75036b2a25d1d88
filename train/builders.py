"""The parts of a run, made from its options; train/main.py puts them together."""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from humanfriendly.terminal import terminal_supports_colors
from torch import nn

from data.batch_sampler import BatchShape, Part, TrainingBatches, ValidationBatches
from data.clip_loader import ClipLoader, fitting_prefetch, shared_memory_bytes
from data.video_iterator import Batch, TrainingClips, ValidationClips, make_loader
from data.video_list import Dataset
from network import create_network
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
from train.dry_run import Operations
from train.engine import Trainer
from train.lr_schedule import LearningRate
from train.mixup import Regularisation
from train.multigrid import Schedule, cycle_shapes, with_equal_operations
from train.options import Options, network_choices
from train.parallel.activation_checkpointing import recompute_blocks
from train.parallel.batch_norm import group_norms, synchronise
from train.parallel.devices import Replicas, check_compiler, choose_backends
from train.parallel.distributed import Evaluated, Shared, World
from train.state import TrainingState, new_state, resumed_state

logger = logging.getLogger(__name__)


class Loaders(NamedTuple):
    """Batches of clips; `plan` says which ones training gets in an epoch.

    `shared_memory`: bytes of it that the loaders of all processes on this machine hold at most.
    """

    plan: TrainingBatches
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
    world: World,
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
    validation_part = part._replace(least=1)
    parts = [shape._replace(batch=part.largest(shape.batch)) for shape in shapes]
    parts.append(base._replace(batch=validation_part.largest(base.batch)))
    prefetch = fitting_prefetch(parts, options.workers, processes=world.local_size)
    settings = {"workers": options.workers, "prefetch": prefetch}
    return Loaders(
        plan=plan,
        train=make_loader(training, plan, **settings),
        val=make_loader(validation, ValidationBatches(len(validation), base, validation_part), **settings),
        shared_memory=shared_memory_bytes(parts, options.workers, prefetch) * world.local_size,
    )


def make_network(options: Options, num_classes: int, world: World) -> nn.Module:
    """The network with new weights, as training wants it; its weights' names are the plain network's."""
    network = create_network(options.network, num_classes, **network_choices(options))
    if options.sync_batchnorm and world.size > 1:
        synchronise(network, world)
    if options.bn_group is not None:
        group_norms(network, options.bn_group)
        others = sum(isinstance(module, nn.GroupNorm) for module in network.modules())
        if others:
            logger.warning("--bn-group: %d norms of %s are of each clip alone", others, options.network)
    if options.checkpoint_activations:
        recompute_blocks(network)
    if options.channels_last:
        network.to(memory_format=torch.channels_last_3d)
    return network


def make_learning_rate(options: Options) -> LearningRate:
    return LearningRate(
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
    if options.batch_rule == "flops":
        phases = with_equal_operations(phases, operations)
    stages = make_learning_rate(options).stages() if options.long_cycle_span == "stage" else ()
    return Schedule(n_clips, phases, stages)


def make_state(
    options: Options,
    num_classes: int,
    device: torch.device,
    world: World,
    checkpoint: Mapping[str, Any] | None = None,
) -> TrainingState:
    """What a run begins with: as a checkpoint has it, else new, from the weights that `options` name if there are."""
    network = make_network(options, num_classes, world)
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    updates = {
        "fine_tune_factor": options.fine_tune_factor,
        "optimiser": options.optimiser,
        "ema": options.ema,
    }
    if checkpoint is None:
        if options.freeze_batchnorm and options.pretrained_3d is None:
            logger.warning("--freeze-batchnorm: without --pretrained-3d FILE norms pass on what they get")
        weights = {"weights": options.pretrained_3d, "layout": options.pretrained_layout}
        choices = {"channel_order": options.channel_order, "fine_tune": options.fine_tune}
        return new_state(network, scaler, device, **weights, **choices, **updates)
    state = resumed_state(network, scaler, device, checkpoint=checkpoint, **updates)
    if not world.is_first:
        state.sums.zero_()  # counted by the first process
    return state


def make_trainer(options: Options, state: TrainingState, device: torch.device, world: World) -> Trainer:
    choose_backends(device, options.precision)
    if options.compile:
        check_compiler(device)
    network = _wrapped(state.network, options)
    if world.size > 1:
        sizes = {"classes": state.network.fc.out_features, "gates": len(state.network.gate_names)}
        network = Shared(network, world, device, **sizes, synchronised=options.sync_batchnorm)
    return Trainer(
        network=network,
        validated=Evaluated(_wrapped(state.average.network, options), world) if options.ema else network,
        optimiser=state.optimiser,
        scaler=state.scaler,
        learning_rate=make_learning_rate(options),
        normalisation=state.normalisation,
        regularisation=Regularisation(
            label_smoothing=options.label_smoothing,
            mixup=options.mixup,
            cutmix=options.cutmix,
            seed=options.random_seed,
        ),
        device=device,
        precision=options.precision,
        accumulate=options.accumulate,
        clip_gradient=options.clip_gradient,
        watch_gates=bool(options.gates),
        freeze_batchnorm=options.freeze_batchnorm,
        processes=world.size,
    )


def _wrapped(network: nn.Module, options: Options) -> nn.Module:
    if options.compile:
        # blocks share their code, and each meets every shape of the cycles: more variants than torch expects
        torch._dynamo.config.recompile_limit = 1024
        torch._dynamo.config.accumulated_recompile_limit = 4096
        network = torch.compile(network)
    return Replicas(network, options.gpus) if options.gpus > 1 else network


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
    table = ResultsTable(folder, first_epoch, gate_names)
    callbacks = [BadSampleLog(folder / "bad_samples.csv"), progress, table]
    if options.tensorboard:
        callbacks.append(TensorBoardLog(folder))
    return callbacks
