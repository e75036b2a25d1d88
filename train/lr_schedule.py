"""The learning rate as a pure function of the options and the place in the run; resuming needs no state."""

import math
from dataclasses import dataclass

SCHEDULES = ("step", "cosine")


@dataclass(frozen=True)
class LRSchedule:
    """`base` belongs to the first phase of the long cycle and halves with each phase, as published batches do (linear
    scaling); it does so too where `--batch-scaling flops` makes them fall by less.

    The short cycle does not change it. `schedule` "step": times `factor` after each of the epochs `steps`; "cosine":
    half a cosine down to 0 at `end_epoch`. It rises linearly from 0 over the first `warmup_epochs`.
    """

    base: float
    schedule: str
    steps: tuple[int, ...]
    factor: float
    end_epoch: int
    warmup_epochs: float

    def stages(self) -> tuple[int, ...]:
        """The last epoch of each stretch between two falls: steps 15 30 of 40 epochs -> 15, 30, 40. A cosine is one."""
        falls = self.steps if self.schedule == "step" else ()
        return (*(last for last in falls if last < self.end_epoch), self.end_epoch)

    def at(self, epoch: int, step: int, n_steps: int, phase: int) -> float:
        """The rate of step `step`, from 0, of `n_steps` in epoch `epoch`, from 1; `phase` of the long cycle, from 0."""
        done = epoch - 1 + step / n_steps  # epochs, in fractions
        rate = self.base * 0.5**phase
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * done / self.end_epoch))
        else:
            rate *= self.factor ** sum(epoch > last for last in self.steps)
        if self.warmup_epochs:
            rate *= min(1.0, (done + 1 / n_steps) / self.warmup_epochs)
        return rate
