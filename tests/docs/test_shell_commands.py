"""Commands of the pages that need a shell, several processes or large networks: `make soak` runs these tests.

A command runs as it stands there, with more flags where it would take long, beside a copy of the code. Names of
machines and of a folder that they share are this one's; srun, scancel and scontrol are ours.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from data.benchmark.test_videos import make_videos
from tests.docs.fake_datasets import OFFICIAL, put_videos, small_video, write_lists
from tests.docs.markdown import COMMANDS, ROOT, code_lines
from tests.docs.test_commands import FOLLOWED, IN_SHELL, SMALLER, SUBSET, ways_of_section

# training; of a hundred norms of two values each, as the smallest shapes have, nothing finite comes out
SMALL = " ".join([*SMALLER, *SUBSET, "--clip-size=64 --short-side=64 --lr-base=0.0001"])
SMALL += " --long-cycles=False --short-cycles=False"
LESS_MEMORY = "--network=srtg_r3d_18"  # for eight processes
FOUR_PROCESSES, EIGHT_PROCESSES = 10, 8  # gigabytes
SMALL_VIEWS = "--clips=2 --crops=1"
SMALL_BENCHMARKS = {  # counting alone takes seconds
    "data": "--rounds=2 --clips=64",
    "network": "--batch=2 --length=2 --size=32 --warmup=1 --repeats=1",
    "train": "--clip-length=4 --clip-size=32 --batch-size=2",
}
HACS, RUN = "data/HACS_videos", "results/HACS/srtg_r3d_101_gates_False"
LONGEST = 900  # seconds


def matching(pattern: str) -> list[str]:
    """Commands for a shell. LookupError where no page has such a one any more."""
    lines = [line for line in COMMANDS if IN_SHELL.search(line) and re.search(pattern, line)]
    if not lines:
        raise LookupError(pattern)
    return lines


BENCHMARKS = matching(r"\.benchmark")
CONVERTING = matching(r" data\.convert ")
EVALUATING = matching(r"train\.evaluate")
RESUMING = matching(r"--resume-epoch 21")
FINE_TUNING = matching(r"--fine-tune")
ONE_MACHINE = matching(r"^torchrun --nproc-per-node 4 train_hacs\.py")
TWO_MACHINES = matching(r"^torchrun --nnodes 2 ")
TENSORBOARD = matching(r"^tensorboard ")
MOUNT = matching(r"^mount ")
PROCESSES_PAGE = (ROOT / "docs" / "distributed.md").read_text("utf-8")
(JOB_SCRIPT,) = re.findall(
    r"^```bash\n(#!/bin/bash\n#SBATCH.*?)^```$", PROCESSES_PAGE, re.DOTALL | re.MULTILINE
)
slow = pytest.mark.slow


def test_every_command_of_every_page_is_followed() -> None:
    in_shell = {*BENCHMARKS, *CONVERTING, *EVALUATING, *RESUMING, *FINE_TUNING}
    in_shell |= {*ONE_MACHINE, *TWO_MACHINES, *TENSORBOARD, *MOUNT}
    in_shell |= {*code_lines(f"```\n{JOB_SCRIPT}```\n")}
    for line in COMMANDS:
        if not line.startswith("make "):  # which run all this
            assert line in FOLLOWED | in_shell, line


class Command:
    """A line that a shell runs in a folder.

    Its processes, to each of which torchrun gives a session of its own, are known by a word in their environment.
    """

    def __init__(self, line: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.line = line
        self.mark = f"SRTG_COMMAND={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        self.output = folder / f"output {value}"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", line],
                cwd=folder,
                env={**environment, name: value},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if self.mark in path.read_text(errors="replace").split("\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def printed(self) -> str:
        return self.output.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONGEST
        while not condition():
            assert self.process.poll() is None, f"ended: {self.line}\n{self.printed()}"
            assert time.monotonic() < deadline, f"too long: {self.line}\n{self.printed()}"
            time.sleep(0.1)

    def wait(self) -> str:
        """What it printed in all. AssertionError where its status is not 0."""
        self.wait_until(lambda: self.process.poll() is not None)
        assert self.process.returncode == 0, f"{self.process.returncode}: {self.line}\n{self.printed()}"
        assert "Traceback" not in self.printed(), f"{self.line}\n{self.printed()}"
        return self.printed()


class Shell:
    """In a folder with the code: a user's, who has activated the environment."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for pattern in ("data/*.py", "network/*.py", "train/*.py", "docs/*.py", "train_*.py"):
            for path in ROOT.glob(pattern):
                copy = place / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        (place / "tmp").mkdir()
        folders = [str(Path(sys.executable).parent), str(Path(__file__).parent / "slurm"), os.environ["PATH"]]
        own = {"PATH": os.pathsep.join(folders), "TMPDIR": str(place / "tmp")}
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own

    def start(self, line: str, **environment: str) -> Command:
        here = line.replace("/shared/", f"{self.place}/shared/").replace("first-machine", "localhost")
        return Command(here, self.place, self.environment | environment)

    def run(self, line: str, more: str = "") -> str:
        """What it printed. AssertionError where its status is not 0."""
        with self.start(f"{line.partition(' # ')[0]} {more}") as command:
            return command.wait()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """With HACS and UCF-101, of two classes each."""
    shell = Shell(tmp_path_factory.mktemp("shell") / "code")
    for section in ("HACS Clips", "UCF-101"):
        write_lists(section, shell.place)
        put_videos(shell.place, OFFICIAL[section].videos)
        for line in ways_of_section(section)[0]:
            if " -m data." in line and " data.download " not in line:
                shell.run(line, " ".join(SUBSET) if " data.labels " in line else "")
    yield shell
    shutil.rmtree(shell.place, ignore_errors=True)


