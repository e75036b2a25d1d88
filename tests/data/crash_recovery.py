"""A campaign of kills: a conversion killed at random moments and started again, against one that was left alone.

`python -m tests.data.crash_recovery --kills 200` is a part of `make soak`.
"""

import argparse
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
from dataclasses import dataclass, field
from os import kill
from pathlib import Path

from tests.data.helpers import make_video

VICTIMS = ("the command", "a worker", "a decoder", "all of them")


def make_videos(folder: Path, count: int) -> None:
    """Of different lengths in two classes."""
    for i in range(count):
        make_video(folder / "ab"[i % 2] / f"{i}.mp4", n_frames=30 + 10 * (i % 5), size=96)


@dataclass
class Campaign:
    """Kills so far, and whom they hit."""

    videos: Path
    place: Path
    randomness: random.Random
    hit: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        return self.hit.total()

    def undisturbed(self) -> Path:
        dataset = self.place / "undisturbed"
        if not dataset.exists():
            assert self._start(dataset).wait() == 0
        return dataset

    def run_killed(self, kills: int) -> None:
        """A conversion killed `kills` times, or fewer if it ends before; then compared with the undisturbed one."""
        dataset = self.place / "killed"
        for _ in range(kills):
            if not self._start_and_kill(dataset):
                break
        assert self._start(dataset).wait() == 0, (self.place / "log").read_text()
        assert contents(dataset) == contents(self.undisturbed())
        shutil.rmtree(dataset)

    def _start(self, dataset: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "data.convert", str(self.videos), str(dataset), "--workers", "2"]
        with (self.place / "log").open("w") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def _start_and_kill(self, dataset: Path) -> bool:
        """Whether something was killed before the conversion had ended."""
        before = len(list(dataset.glob("jpg/*/*")))
        process = self._start(dataset)
        while process.poll() is None and len(list(dataset.glob("jpg/*/.*"))) + before == 0:
            time.sleep(0.005)  # one half-written store, or leftovers of the last kill
        time.sleep(self.randomness.uniform(0, 0.6))
        victim = self.randomness.choice(VICTIMS)
        found: list[int] = []
        while not found:
            if process.poll() is not None:
                return False
            found = victims(process.pid, victim)
        for pid in found:
            with suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        self.hit[victim] += 1
        process.wait()
        return True


def victims(command: int, which: str) -> list[int]:
    """Processes to kill: the command itself, those that it started, or those that these started."""
    children = parents_to_children()
    workers = children.get(command, [])
    decoders = [pid for worker in workers for pid in children.get(worker, [])]
    if which == "all of them":
        return [command, *workers, *decoders]
    return {"the command": [command], "a worker": workers[:1], "a decoder": decoders[:1]}[which]


def parents_to_children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            after_name = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(path.parent.name))
    return children


def is_alive(process: str) -> bool:
    """Whether a process, by its number, is there and no zombie."""
    try:
        return Path("/proc", process, "stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def contents(dataset: Path) -> dict[str, bytes]:
    """All files of the stores, half-written ones too."""
    files = (path for path in (dataset / "jpg").rglob("*") if path.is_file())
    return {path.relative_to(dataset).as_posix(): path.read_bytes() for path in files}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.data.crash_recovery", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-per-run", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        make_videos(Path(place) / "videos", 40)
        campaign = Campaign(Path(place) / "videos", Path(place), random.Random(arguments.seed))
        runs = 0
        while campaign.kills < arguments.kills:
            campaign.run_killed(min(arguments.kills_per_run, arguments.kills - campaign.kills))
            runs += 1
            print(f"{runs} runs, {campaign.kills} kills, all alike: {dict(campaign.hit)}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
