"""A spell of the demo's training that is left alone: memory, open files and processes stay what they are."""

import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.fault_injection.processes import REPOSITORY, BrokenPromiseError, Training

CUSTOM = (
    "Pss_Anon:",
    "Pss_Shmem:",
)  # not of files such as torch's, whose share depends on who else uses them
EPOCHS = 100_000  # more than there is time for
WARM_UP = 0.25  # of the spell, while caches and arenas fill
GROWTH = 0.03  # of the memory, within the rest of it
MORE_FILES = 5.0  # likewise: batches that wait are files, more or less of them from one moment to the next
LONG = ["--end-epoch", str(EPOCHS), "--save-frequency", str(EPOCHS), "--save-minutes", "0.5"]


class Sample(NamedTuple):
    """Of a run, at a moment: megabytes of its own (what its processes share counts once), open files, processes."""

    seconds: float
    megabytes: float
    files: int
    processes: int


def spell(place: Path, minutes: float, owns_shared_memory: bool) -> str:
    """Train for so long; what it came to, in one line. BrokenPromiseError where something grew, or the run ended."""
    *before, (_, *words) = demo_commands(place)
    for command in before:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=REPOSITORY, capture_output=True, check=False, text=True
        )
        if done.returncode != 0:
            raise BrokenPromiseError(f"{shlex.join(command)}: {done.stderr}")
    training = Training([*words, *LONG], place / "temporary")
    try:
        training.wait_until(lambda: training.steps > 0)
        started, samples, epochs = time.monotonic(), [], 0
        while training.is_running() and time.monotonic() - started < 60 * minutes:
            done = sum(" val  loss" in line for line in training.lines)
            if done > epochs:
                epochs = done
                samples.append(_sample(training, time.monotonic() - started))
            time.sleep(0.05)
        if not training.is_running():
            raise BrokenPromiseError(f"it ended with status {training.status()}: {training.said()}")
    finally:
        training.kill()
    training.check_nothing_is_left(owns_shared_memory)
    return judge(samples, minutes)


def demo_commands(place: Path) -> list[list[str]]:
    """Modules and their words that `make demo` runs in such a folder, up to the training, which comes last."""
    said = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "demo", f"DEMO={place}"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = said.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if re.search(r" -m (data\.\w+|train) ", line)]


def _sample(training: Training, seconds: float) -> Sample:
    megabytes, files, processes = 0.0, 0, 0
    for process in (training.pid, *training.workers()):
        with suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            megabytes += sum(int(line.split()[1]) for line in rollup if line.startswith(CUSTOM)) / 1024
            files += len(list(Path(f"/proc/{process}/fd").iterdir()))
            processes += 1
    return Sample(seconds, megabytes, files, processes)


def judge(samples: list[Sample], minutes: float) -> str:
    settled = [sample for sample in samples if sample.seconds > WARM_UP * 60 * minutes]
    if len(settled) < 6:
        raise BrokenPromiseError(
            f"{len(settled)} epochs after the warm-up say nothing; a longer --spell does"
        )
    seconds, megabytes, files, processes = (np.array(column) for column in zip(*settled, strict=True))
    growth, more_files = (_growth(seconds, values) for values in (megabytes, files))
    said = (
        f"{len(samples)} epochs in {minutes:g} minutes; after the first quarter {megabytes[0]:.1f} MB, at the end "
        f"{megabytes[-1]:.1f} MB, {growth:+.2f} MB by a straight line; files {files.min()} to {files.max()}, "
        f"{more_files:+.1f}; processes {processes.min()} to {processes.max()}"
    )
    if growth > GROWTH * megabytes.mean() or more_files > MORE_FILES or processes.min() != processes.max():
        raise BrokenPromiseError(f"something grows: {said}")
    return said


def _growth(seconds: np.ndarray, values: np.ndarray) -> float:
    """From the first to the last moment, by a straight line."""
    return float(np.polyfit(seconds, values, 1)[0] * (seconds[-1] - seconds[0]))
