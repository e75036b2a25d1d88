"""The training loop. It acts; callbacks observe, through the frozen report of each step."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.batch_sampler import BatchShape
from data.video_iterator import BadSample, Batch
from train.input_norm import ClipNormalizer
from train.lr_schedule import LRSchedule
from train.metrics import batch_metric_sums, zero_metric_sums
from train.mixup import MixupCutmix, mixed_sums
from train.multigrid import Step
from train.optimizer import set_learning_rate
from train.parallel.batch_norm import freeze
from train.parallel.devices import num_replicas, oom_as
from train.parallel.prefetcher import DevicePrefetcher
from train.parallel.step_timer import StepTimer, Times, clock_of

logger = logging.getLogger(__name__)

AUTOCAST = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LOWEST_SCALE = 2.0**-14  # the fp16 scaler starts at 2^16 and halves with each skipped step: thirty in a row


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says where it stopped and why."""


class StepOutOfMemoryError(TrainingError):
    """A step takes more memory than there is."""


class UnreadableClipsError(TrainingError):
    """It is the clips that cannot be read: the state is the one after the last step, and as good as any."""


def unreadable_in_validation(sample: BadSample) -> UnreadableClipsError:
    return UnreadableClipsError(
        f"validation: {sample.reason}; --skip-bad-samples goes on without such videos"
    )


class StepReport(NamedTuple):
    """What a step did. `shape` is that of the whole batch, `bad` what could not be read of it.

    On the device, and summed over this process's clips: `sums` `(4,)` (see train.metrics) and `openings` `(gates,)`.
    `waited`: seconds until the batch was there. `times` are those of the steps that the device has done since the last
    report: on the CPU this one, on a GPU, for which nothing waits, most often the one before.
    """

    epoch: int
    step: int  # from 0
    n_steps: int
    shape: BatchShape
    learning_rate: float
    sums: Tensor
    openings: Tensor
    waited: float
    times: Times
    bad: Sequence[BadSample]