@pytest.fixture(scope="module")
def networks(shell: Shell) -> None:
    """Twenty epochs of srtg_r3d_101 on HACS, one of mtnet_l, and copies of their best under the names of the pages."""
    train = f"python train_hacs.py --dataset {HACS} {SMALL}"
    shell.run(f"{train} --network srtg_r3d_101 --end-epoch=20 --save-frequency=20")
    shell.run(f"{train} --network mtnet_l")
    for copy in ("srtg_r3d_101_best.pth", "srtg_r3d_101_hacs.pth"):
        shutil.copy(shell.place / RUN / "srtg_r3d_101_best.pth", shell.place / copy)
    shutil.copy(shell.place / "results/HACS/mtnet_l_gates_False/mtnet_l_best.pth", shell.place)


@slow
@pytest.mark.parametrize("line", BENCHMARKS)
def test_benchmarks(shell: Shell, line: str) -> None:
    if not list(shell.place.glob("my_videos/*")):
        (shell.place / "my_videos").mkdir()
        make_videos(shell.place / "my_videos", count=1, seconds=1)
    name = re.search(r"-m (\w+)\.benchmark", line)[1]
    more = "" if "--no-latency" in line else SMALL_BENCHMARKS[name]
    if "--time-to-accuracy" in line:
        more += " --race-clips=32 --race-epochs=1"
    printed = shell.run(line, more)
    assert len(printed.splitlines()) >= 3


@slow
@pytest.mark.parametrize("line", CONVERTING)
def test_converting_by_several_processes(shell: Shell, line: str) -> None:
    """Each video is converted once, whoever does it."""
    shutil.rmtree(shell.place / "my_set", ignore_errors=True)
    shutil.rmtree(shell.place / "videos", ignore_errors=True)
    for motion in ("left", "right"):
        for number in range(12):
            small_video(shell.place / "videos" / motion / f"{number}.mp4", motion)
    printed = shell.run(line)
    assert sum(int(count) for count in re.findall(r"^converted (\d+)", printed, re.MULTILINE)) == 24
    assert len(list(shell.place.glob("my_set/jpg/*/*/frames.db"))) == 24


@slow
@pytest.mark.usefixtures("networks")
def test_evaluating(shell: Shell) -> None:
    for line in EVALUATING:
        printed = shell.run(line, SMALL_VIEWS if line.startswith("torchrun") else "")
        assert re.search(r"^  mean class accuracy  [01]\.\d{4}$", printed, re.MULTILINE), printed


@slow
@pytest.mark.usefixtures("networks")
def test_going_on_with_an_epoch(shell: Shell) -> None:
    for line in RESUMING:
        printed = shell.run(line, f"{SMALL} --end-epoch=21")
        assert f"{RUN}/srtg_r3d_101_ep-0020.pth: going on with epoch 21, step 1" in printed
        assert (shell.place / RUN / "srtg_r3d_101_ep-0021.pth").exists()


