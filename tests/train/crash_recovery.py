"""A campaign of kills: one run again and again, killed at random moments and resumed, against one left alone.

`python -m tests.train.crash_recovery --kills 200` is what `make soak` runs.
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

from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import NAME, assert_same_weights, folder, rows, start

labels_main = main_of("data.labels")

# a checkpoint within an epoch every third of a second or so
WORDS = ["--batch-size", "2", "--save-minutes", "0.005", "--log-interval", "1"]
WORDS += ["--workers", "1", "--clip-size", "48", "--short-side", "48", "--lr-schedule", "cosine"]


def make_dataset(root: Path, videos_per_class: int = 24) -> None:
    """Of 24 videos a class 60 are for training: thirty steps an epoch."""
    make_stores(
        root, {name: [str(i) for i in range(videos_per_class)] for name in ("a", "b", "c")}, n_frames=8
    )
    make_labels(root)


def make_labels(root: Path) -> None:
    labels_main(["folders", str(root), "--val", "0.17"])


@dataclass
class Campaign:
    """Kills so far, and where they fell."""

    dataset: Path
    place: Path
    randomness: random.Random
    epochs: int = 3
    fell: Counter = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        return self.fell.total()

    def undisturbed(self) -> Path:
        results = self.place / "undisturbed"
        if not results.exists():
            self._run_to_the_end(results)
        return results

    def run_killed(self, kills: int) -> None:
        """A run killed `kills` times, or fewer if it ends before; then compared with the undisturbed one."""
        results = self.place / "killed"
        for _ in range(kills):
            if not self._start_and_kill(results):
                break
        self._run_to_the_end(results)
        compare(results, self.undisturbed(), self.epochs)
        shutil.rmtree(results)

    @property
    def log(self) -> Path:
        return self.place / "log"

    def _start(self, results: Path) -> ForkProcess:
        self.log.write_text("")
        words = [*WORDS, "--end-epoch", str(self.epochs), "--resume-epoch", "auto"]
        return start(self.log, self.dataset, results, *words)

    def _run_to_the_end(self, results: Path) -> None:
        process = self._start(results)
        process.join()
        assert process.exitcode == 0, self.log.read_text()

    def _start_and_kill(self, results: Path) -> bool:
        """Whether the run was killed before its end."""
        process = self._start(results)
        # one in eight while it starts, which takes half a second or so, the others soon after one of the first steps
        if self.randomness.random() < 1 / 8:
            moment = self.randomness.uniform(0, 1)
        else:
            self._wait_for_steps(process, self.randomness.randint(1, 8))
            moment = self.randomness.uniform(0, 0.4)
        process.join(moment)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)  # workers too, as a machine that goes down would
            process.join()
            self.fell[self._what_it_did(results, process.pid)] += 1
            return True
        assert process.exitcode == 0, self.log.read_text()
        return False

    def _wait_for_steps(self, process: ForkProcess, steps: int) -> None:
        while process.is_alive() and self._steps_logged() < steps:
            time.sleep(0.01)

    def _steps_logged(self) -> int:
        """Not with them: which step the run will go on with, as is logged long before it does."""
        return len(re.findall(r" epoch \d+/\d+ step \d+/", self.log.read_text()))

    def _what_it_did(self, results: Path, process: int) -> str:
        if list(results.glob(f"*/.*.pth.{process}")):
            return "writing a checkpoint"
        if not self._steps_logged():
            return "starting"
        return "between or within steps, validation and rows"


def compare(killed: Path, undisturbed: Path, epochs: int) -> None:
    """Weights bit for bit, and Epoch, Top1, Top5 and Loss of each row; nothing half-written is left."""
    name = f"{NAME}_ep-{{:04d}}.pth".format
    for epoch in range(1, epochs + 1):
        assert_same_weights(folder(killed) / name(epoch), folder(undisturbed) / name(epoch))
    assert_same_weights(folder(killed) / f"{NAME}_best.pth", folder(undisturbed) / f"{NAME}_best.pth")
    for split in ("train", "val"):
        assert rows(killed, split) == rows(undisturbed, split)
    assert list(folder(killed).glob(".*")) == []


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.train.crash_recovery", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-per-run", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)  # before the processes that inherit it are forked
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        make_dataset(Path(place) / "set")
        campaign = Campaign(Path(place) / "set", Path(place), random.Random(arguments.seed))
        runs = 0
        while campaign.kills < arguments.kills:
            campaign.run_killed(min(arguments.kills_per_run, arguments.kills - campaign.kills))
            runs += 1
            print(f"{runs} runs, {campaign.kills} kills, all alike: {dict(campaign.fell)}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
