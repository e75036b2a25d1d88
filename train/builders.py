"""Factories for the parts of a run, from its options; train/run.py puts them together."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from data.batch_sampler import BatchShape, ClipSpec, RankShard, batchnorm_batches, train_batches, val_batches
from data.clip_loader import ClipLoader, JointDataset, plan_prefetch
from data.device_engine import sent_size
from data.video_iterator import TrainDataset, ValDataset
from data.video_list import DatasetSplits
from network import create_network
from network.compilation import compile_network
from train.callbacks import Callback, CorruptSampleLogger, ProgressLogger
from train.dry_run import ClipFlops
from train.engine import Trainer
from train.lr_schedule import LRSchedule
from train.mixup import MixupCutmix
from train.multigrid import MultigridSchedule, cycle_shapes, with_equal_flops
from train.options import Options, network_kwargs
from train.parallel.activation_checkpointing import apply_activation_checkpointing
from train.parallel.batch_norm import convert_sub_batchnorm, convert_sync_batchnorm
from train.parallel.data_parallel import DataParallel, torchrun_command
from train.parallel.devices import check_compiler, configure_backends
from train.parallel.distributed import BufferSyncedModel, DDPModel, DistContext
from train.profiler import StepProfiler
from train.state import TrainState, init_state
from train.step_cost import StepCostMonitor
from train.trackers import CSVLogger, TensorBoardLogger, Tracker, WandbLogger

logger = logging.getLogger(__name__)


class Loaders(NamedTuple):
    """What is read in a run.

    `clips`: the loader of all its batches: of each epoch those of training, of precise BatchNorm statistics, if any,
    and of validation. `shard`: this rank's of training batches. `shared_memory`: the most bytes that the loaders of all
    ranks on this machine use.
    """

    train_dataset: TrainDataset
    val_dataset: ValDataset
    clips: ClipLoader
    shard: RankShard
    shared_memory: int


def make_loaders(
    options: Options,
    dataset: DatasetSplits,
    base: BatchShape,
    schedule: MultigridSchedule,
    dist: DistContext,
    batchnorm_clips: int,
    done: tuple[int, int] = (0, 0),
) -> Loaders:
    """Return the datasets and their loader.

    `base`: the batch shape of validation. `done`: epochs, and steps of the next one, that are not read again.
    """
    assert options.short_side is not None
    assert options.flip is not None
    train = TrainDataset(
        dataset.train,
        intervals=options.train_frame_interval,
        base_length=options.clip_length,
        clip_size=options.clip_size,
        short_side=options.short_side,
        augment=options.augment,
        flip=options.flip,
        augment_table=options.augment_table,
        frame_sampling=options.frame_sampling,
        target_fps=options.target_fps,
    )
    val = ValDataset(dataset.val, interval=options.val_frame_interval, target_fps=options.target_fps)
    # two clips per rank if BatchNorm statistics are computed on each rank alone
    min_clips = 1 if options.sync_batchnorm or options.freeze_batchnorm else 2
    shard = RankShard(dist.rank, dist.world_size, min_clips)
    val_shard = shard._replace(min_clips=1)
    pairs = shard._replace(min_clips=2)  # also where BatchNorm is synchronized in training
    workers, seed = options.workers, options.random_seed
    epochs_done, steps_done = done
    batchnorm = batchnorm_batches(len(train), batchnorm_clips, base, seed, pairs)

    def batches() -> Iterator[list[tuple[int, ClipSpec]]]:
        for epoch in range(epochs_done + 1, options.end_epoch + 1):
            shapes = [step.shape for step in schedule.epoch(epoch)]
            first_step = steps_done if epoch == epochs_done + 1 else 0
            training = train_batches(len(train), seed, epoch, shapes, first_step, shard)
            for number, phase in enumerate((training, batchnorm, val_batches(len(val), base, val_shard))):
                yield from ([(number, spec) for spec in specs] for specs in phase)

    shapes = schedule.shapes(options.end_epoch)
    sent = partial(sent_size, options.clip_size) if options.augment == "device" else int  # of a size
    largest = [BatchShape(shard.largest(batch), length, sent(size)) for batch, length, size in shapes]
    largest.append(base._replace(batch=val_shard.largest(base.batch)))
    prefetch, shared_memory = plan_prefetch(largest, workers, local_world_size=dist.local_world_size)
    datasets = JointDataset(train, replace(train, augment="none", flip=False), val)
    return Loaders(
        train_dataset=train,
        val_dataset=val,
        clips=ClipLoader(datasets, batches(), workers=workers, prefetch_factor=prefetch),
        shard=shard,
        shared_memory=shared_memory,
    )


def make_network(options: Options, num_classes: int, dist: DistContext) -> nn.Module:
    """Return the network to train, with new weights; parameter names are those of the plain network."""
    network = create_network(options.network, num_classes, **network_kwargs(options))
    if options.sync_batchnorm and dist.world_size > 1:
        convert_sync_batchnorm(network, dist)
    if options.sub_bn_size is not None:
        convert_sub_batchnorm(network, options.sub_bn_size)
    if options.activation_checkpointing:
        apply_activation_checkpointing(network)
    if options.channels_last:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network


def make_lr_schedule(options: Options) -> LRSchedule:
    """Return the learning rate schedule."""
    return LRSchedule(
        base=options.lr_base,
        schedule=options.lr_schedule,
        steps=options.lr_steps,
        gamma=options.lr_factor,
        end_epoch=options.end_epoch,
        warmup_epochs=options.warmup_epochs,
    )


def make_schedule(options: Options, num_clips: int, clip_flops: ClipFlops) -> MultigridSchedule:
    """Return the batch shapes of every epoch."""
    base = BatchShape(options.batch_size, options.clip_length, options.clip_size)
    phases = cycle_shapes(base, long_cycles=options.long_cycles, short_cycles=options.short_cycles)
    if options.batch_scaling == "flops":
        phases = with_equal_flops(phases, clip_flops)
    stages = make_lr_schedule(options).stages() if options.long_cycle_period == "lr-stage" else ()
    return MultigridSchedule(num_clips, phases, stages)


def make_state(
    options: Options,
    num_classes: int,
    device: torch.device,
    dist: DistContext,
    checkpoint: Mapping[str, Any] | None = None,
) -> TrainState:
    """Return the state of a checkpoint, or a new one, with pretrained weights if `options` name them."""
    state = init_state(options, make_network(options, num_classes, dist), device, checkpoint)
    if not dist.is_main_process:
        state.sums.zero_()  # the main process holds those of all ranks
    return state


def make_trainer(options: Options, state: TrainState, device: torch.device, dist: DistContext) -> Trainer:
    """Return the trainer, its networks compiled or wrapped for several GPUs as `options` choose."""
    assert options.precision is not None
    configure_backends(device, options.precision, options.deterministic)
    if options.compile:
        check_compiler(device)
    if options.gpus and options.gpus > 1:
        command = torchrun_command(options.gpus, sys.argv)
        logger.warning("DataParallel is slower than one process per GPU: %s", command)
    network = _wrap(state.network, options)
    if dist.world_size > 1:
        network = DDPModel(
            *(network, dist, device),
            num_classes=state.network.get_parameter("fc.bias").numel(),
            num_gates=len(state.gate_names),
            sync_batchnorm=options.sync_batchnorm,
        )
    eval_network = network
    if options.ema_decay:
        eval_network = BufferSyncedModel(_wrap(state.ema.ema_model, options), dist)
    return Trainer(
        network=network,
        eval_network=eval_network,
        optimizer=state.optimizer,
        scaler=state.scaler,
        lr_schedule=make_lr_schedule(options),
        normalization=state.normalization,
        mixup=MixupCutmix(options.label_smoothing, options.mixup, options.cutmix, seed=options.random_seed),
        device=device,
        precision=options.precision,
        accumulate=options.accumulate,
        clip_grad_norm=options.clip_grad_norm,
        log_gates=bool(options.gates),
        freeze_batchnorm=options.freeze_batchnorm,
        world_size=dist.world_size,
    )


def _wrap(network: nn.Module, options: Options) -> nn.Module:
    if options.compile:
        compile_network(network)
    return DataParallel(network, options.gpus) if options.gpus and options.gpus > 1 else network


def make_callbacks(
    options: Options,
    folder: Path,
    classes: Sequence[str],
    state: TrainState,
    dist: DistContext,
    cost: StepCostMonitor,
) -> list[Callback]:
    """Return the callbacks. Only the main process writes files, but all ranks sum up what is logged."""
    device = state.sums.device
    progress = ProgressLogger(options.log_interval, options.end_epoch, state.gate_names, device, dist, cost)
    if not dist.is_main_process:
        return [progress]
    first_epoch = state.epochs_done + 1
    trackers: list[Tracker] = [CSVLogger(folder, first_epoch, state.gate_names)]
    if options.tensorboard:
        trackers.append(TensorBoardLogger(folder))
    if options.wandb:
        trackers.append(WandbLogger(folder, options, classes))
    callbacks = [CorruptSampleLogger(folder / "bad_samples.csv"), progress]
    if options.profile:
        path = folder / f"profile_s{first_epoch:04d}.pt.trace.json.gz"
        callbacks.append(StepProfiler(options.profile, path, device, trackers))
    return [*callbacks, *trackers]  # the profiler closes first, with a text for them
