"""A campaign of faults: runs disturbed at random moments, and resumed until they end, against one left alone."""

import csv
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault_injection.faults import DAMAGING, ENDING, HARMLESS, Fault, Scene, shared_memory_filled
from tests.fault_injection.processes import BrokenPromiseError, Training
from tests.train.crash_recovery import make_dataset
from tests.train.helpers import NAME, SMALL, assert_same_weights, folder, rows
from train.checkpointing.checkpoint import best_path, epoch_path, load_checkpoint

# thirty steps an epoch; a checkpoint within it every second or so
WORDS = ["--batch-size", "2", "--save-minutes", "0.02", "--log-interval", "1", "--lr-schedule", "cosine"]
WORDS += ["--workers", "2", "--on-full-disk", "continue", "--lr-base", "0.0005"]
LENIENT = ["--max-bad-samples", "1", "--skip-bad-samples"]
TRIES = 60  # starts of one run, of which each gets further than the one before


@dataclass
class Campaign:
    """Faults so far, by kind. `owns_shared_memory`: whether /dev/shm is nobody else's and may be filled.

    `ending`: the share of faults that end the run, which is then started again.
    """

    place: Path
    randomness: random.Random
    epochs: int
    owns_shared_memory: bool
    ending: float = 0.06
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    starts: int = 0
    stopped: int = 0  # with status 1 or 2, one line, and gone on with

    def __post_init__(self) -> None:
        make_dataset(self.place / "set")
        self.undisturbed = self.place / "undisturbed"
        training = self._start(self.undisturbed, [])
        try:
            training.wait_until(lambda: False, seconds=3600)
        finally:
            training.kill()
        if training.status() != 0:
            raise BrokenPromiseError(training.said())
        training.check_nothing_is_left(self.owns_shared_memory)

    def disturb(self, go_on: Callable[[], bool]) -> None:
        """A run under faults after which nothing may be different."""
        results = self.place / "disturbed"
        self._run(results, [], HARMLESS, go_on)
        self._compare(folder(results), folder(self.undisturbed))
        for split in ("train", "val"):
            if rows(results, split) != rows(self.undisturbed, split):
                raise BrokenPromiseError(f"rows of {split} are {rows(results, split)}")
        shutil.rmtree(results)

    def damage(self, go_on: Callable[[], bool]) -> None:
        """A run whose stores are damaged and mended again; what could not be read is named, and no row is missing."""
        results = self.place / "damaged"
        words = self.randomness.choice(([], LENIENT))
        self._run(results, words, DAMAGING, go_on)
        for split in ("train", "val"):
            epochs = [row[0] for row in rows(results, split)]
            if epochs != [str(epoch) for epoch in range(1, self.epochs + 1)]:
                raise BrokenPromiseError(f"rows of {split} are there for epochs {epochs}")
        bad = folder(results) / "bad_samples.csv"
        if bad.exists():
            with bad.open(newline="") as file:
                for row in csv.DictReader(file):
                    if not row["Reason"].startswith(row["Video"]):
                        raise BrokenPromiseError(f"a reason that does not name the store: {row}")
        shutil.rmtree(results)

    def _compare(self, disturbed: Path, undisturbed: Path) -> None:
        """Weights bit for bit. A full disk may have cost those of an epoch before the last, and the best."""
        last = epoch_path(disturbed, NAME, self.epochs)
        paths = {last, *(path for path in disturbed.glob("*_ep-*.pth"))}
        for path in sorted(paths):
            assert_same_weights(path, undisturbed / path.name)
        found = [best_path(place, NAME) for place in (disturbed, undisturbed)]
        if found[0].exists() and len({load_checkpoint(path)["epoch"] for path in found}) == 1:
            assert_same_weights(*found)
        if left := list(disturbed.glob(".*.pth*")):
            raise BrokenPromiseError(f"left behind: {left}")

    def _run(
        self,
        results: Path,
        words: list[str],
        faults: Mapping[Fault, int],
        go_on: Callable[[], bool],
    ) -> None:
        """Start, disturb and resume a run until it ends with status 0, at its last epoch."""
        self.runs += 1
        for _ in range(TRIES):
            if self.owns_shared_memory and self.randomness.random() < 0.1:
                self._start_without_shared_memory(results, words)
            training = self._start(results, words)
            try:
                scene = Scene(training, self.place / "set", results, self.randomness, self.owns_shared_memory)
                training.wait_until(lambda training=training: training.steps > 0)
                while training.is_running() and go_on():
                    self._inject(scene, ENDING if self.randomness.random() < self.ending else faults)
                training.wait_until(lambda: False, seconds=3600)
            finally:
                training.kill()
            status = training.status()
            training.check_nothing_is_left(self.owns_shared_memory)
            if status == 0:
                return
            self.stopped += status in (1, 2)
        raise BrokenPromiseError(f"no end after {TRIES} starts: {training.said()}")

    def _inject(self, scene: Scene, faults: Mapping[Fault, int]) -> None:
        time.sleep(self.randomness.expovariate(4))
        fault = self.randomness.choices(list(faults), weights=list(faults.values()))[0]
        if scene.training.is_running() and fault(scene):
            self.faults[fault.__name__.replace("_", " ")] += 1

    def _start(self, results: Path, words: list[str]) -> Training:
        self.starts += 1
        command = ["--dataset", str(self.place / "set"), "--model-dir", str(results), *SMALL, *WORDS, *words]
        command += ["--end-epoch", str(self.epochs), "--resume-epoch", "auto"]
        return Training(command, self.place / f"temporary {self.starts}")

    def _start_without_shared_memory(self, results: Path, words: list[str]) -> None:
        with shared_memory_filled(0):
            training = self._start(results, words)
            training.wait_until(lambda: False)
        if training.status() != 2 or "/dev/shm" not in training.said():
            raise BrokenPromiseError(f"no shared memory, and it says {training.said()}")
        training.check_nothing_is_left(self.owns_shared_memory)
        self.faults["started without shared memory"] += 1
