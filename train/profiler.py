"""Trace training steps with torch.profiler."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import profile, schedule

from train.callbacks import Callback
from train.engine import StepReport
from train.trackers import Tracker

logger = logging.getLogger(__name__)


class StepProfiler(Callback):
    """Writes a trace of `num_steps` steps of an epoch, after its first four, and logs the ten costliest operations.

    In a short epoch, fewer steps, after its first two; no trace has validation.
    """

    def __init__(
        self, num_steps: int, path: Path, device: torch.device, trackers: Sequence[Tracker] = ()
    ) -> None:
        self.num_steps = num_steps
        self.path = path
        self.key = f"self_{'cpu' if device.type == 'cpu' else 'device'}_time_total"
        self.trackers = trackers
        self.profile: profile | None = None
        self.is_done = False

    def on_step(self, report: StepReport) -> None:
        num_steps = min(self.num_steps, report.num_steps - 2)
        if self.profile is not None:
            self.profile.step()
            if self.is_done:
                self._stop()
        elif not self.is_done and num_steps > 0 and report.step == min(2, report.num_steps - num_steps - 2):
            self.title = f"epoch {report.epoch} from step {report.step + 3} on"
            # torch discards the step of its warm-up
            steps = schedule(wait=0, warmup=1, active=num_steps, repeat=1)
            self.profile = profile(schedule=steps, on_trace_ready=self._write)
            self.profile.start()

    def _stop(self) -> None:
        assert self.profile is not None
        self.profile.stop()  # writes the steps so far, if the run ends within them
        self.profile = None

    def _write(self, trace: profile) -> None:
        self.is_done = True
        trace.export_chrome_trace(str(self.path))
        operations = trace.key_averages()
        operations[:] = [operation for operation in operations if not operation.is_user_annotation]
        table = operations.table(sort_by=self.key, row_limit=10)
        logger.info("%s: trace of %s, whose costliest operations are\n%s", self.path, self.title, table)
        for tracker in self.trackers:
            tracker.log_text("profile", self.title, table)

    def close(self) -> None:
        if self.profile is not None:
            self._stop()
        elif not self.is_done:
            logger.warning("--profile: nothing was traced, the run was too short")