@slow
@pytest.mark.usefixtures("networks")
def test_fine_tuning(shell: Shell) -> None:
    for line in FINE_TUNING:
        printed = shell.run(line, f"{SMALL} --end-epoch=1")
        assert "srtg_r3d_101_hacs.pth" in printed


def needs_memory(gigabytes: float) -> None:
    """Skips the test where there is less."""
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    if int(available[1]) / 1024**2 < gigabytes:
        pytest.skip(f"takes {gigabytes} GB of memory")


@slow
@pytest.mark.usefixtures("networks")
def test_training_by_four_processes(shell: Shell) -> None:
    """Where the run before stopped, as the command says."""
    needs_memory(FOUR_PROCESSES)
    for line in ONE_MACHINE:
        printed = shell.run(line, f"{SMALL} --end-epoch=23")
        assert "4 processes, up to 12 of 48 clips each" in printed
        assert "epoch 23/23 val" in printed


@pytest.fixture
def shared_results(shell: Shell) -> Iterator[Path]:
    """The folder that machines share, empty."""
    yield shell.place / "shared/results/srtg_r3d_18_gates_False"
    shutil.rmtree(shell.place / "shared", ignore_errors=True)


@slow
def test_training_on_two_machines(shell: Shell, shared_results: Path) -> None:
    needs_memory(EIGHT_PROCESSES)
    for line in TWO_MACHINES:
        command = f"{line} {SMALL} {LESS_MEMORY}"
        with shell.start(command) as first, shell.start(command) as second:
            printed = [machine.wait() for machine in (first, second)]
        assert sum("8 processes, up to 6 of 48 clips each" in text for text in printed) == 1
        assert (shared_results / "srtg_r3d_18_ep-0001.pth").exists()


@slow
def test_job_script_saves_when_its_time_is_up_and_goes_on_when_it_is_queued_again(
    shell: Shell, shared_results: Path
) -> None:
    needs_memory(EIGHT_PROCESSES)
    less = f"{SMALL} {LESS_MEMORY} --end-epoch=12 --save-frequency=12"
    script = JOB_SCRIPT.replace("--resume-epoch auto", f"--resume-epoch auto {less}")
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost"}
    job |= {"SLURM_CPUS_PER_TASK": "32"}
    log = shared_results / "train.log"
    with shell.start(script, **job) as command:
        command.wait_until(lambda: log.exists() and "epoch 1/12 val" in log.read_text())
        command.process.send_signal(signal.SIGTERM)
        command.wait_until(lambda: command.process.poll() is not None)
        assert re.search(r"stopped in epoch \d+", command.printed()), command.printed()
        assert (shared_results / "srtg_r3d_18_last.pth").exists()
        assert (shell.place / "requeued-7").exists()
        assert "epoch 12/12" not in command.printed()
    with shell.start(script, **job) as command:
        printed = command.wait()
    assert "srtg_r3d_18_last.pth: going on with epoch" in printed
    assert "epoch 12/12 val" in printed


@slow
def test_tensorboard_shows_the_runs(shell: Shell) -> None:
    train = f"python train_hacs.py --dataset {HACS} --network r3d_18 --tensorboard --model-dir results/my_set"
    shell.run(train, SMALL)
    for line in TENSORBOARD:
        with shell.start(line) as command:
            command.wait_until(lambda: "http://" in command.printed())
            runs = re.search(r"http://\S+/", command.printed())[0] + "data/runs"
            command.wait_until(functools.partial(says, runs, "r3d_18_gates_False"))


def says(url: str, word: str) -> bool:
    """Whether a page of this machine, fetched without proxies, has it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        return word in answer.read().decode()


@slow
def test_shared_memory_can_be_made_larger() -> None:
    """In a mount namespace of its own."""
    own = ["unshare", "-m", "--propagation", "private"]
    if not shutil.which("unshare") or subprocess.run([*own, "true"], check=False).returncode != 0:
        pytest.skip("no right to mount here")
    for line in MOUNT:
        script = (
            f"mount -t tmpfs -o size=64m tmpfs /dev/shm && {line} && df --output=size -B1 /dev/shm | tail -1"
        )
        size = subprocess.run([*own, "bash", "-c", script], capture_output=True, check=True, text=True).stdout
        assert int(size) == 2 * 1024**3
