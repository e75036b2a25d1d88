"""A campaign of kills: one run again and again, killed at random moments and resumed, against one left alone.

`python -m tests.train.kills --kills 200` is what `make soak` runs.
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
from dataclasses import dataclass, field
from pathlib import Path

from data.labels import main as labels_main
from tests.painting import make_stores
from tests.train.runs import NAME, SMALL, assert_same_weights, folder, rows

# thirty steps an epoch; a checkpoint within it every third of a second or so
WORDS = ["--batch-size", "2", "--save-minutes", "0.005", "--log-interval", "1"]
WORDS += ["--workers", "1", "--clip-size", "48", "--short-side", "48", "--lr-schedule", "cosine"]


def make_dataset(root: Path) -> None:
    make_stores(root, {name: [f"{i}" for i in range(24)] for name in ("a", "b", "c")}, n_frames=8)
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
            process = self._start(results)
            assert process.wait() == 0
        return results

    def run_killed(self, kills: int) -> None:
        """A run killed `kills` times, or fewer if it ends before; then compared with the undisturbed one."""
        results = self.place / "killed"
        for _ in range(kills):
            if not self._start_and_kill(results):
                break
        assert self._start(results).wait() == 0
        compare(results, self.undisturbed(), self.epochs)
        shutil.rmtree(results)

    def _start(self, results: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "train", "--dataset", str(self.dataset), "--model-dir", str(results)]
        command += [*SMALL, *WORDS, "--end-epoch", str(self.epochs), "--resume-epoch", "auto"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, stderr=(self.place / "log").open("w"), env=environment, start_new_session=True
        )

    def _start_and_kill(self, results: Path) -> bool:
        """Whether the run was killed before its end."""
        process = self._start(results)
        # one in eight while it starts, which takes two seconds or so, the others once it trains
        if self.randomness.random() < 1 / 8:
            moment = self.randomness.uniform(0, 3)
        else:
            self._wait_for_a_step(process)
            moment = self.randomness.uniform(0, 1.5)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # workers too, as a machine that goes down would
            process.wait()
            self.fell[self._what_it_did(results)] += 1
            return True
        assert process.returncode == 0, (self.place / "log").read_text()
        return False

    def _wait_for_a_step(self, process: subprocess.Popen) -> None:
        while process.poll() is None and " step " not in (self.place / "log").read_text():
            time.sleep(0.05)

    def _what_it_did(self, results: Path) -> str:
        log = (self.place / "log").read_text()
        if list(results.glob("*/.*.pth.*")):
            return "writing a checkpoint"
        if " step " not in log:
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
    parser = argparse.ArgumentParser(prog="python -m tests.train.kills", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kills-per-run", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
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
