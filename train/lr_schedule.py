"""Learning rate (LR) schedule: a pure function of epoch and step, so that resuming needs no state."""

import math
from dataclasses import dataclass

SCHEDULES = ("step", "cosine")


@dataclass(frozen=True)
class LRSchedule:
    """Step or cosine decay with linear warm-up, scaled for multigrid's long cycle.

    `base` is the LR of the first phase of the long cycle and halves with each phase (linear scaling of the published
    batch sizes, also with `--batch-scaling flops`). Short cycles do not change the LR. `schedule` "step" multiplies it
    by `gamma` after each of the epochs `steps`; "cosine" is half a cosine to 0 at `end_epoch`.
    """

    base: float
    schedule: str
    steps: tuple[int, ...]
    gamma: float
    end_epoch: int
    warmup_epochs: float

    def stages(self) -> tuple[int, ...]:
        """Return the last epoch of each stage of constant LR: steps 15 30 of 40 epochs -> 15, 30, 40; cosine: one."""
        decays = self.steps if self.schedule == "step" else ()
        return (*(last for last in decays if last < self.end_epoch), self.end_epoch)

    def at(self, epoch: int, step: int, num_steps: int, phase: int) -> float:
        """Return the LR of a step (from 0) of an epoch (from 1) in a phase (from 0) of the long cycle."""
        epochs_done = epoch - 1 + step / num_steps
        lr = self.base * 0.5**phase
        if self.schedule == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * epochs_done / self.end_epoch))
        else:
            lr *= self.gamma ** sum(epoch > last for last in self.steps)
        if self.warmup_epochs:
            lr *= min(1.0, (epochs_done + 1 / num_steps) / self.warmup_epochs)
        return lr
