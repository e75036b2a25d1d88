"""The demo's training, left alone: memory, open files and the number of processes must not grow."""

import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.commands import REPOSITORY, run_command
from tests.fault_injection.process import BrokenPromiseError, TrainingProcess

OWN_MEMORY = ("Pss_Anon:", "Pss_Shmem:")  # without files such as torch's, shared with other programs
ENDLESS = ["--end-epoch", "100000", "--save-frequency", "100000", "--save-minutes", "0.5"]
WARM_UP = 0.25  # of the time, in which caches fill
MAX_GROWTH = 0.03  # of the memory, after the warm-up
MAX_MORE_FILES = 5.0  # batches in shared memory are open files, a few more or less at any moment


class Sample(NamedTuple):
    """The state of a run: memory that its processes have for themselves, open files, processes."""

    seconds: float
    megabytes: float
    files: int
    processes: int


def run_leak_test(place: Path, minutes: float) -> str:
    """Train as `make demo` does and return a summary. Raises BrokenPromiseError if something grew or the run ended."""
    *preparation, (_, *args) = demo_commands(place)
    for command in preparation:
        exit_code, output = run_command(*command)
        if exit_code != 0:
            raise BrokenPromiseError(f"{shlex.join(command)}: {output}")
    training = TrainingProcess([*args, *ENDLESS], place / "temporary")
    try:
        training.wait_until(lambda: training.steps > 0)
        started, samples = time.monotonic(), []
        while training.is_running() and time.monotonic() - started < 60 * minutes:
            if sum(" val  loss" in line for line in training.lines) > len(samples):
                samples.append(_sample(training, time.monotonic() - started))
            time.sleep(0.05)
        if not training.is_running():
            raise BrokenPromiseError(f"ended with exit code {training.exit_code()}: {training.log_tail()}")
    finally:
        training.kill()
    training.check_cleanup()
    return check_samples(samples, minutes)


def demo_commands(place: Path) -> list[list[str]]:
    """Return the Python commands of `make demo` in the folder `place` up to the training, without `python -m`."""
    make = ["make", "--dry-run", "--no-print-directory", "demo", f"DEMO={place}"]
    output = subprocess.run(make, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    lines = output.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[2:] for line in lines if re.search(r" -m (data\.\w+|train) ", line)]


def _sample(training: TrainingProcess, seconds: float) -> Sample:
    megabytes, files, processes = 0.0, 0, 0
    for pid in (training.pid, *training.workers()):
        with suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            megabytes += sum(int(line.split()[1]) for line in rollup if line.startswith(OWN_MEMORY)) / 1024
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            processes += 1
    return Sample(seconds, megabytes, files, processes)


def check_samples(samples: Sequence[Sample], minutes: float) -> str:
    """Fit a line to memory and files after the warm-up and return a summary. Raises BrokenPromiseError on growth."""
    settled = [sample for sample in samples if sample.seconds > WARM_UP * 60 * minutes]
    if len(settled) < 6:
        raise BrokenPromiseError(
            f"{len(settled)} epochs after the warm-up are too few; use more --leak-minutes"
        )
    seconds, megabytes, files, processes = np.array(settled).T
    growth, more_files = (
        np.polyfit(seconds, values, 1)[0] * (seconds[-1] - seconds[0]) for values in (megabytes, files)
    )
    summary = (
        f"{len(samples)} epochs in {minutes:g} minutes; after the warm-up {megabytes[0]:.1f} MB, at the end "
        f"{megabytes[-1]:.1f} MB, growth of the fitted line {growth:+.2f} MB; open files {files.min():.0f} to "
        f"{files.max():.0f}, {more_files:+.1f}; processes {processes.min():.0f} to {processes.max():.0f}"
    )
    if (
        growth > MAX_GROWTH * megabytes.mean()
        or more_files > MAX_MORE_FILES
        or processes.min() != processes.max()
    ):
        raise BrokenPromiseError(f"something grows: {summary}")
    return summary
