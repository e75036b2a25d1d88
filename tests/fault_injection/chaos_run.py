"""Runs that are disturbed at random moments and resumed until they end, compared with one that was left alone."""

import csv
import random
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.commands import run_command
from tests.fault_injection.faults import DAMAGING, ENDING, HARMLESS, Fault, Target
from tests.fault_injection.process import BrokenPromiseError, TrainingProcess
from tests.synthetic_frames import make_stores
from tests.train.helpers import assert_same_weights, folder, rows

# thirty steps an epoch, a checkpoint every second or so
TRAINING = shlex.split(
    "--network srtg_tiny --clip-length 4 --clip-size 32 --short-side 36 --batch-size 2 --workers 2 --gpus 0 "
    "--augment none --lr-base 0.0005 --lr-schedule cosine --save-minutes 0.02 --log-interval 1 --resume-epoch auto"
)
SKIP_CORRUPT = ["--max-bad-samples", "1", "--skip-bad-samples"]
MAX_STARTS = 60  # of one run, each of which gets further than the one before


class ChaosRuns:
    """Runs under faults, and counts of what happened. `faults` are those after which nothing may be different."""

    def __init__(
        self, place: Path, rng: random.Random, epochs: int, faults: Mapping[Fault, float] = HARMLESS | ENDING
    ) -> None:
        self.place, self.rng, self.epochs, self.faults = place, rng, epochs, faults
        self.injected: Counter[str] = Counter()
        self.runs = self.starts = self.errors = 0
        self.dataset = place / "set"
        make_stores(self.dataset, {name: [str(i) for i in range(24)] for name in "abc"}, n_frames=8)
        run_command("data.labels", "folders", str(self.dataset), "--val", "0.17")
        training = self._start(place / "undisturbed", [])
        if training.wait() != 0:
            raise BrokenPromiseError(training.log_tail())
        training.check_cleanup()

    def run_disturbed(self, keep_injecting: Callable[[], bool]) -> None:
        """Disturb a run and resume it to its end; compare it with the undisturbed one."""
        results, undisturbed = self.place / "disturbed", self.place / "undisturbed"
        self._run(results, [], self.faults, keep_injecting)
        for path in (*folder(undisturbed).glob("*_ep-*.pth"), *folder(undisturbed).glob("*_best.pth")):
            assert_same_weights(folder(results) / path.name, path)
        if left := list(folder(results).glob(".*")):
            raise BrokenPromiseError(f"left behind: {left}")
        for split in ("train", "val"):
            if rows(results, split) != rows(undisturbed, split):
                raise BrokenPromiseError(f"rows of {split} differ: {rows(results, split)}")
        shutil.rmtree(results)

    def run_damaged(self, keep_injecting: Callable[[], bool]) -> None:
        """Damage stores for moments; corrupt samples must be listed with a reason, and no row may be missing."""
        results = self.place / "damaged"
        self._run(results, self.rng.choice(([], SKIP_CORRUPT)), DAMAGING, keep_injecting)
        for split in ("train", "val"):
            epochs = [row[0] for row in rows(results, split)]
            if epochs != [str(epoch) for epoch in range(1, self.epochs + 1)]:
                raise BrokenPromiseError(f"rows of {split} are of epochs {epochs}")
        corrupt = folder(results) / "bad_samples.csv"
        if corrupt.exists():
            with corrupt.open(newline="") as file:
                for row in csv.DictReader(file):
                    if not row["Reason"].startswith(row["Video"]):
                        raise BrokenPromiseError(f"a reason that does not name the store: {row}")
        shutil.rmtree(results)

    def _run(
        self,
        results: Path,
        args: Sequence[str],
        faults: Mapping[Fault, float],
        keep_injecting: Callable[[], bool],
    ) -> None:
        """Start, disturb and resume a run until it ends with exit code 0."""
        self.runs += 1
        for _ in range(MAX_STARTS):
            training = self._start(results, args)
            try:
                target = Target(training, self.dataset, self.rng)
                training.wait_until(lambda training=training: training.steps > 0)
                while training.is_running() and keep_injecting():
                    self._inject(target, faults)
            except BaseException:
                training.kill()
                raise
            exit_code = training.wait()
            training.check_cleanup()
            if exit_code == 0:
                return
            self.errors += exit_code in (1, 2)
        raise BrokenPromiseError(f"no end after {MAX_STARTS} starts: {training.log_tail()}")

    def _inject(self, target: Target, faults: Mapping[Fault, float]) -> None:
        time.sleep(self.rng.expovariate(4))
        fault = self.rng.choices(list(faults), list(faults.values()))[0]
        if target.training.is_running() and fault(target):
            self.injected[fault.__name__.replace("_", " ")] += 1

    def _start(self, results: Path, args: Sequence[str]) -> TrainingProcess:
        self.starts += 1
        paths = ["--dataset", str(self.dataset), "--model-dir", str(results)]
        command = [*paths, *TRAINING, "--end-epoch", str(self.epochs), *args]
        return TrainingProcess(command, self.place / f"temporary {self.starts}")

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.injected.most_common())
        return (
            f"{self.injected.total()} faults in {self.runs} runs with {self.starts - 1} starts, "
            f"{self.errors} of which ended with an error line and were resumed; {counts}"
        )
