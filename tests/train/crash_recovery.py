"""Crash recovery: a run killed at random moments and resumed, compared with an uninterrupted one.

`python -m tests.train.crash_recovery --kills 200` is part of `make soak`.
"""

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch

from tests.train.conftest import make_dataset
from tests.train.helpers import NAME, assert_same_run, assert_same_weights, folder, start

# a checkpoint every few steps
FLAGS = "--batch-size 2 --clip-size 80 --short-side 80 --workers 1 --lr-schedule cosine"
FLAGS += " --save-minutes 0.001 --log-interval 1 --precise-bn 16"


@dataclass
class CrashRecoveryTest:
    """Kills a run; `kills` counts by what it was doing."""

    dataset: Path
    scratch: Path
    generator: random.Random
    epochs: int = 3
    kills: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.log = self.scratch / "log"
        self.reference = self.scratch / "reference"
        self._run_to_the_end(self.reference)

    def run_killed(self, kills: int) -> None:
        """Kill a run up to `kills` times, let it end, and compare it with the uninterrupted one."""
        results = self.scratch / "killed"
        for _ in range(kills):
            if not self._start_and_kill(results):
                break
        self._run_to_the_end(results)
        for epoch in range(1, self.epochs + 1):
            assert_same_run(results, self.reference, f"ep-{epoch:04d}")
        assert_same_weights(*(folder(place) / f"{NAME}_best.pth" for place in (results, self.reference)))
        assert list(folder(results).glob(".*")) == []
        shutil.rmtree(results)

    def _start(self, results: Path) -> ForkProcess:
        self.log.write_text("")
        return start(self.log, self.dataset, results, FLAGS, f"--end-epoch {self.epochs} --resume-epoch auto")

    def _run_to_the_end(self, results: Path) -> None:
        process = self._start(results)
        process.join()
        assert process.exitcode == 0, self.log.read_text()

    def _start_and_kill(self, results: Path) -> bool:
        """Return whether the run was killed before its end."""
        process = self._start(results)
        if self.generator.random() < 1 / 8:  # while it starts
            delay = self.generator.uniform(0, 1)
        else:
            steps = self.generator.randint(1, 8)
            while process.is_alive() and self._num_steps() < steps:
                time.sleep(0.005)
            delay = self.generator.uniform(0, 0.2)
        process.join(delay)
        if process.exitcode is not None:
            assert process.exitcode == 0, self.log.read_text()
            return False
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)  # with its workers, as if the machine went down
        process.join()
        self.kills[self._activity(results, process.pid)] += 1
        return True

    def _num_steps(self) -> int:
        return len(re.findall(r" epoch \d+/\d+ step \d+/", self.log.read_text()))

    def _activity(self, results: Path, pid: int) -> str:
        if list(results.glob(f"*/.*.pth.{pid}")):
            return "saving a checkpoint"
        return "training, validating or logging" if self._num_steps() else "starting"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.train.crash_recovery")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-per-run", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        dataset = make_dataset(Path(scratch) / "set", videos=24, val="0.17")  # thirty steps per epoch
        test = CrashRecoveryTest(dataset, Path(scratch), random.Random(arguments.seed))
        runs = 0
        while test.kills.total() < arguments.kills:
            test.run_killed(min(arguments.kills_per_run, arguments.kills - test.kills.total()))
            runs += 1
            kills = test.kills.total()
            print(f"{runs} runs, {kills} kills, same results: {dict(test.kills)}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
