"""python -m tests.data.crash_recovery [--kills 200]

Kill conversions at random moments, restart them, and compare the result with a conversion that was not killed.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.data.helpers import make_video

VICTIMS = ("command", "decoder", "both")


def make_videos(folder: Path, count: int) -> None:
    """Write videos of different lengths in two classes."""
    for i in range(count):
        make_video(folder / "ab"[i % 2] / f"{i}.mp4", n_frames=30 + 10 * (i % 5), size=96)


class CrashRecoveryTest:
    """Kills conversions of `videos` to datasets in `folder`. `kills`: number of kills by victim."""

    def __init__(self, videos: Path, folder: Path, seed: int) -> None:
        self.videos = videos
        self.folder = folder
        self.generator = random.Random(seed)
        self.kills: Counter[str] = Counter()
        assert self._start(folder / "reference").wait() == 0
        self.expected = read_stores(folder / "reference")

    def run(self, kills: int) -> None:
        """Kill a conversion `kills` times, or fewer if it ends before; then finish and compare it."""
        dataset = self.folder / "killed"
        for _ in range(kills):
            if not self._start_and_kill(dataset):
                break
        assert self._start(dataset).wait() == 0, (self.folder / "log").read_text()
        assert read_stores(dataset) == self.expected
        shutil.rmtree(dataset)

    def _start(self, dataset: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "data.convert", str(self.videos), str(dataset), "--workers", "2"]
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _start_and_kill(self, dataset: Path) -> bool:
        """Return whether something was killed before the conversion had ended."""
        num_stores = len(list(dataset.glob("jpg/*/*")))
        process = self._start(dataset)
        while process.poll() is None and len(list(dataset.glob("jpg/*/.*"))) + num_stores == 0:
            time.sleep(0.005)  # until there is a half-written store, or leftovers of the last kill
        time.sleep(self.generator.uniform(0, 0.6))
        victim = self.generator.choice(VICTIMS)
        pids: list[int] = []
        while not pids:
            if process.poll() is not None:
                return False
            decoders = children_of(process.pid)
            pids = {"command": [process.pid], "decoder": decoders[:1], "both": [process.pid, *decoders]}[
                victim
            ]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills[victim] += 1
        process.wait()
        return True


def children_of(parent: int) -> list[int]:
    children = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields_after_name = path.read_text().rpartition(")")[2].split()
            if int(fields_after_name[1]) == parent:
                children.append(int(path.parent.name))
    return children


def is_alive(pid: str) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path("/proc", pid, "stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def read_stores(dataset: Path) -> dict[str, bytes]:
    """Return the content of all files below `jpg/`, including half-written ones, by path."""
    files = (path for path in (dataset / "jpg").rglob("*") if path.is_file())
    return {path.relative_to(dataset).as_posix(): path.read_bytes() for path in files}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.data.crash_recovery")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-per-run", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        make_videos(Path(folder) / "videos", 40)
        test = CrashRecoveryTest(Path(folder) / "videos", Path(folder), options.seed)
        while test.kills.total() < options.kills:
            test.run(min(options.kills_per_run, options.kills - test.kills.total()))
            print(f"{test.kills.total()} kills, stores identical: {dict(test.kills)}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
