"""The training loop: `Trainer.train_epoch` and `Trainer.evaluate`. Callbacks observe it through its step reports."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from data.batch_sampler import BatchShape
from data.clip_batch import BadSample, Batch, Chunks
from data.video_transforms import augment_batch
from train.input_norm import ClipNormalizer
from train.lr_schedule import LRSchedule
from train.metrics import batch_metric_sums, zero_metric_sums
from train.mixup import MixupCutmix, mixed_metric_sums
from train.multigrid import Step
from train.optimizer import set_lr
from train.parallel.batch_norm import freeze_batchnorm, precise_running_stats
from train.parallel.data_parallel import num_replicas
from train.parallel.devices import oom_as, peak_memory
from train.parallel.distributed import DDPModel, DistContext
from train.parallel.prefetcher import DevicePrefetcher
from train.parallel.step_timer import StepTimer, StepTimes

AUTOCAST_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOO_FEW_VALUES = "Expected more than 1 value per channel when training"  # of BatchNorm
NO_PREDICTIONS = torch.zeros(0, 2, dtype=torch.long)
MIN_LOSS_SCALE = 2.0**-14  # GradScaler starts at 2^16 and halves with each skipped step: 30 in a row


class TrainingError(RuntimeError):
    """The run cannot continue; the message says where it stopped and why."""


class StepOutOfMemoryError(TrainingError):
    """A step needs more memory than the device has."""


class CorruptSamplesError(TrainingError):
    """Too many clips cannot be read; the state after the last step is still good."""


def corrupt_validation_error(sample: BadSample) -> CorruptSamplesError:
    hint = "--skip-bad-samples continues without such videos"
    return CorruptSamplesError(f"validation: {sample.reason}; {hint}")


class StepReport(NamedTuple):
    """The result of a step of training, or of validation, where `lr` is 0 and gates are not counted.

    `shape`: of the batch over all ranks. `corrupt`: its samples that could not be read. Sums over this rank's clips, on
    the device: `sums` `(4,)` (see train.metrics) and `gate_sums` `(gates,)`. `data_time`: seconds spent waiting for the
    batch; `seconds`: those and the time until the report. `times`: of the steps that the device has completed since the
    last report; on a GPU, which is not waited for, usually the previous one. `peak_memory`: see
    `train.parallel.devices.peak_memory`. `predictions`: label and predicted class of this rank's clips in validation,
    `(clips, 2)`, on the device.
    """

    epoch: int
    step: int  # from 0
    num_steps: int
    shape: BatchShape
    lr: float
    sums: Tensor
    gate_sums: Tensor
    data_time: float
    seconds: float
    times: StepTimes
    peak_memory: int
    corrupt: Sequence[BadSample]
    predictions: Tensor = NO_PREDICTIONS


@dataclass
class Trainer:
    """A network, maybe wrapped for several GPUs or compiled, and what updates it.

    Of `world_size` ranks each computes its shard of a batch; DDP averages the gradients. `eval_network` is validated:
    the network itself or its EMA, wrapped likewise. A batch is split into up to `accumulate` micro-batches of at least
    two clips.
    """

    network: nn.Module
    eval_network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    lr_schedule: LRSchedule
    normalization: ClipNormalizer
    mixup: MixupCutmix
    device: torch.device
    precision: str
    accumulate: int
    clip_grad_norm: float | None
    log_gates: bool
    freeze_batchnorm: bool = False
    world_size: int = 1
    prefetcher: DevicePrefetcher = field(init=False)
    timer: StepTimer = field(init=False)
    unchecked: list[tuple[str, Tensor]] = field(default_factory=list)  # steps whose loss was not checked yet

    def __post_init__(self) -> None:
        self.prefetcher = DevicePrefetcher(self.device)
        self.timer = StepTimer(self.device)

    def train_epoch(
        self, epoch: int, steps: Sequence[Step], batches: Iterable[Chunks], first_step: int = 0
    ) -> Iterator[StepReport]:
        """Train an epoch from `first_step` on, on batches in chunks; yield a report after each step."""
        self.network.train()
        if self.freeze_batchnorm:
            freeze_batchnorm(self.network)
        requested_at = time.perf_counter()
        for step, batch in enumerate(self._prefetch(batches), start=first_step):
            data_time = time.perf_counter() - requested_at
            phase, shape = steps[step]
            where = f"epoch {epoch}, step {step + 1}"
            if batch.bad and len(batch.labels) == 0:
                raise CorruptSamplesError(f"{where}: no clip could be read, {batch.bad[-1].reason}")
            lr = self.lr_schedule.at(epoch, step, len(steps), phase)
            set_lr(self.optimizer, lr)
            where += f", batch {shape}, learning rate {lr:.4g}"
            oom = f"{where}: out of memory; --accumulate 2, --activation-checkpointing or a lower --batch-size may help"
            try:
                with oom_as(StepOutOfMemoryError, oom):
                    sums, gate_sums = self._update(batch, shape, epoch, step)
            except ValueError as error:
                if not str(error).startswith(TOO_FEW_VALUES):
                    raise
                raise TrainingError(f"{where}: {error}; raise --batch-size or --clip-size") from error
            self.unchecked.append((where, sums))
            if self.device.type == "cpu":
                self.check_finite()
            cost = data_time, time.perf_counter() - requested_at, self.timer.read(), peak_memory(self.device)
            yield StepReport(epoch, step, len(steps), shape, lr, sums, gate_sums, *cost, batch.bad)
            requested_at = time.perf_counter()

    def _update(self, batch: Batch, shape: BatchShape, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Train on this rank's shard, maybe empty, of a batch of `shape`. Returns metric and gate sums."""
        self.timer.start(shape.batch)
        network = self.network
        clips = augment_batch(batch.clips, batch.augmentations, shape.size)
        mixed = self.mixup.mix(self.normalization(clips), batch.labels, epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        sums, gates = zero_metric_sums(self.device), []
        num_micro_batches = num_replicas(len(mixed.labels), self.accumulate)
        micro_batches = list(mixed.micro_batches(max(1, -(-len(mixed.labels) // num_micro_batches))))
        for micro_batch in micro_batches:
            # ranks exchange their gradients with the last micro-batch
            is_last = micro_batch is micro_batches[-1]
            with nullcontext() if is_last or not isinstance(network, DDPModel) else network.no_sync():
                logits, gate_values = self._forward(network, micro_batch.clips)
                loss = self.mixup.loss(logits, micro_batch)  # a sum over clips; 0 on an idle rank
                self.timer.forward_done()
                self.scaler.scale(loss * (self.world_size / shape.batch)).backward()
            sums += mixed_metric_sums(logits.detach(), micro_batch, loss.detach())
            gates.append(gate_values.detach())
            self.timer.backward_done()
        if self.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.timer.backward_done()
        return sums, torch.cat(gates).sum(dim=0)

    def _prefetch(self, batches: Iterable[Chunks]) -> Iterator[Batch]:
        """Yield the batches, gathered from their chunks, on the device."""
        oom = "reading or copying a batch: out of memory; a lower --batch-size may help"
        with oom_as(StepOutOfMemoryError, oom):
            yield from self.prefetcher(batches)

    def _forward(self, network: Callable[..., Any], clips: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(B, classes)` in fp32 and gate values `(B, gates)`."""
        dtype = AUTOCAST_DTYPES[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32"):
            if self.log_gates:
                logits, gates = network(clips, return_gates=True)
            else:
                logits, gates = network(clips), clips.new_zeros(len(clips), 0)
        return logits.float(), gates

    @torch.no_grad()
    def update_batchnorm(self, network: nn.Module, batches: Iterable[Chunks], dist: DistContext) -> None:
        """Set the running statistics of a network, one that is not wrapped, to those of this rank's `batches`."""
        network.train()
        oom = "precise BatchNorm: out of memory; a lower --batch-size or --precise-bn 0 may help"
        with oom_as(StepOutOfMemoryError, oom), precise_running_stats(network, dist):
            for batch in self._prefetch(batches):
                if len(batch.labels):
                    clips = self.normalization(batch.clips)
                    self._forward(network.forward, clips)  # not compiled: its graphs are for other modes

    @torch.no_grad()
    def evaluate(
        self, epoch: int, num_videos: int, base: BatchShape, batches: Iterable[Chunks], skip_bad_samples: bool
    ) -> Iterator[StepReport]:
        """Validate all videos in batches of `base`; yield a report after each. Corrupt ones raise unless skipped."""
        self.eval_network.eval()
        timer, no_gates = StepTimer(self.device), torch.zeros(0, device=self.device)
        requested_at = time.perf_counter()
        num_steps = -(-num_videos // base.batch)
        for step, batch in enumerate(self._prefetch(batches)):
            data_time = time.perf_counter() - requested_at
            shape = base._replace(batch=min(base.batch, num_videos - step * base.batch))
            if batch.bad and not skip_bad_samples:
                raise corrupt_validation_error(batch.bad[0])
            sums, predictions = zero_metric_sums(self.device), NO_PREDICTIONS.to(self.device)
            timer.start(shape.batch)
            if len(batch.labels):
                oom = "validation: out of memory; a lower --batch-size may help"
                with oom_as(StepOutOfMemoryError, oom):
                    logits, _ = self._forward(self.eval_network, self.normalization(batch.clips))
                loss = nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
                sums = batch_metric_sums(logits, batch.labels, loss)
                predictions = torch.stack([batch.labels, logits.argmax(dim=1)], dim=1)
            timer.forward_done()
            cost = data_time, time.perf_counter() - requested_at, timer.read(), peak_memory(self.device)
            yield StepReport(
                epoch, step, num_steps, shape, 0.0, sums, no_gates, *cost, batch.bad, predictions
            )
            requested_at = time.perf_counter()

    def check_finite(self) -> None:
        """Raise TrainingError if a loss since the last check is not finite, or fp16 has broken the run: by a collapsed
        loss scale, or by BatchNorm running statistics, which skipped steps update too. Waits for a GPU.
        """
        steps, self.unchecked = self.unchecked, []
        if not steps:
            return
        if not self.scaler.is_enabled():
            finite = torch.isfinite(torch.stack([sums for _, sums in steps])).all(dim=1).tolist()
            if not all(finite):
                where, _ = steps[finite.index(False)]
                raise TrainingError(
                    f"{where}: the loss is not finite; a lower --lr-base or --clip-grad-norm may help"
                )
            return
        where, _ = steps[-1]
        hint = "--precision bf16 may help"
        if self.scaler.get_scale() < MIN_LOSS_SCALE:
            raise TrainingError(f"{where}: loss scale collapsed: 30 consecutive skipped steps; {hint}")
        stats = [buffer for buffer in self.network.buffers() if buffer.is_floating_point()]
        if stats and not torch.stack(torch._foreach_norm(stats)).isfinite().all():
            raise TrainingError(f"{where}: BatchNorm running stats contain NaN/Inf; {hint}")