@dataclass
class Trainer:
    """A network and what updates it. `network` may be wrapped for several GPUs or compiled.

    With several `processes` each computes its part of a batch, and the average of their gradients is the gradient of
    the mean loss over the batch.
    `validated` is the network whose score counts, wrapped likewise: itself, or one whose weights are an average of its.
    A batch goes through in `accumulate` parts, or fewer where a part would be a single clip.
    """

    network: nn.Module
    validated: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    learning_rate: LRSchedule
    normalization: ClipNormalizer
    regularisation: MixupCutmix
    device: torch.device
    precision: str
    accumulate: int
    clip_grad_norm: float | None
    log_gates: bool
    freeze_batchnorm: bool = False
    processes: int = 1
    copier: DevicePrefetcher = field(init=False)
    timer: StepTimer = field(init=False)
    unchecked: list[tuple[str, Tensor]] = field(default_factory=list)  # steps whose loss nobody has looked at

    def __post_init__(self) -> None:
        self.copier = DevicePrefetcher(self.device)
        self.timer = StepTimer(clock_of(self.device))

    def train_epoch(
        self, epoch: int, steps: Sequence[Step], batches: Iterable[Batch], first_step: int = 0
    ) -> Iterator[StepReport]:
        """Train an epoch from `first_step`; each step is reported when it is done."""
        self.network.train()
        if self.freeze_batchnorm:
            freeze(self.network)
        asked = time.perf_counter()
        for step, batch in enumerate(batches, start=first_step):
            waited = time.perf_counter() - asked
            phase, shape = steps[step]
            if batch.bad and len(batch.labels) == 0:
                raise UnreadableClipsError(
                    f"epoch {epoch}, step {step + 1}: no clip could be read, {batch.bad[-1].reason}"
                )
            rate = self.learning_rate.at(epoch, step, len(steps), phase)
            set_learning_rate(self.optimizer, rate)
            place = f"epoch {epoch}, step {step + 1}, batch {shape}, learning rate {rate:.4g}"
            short = (
                "out of memory; --accumulate 2, --activation-checkpointing or a lower --batch-size may help"
            )
            try:
                with oom_as(StepOutOfMemoryError, f"{place}: {short}"):
                    sums, openings = self._update(batch, shape.batch, epoch, step)
            except ValueError as error:  # torch's, where a norm has one value a channel
                raise TrainingError(f"{place}: {error}; raise --batch-size or --clip-size") from error
            self.unchecked.append((place, sums))
            if self.device.type == "cpu":
                self.check_finite()
            times = self.timer.read()
            yield StepReport(epoch, step, len(steps), shape, rate, sums, openings, waited, times, batch.bad)
            asked = time.perf_counter()

    def _update(self, batch: Batch, clips: int, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Train with this process's part of a batch of `clips` clips, which may be none."""
        self.timer.start(clips)
        mixed = self.regularisation.mix(*self._on_device(batch), epoch, step)
        self.optimizer.zero_grad(set_to_none=True)
        sums, openings = zero_metric_sums(self.device), []
        parts = list(mixed.parts(self._part_size(len(mixed.labels))))
        for number, part in enumerate(parts, start=1):
            with self._gradients_kept(last=number == len(parts)):
                logits, opening = self._forward(self.network, part.clips)
                loss = self.regularisation.loss(logits, part)  # 0 where this process sits out
                self.timer.forward_done()
                self.scaler.scale(loss * (self.processes / clips)).backward()
            sums += mixed_sums(logits.detach(), part, loss.detach() / max(len(part.labels), 1))
            openings.append(opening.detach())
            self.timer.backward_done()
        self._apply_gradient()
        self.timer.backward_done()
        return sums, torch.cat(openings).sum(dim=0)

    def _part_size(self, clips: int) -> int:
        return max(1, -(-clips // num_replicas(clips, self.accumulate)))

    def _gradients_kept(self, last: bool) -> AbstractContextManager:
        """Within, gradients of several processes stay their own until the last part of a batch adds them all up."""
        return nullcontext() if last or self.processes == 1 else self.network.parallel.no_sync()

    def _apply_gradient(self) -> None:
        if self.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The network's input `(B, 3, T, H, W)` and labels."""
        clips, labels = self.copier(batch.clips, batch.labels)
        return self.normalization(clips), labels

    def _forward(self, network: nn.Module, clips: Tensor) -> tuple[Tensor, Tensor]:
        """Logits in fp32 `(B, classes)`, openings of the gates `(B, gates)`."""
        dtype = AUTOCAST[self.precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32"):
            if self.log_gates:
                logits, openings = network(clips, return_gates=True)
            else:
                logits, openings = network(clips), clips.new_zeros(len(clips), 0)
        return logits.float(), openings

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], skip_bad_samples: bool) -> tuple[Tensor, list[BadSample]]:
        """Sums `(4,)` over all clips, and what could not be read: an error unless it may be skipped."""
        self.validated.eval()
        sums = zero_metric_sums(self.device)
        bad: list[BadSample] = []
        for batch in batches:
            bad += batch.bad
            if batch.bad and not skip_bad_samples:
                raise unreadable_in_validation(batch.bad[0])
            if len(batch.labels):
                clips, labels = self._on_device(batch)
                short = "validation: out of memory; a lower --batch-size may help"
                with oom_as(StepOutOfMemoryError, short):
                    logits, _ = self._forward(self.validated, clips)
                sums += batch_metric_sums(logits, labels, nn.functional.cross_entropy(logits, labels))
        return sums, bad

    def check_finite(self) -> None:
        """Stop at a loss that is no number, or where fp16 has skipped steps for long, or has spoilt a norm's running
        statistics for good. Waits for a GPU.
        """
        steps, self.unchecked = self.unchecked, []
        if not steps:
            return
        if self.scaler.is_enabled():
            if self.scaler.get_scale() < LOWEST_SCALE:
                raise TrainingError(
                    f"{steps[-1][0]}: fp16 has skipped every step for long; --precision bf16 may help"
                )
            statistics = [value for value in self.network.buffers() if value.is_floating_point()]
            if statistics and not torch.stack(torch._foreach_norm(statistics)).isfinite().all():
                raise TrainingError(
                    f"{steps[-1][0]}: running statistics of a norm are not finite; --precision bf16 may help"
                )
            return
        finite = torch.isfinite(torch.stack([sums for _, sums in steps])).all(dim=1).tolist()
        if not all(finite):
            place, _ = steps[finite.index(False)]
            raise TrainingError(
                f"{place}: the loss is not finite; a lower --lr-base or --clip-grad-norm may help"
            )
