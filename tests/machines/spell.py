"""A spell of training that nothing disturbs: memory, open files and processes of a run stay what they are."""

import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.machines.processes import BrokenPromiseError, Training
from tests.painting import make_stores
from tests.train.kills import make_labels
from tests.train.runs import SMALL

OWN = ("Pss_Anon:", "Pss_Shmem:")  # not of files such as torch's, whose share depends on who else uses them
EPOCHS = 100_000  # more than there is time for
WARM_UP = 0.25  # of the spell, while caches and arenas fill
GROWTH = 0.03  # of the memory, within the rest of it
WORDS = ["--workers", "2", "--batch-size", "4", "--save-frequency", "1000", "--save-minutes", "0.5"]
WORDS += ["--short-cycles", "--augment", "fused", "--tensorboard"]


class Sample(NamedTuple):
    """Of a run, at a moment: megabytes of its own (what its processes share counts once), open files, processes."""

    seconds: float
    megabytes: float
    files: int
    processes: int


def spell(place: Path, minutes: float, owns_shared_memory: bool) -> str:
    """Train for so long; what it came to, in one line. BrokenPromiseError where something grew."""
    make_stores(place / "set", {name: [f"{i}" for i in range(12)] for name in ("a", "b", "c")}, n_frames=8)
    make_labels(place / "set")
    words = ["--dataset", str(place / "set"), "--model-dir", str(place / "results"), *SMALL, *WORDS]
    training = Training([*words, "--end-epoch", str(EPOCHS)], place / "temporary")
    try:
        training.wait_until(lambda: training.steps > 0)
        started, samples, epochs = time.monotonic(), [], 0
        while training.is_running() and time.monotonic() - started < 60 * minutes:
            done = sum(" val  loss" in line for line in training.lines)
            if done > epochs:
                epochs = done
                samples.append(_sample(training, time.monotonic() - started))
            time.sleep(0.05)
    finally:
        training.kill()
    training.check_nothing_is_left(owns_shared_memory)
    return judge(samples, minutes)


def _sample(training: Training, seconds: float) -> Sample:
    megabytes, files, processes = 0.0, 0, 0
    for process in (training.pid, *training.workers()):
        with suppress(OSError):
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            megabytes += sum(int(line.split()[1]) for line in rollup if line.startswith(OWN)) / 1024
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
    slope = np.polyfit(seconds, megabytes, 1)[0]
    growth = slope * (seconds[-1] - seconds[0])
    half = len(settled) // 2
    said = (
        f"{len(samples)} epochs in {minutes:g} minutes; after the first quarter {megabytes[0]:.1f} MB, at the end "
        f"{megabytes[-1]:.1f} MB, {growth:+.2f} MB by a straight line; files {files.min()} to {files.max()}, "
        f"processes {processes.min()} to {processes.max()}"
    )
    more_files = np.median(files[half:]) > np.median(files[:half])
    if growth > GROWTH * megabytes.mean() or more_files or processes.min() != processes.max():
        raise BrokenPromiseError(f"something grows: {said}")
    return said
