"""Commands of the pages that need a shell, several processes or large networks: `make soak` runs these tests.

A command runs as it stands there, with more flags where it would take long, beside a copy of the code. Names of
machines and of a folder that they share are this one's; srun and scontrol are ours.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.footage import make_videos
from tests.pages.lines import COMMANDS, ROOT, code_lines
from tests.pages.sites import OFFICIAL, put_videos, small_video, write_lists
from tests.pages.test_followed import FOLLOWED, IN_SHELL, SMALLER, SUBSET, ways_of_section

# training; of a hundred norms of two values each, as the smallest shapes have, nothing finite comes out
SMALL = " ".join([*SMALLER, *SUBSET, "--clip-size=64 --short-side=64 --lr-base=0.0001"])
SMALL += " --long-cycles=False --short-cycles=False"
LESS_MEMORY = "--network=srtg_r3d_18"  # for eight processes
SMALL_VIEWS = "--clips=2 --crops=1"
SMALL_BENCHMARKS = {  # counting alone takes seconds
    "data": "--rounds=2 --clips=64",
    "network": "--batch=2 --length=2 --size=32 --warmup=1 --repeats=1",
    "train": "--clip-length=4 --clip-size=32 --batch-size=2 --loader-clips=32 --race-clips=32 --race-epochs=1",
}
HACS, RUN = "data/HACS_videos", "results/HACS/srtg_r3d_101_gates_False"
LONGEST = 900  # seconds


def matching(pattern: str) -> list[str]:
    return [line for line in COMMANDS if IN_SHELL.search(line) and re.search(pattern, line)]


BENCHMARKS = matching(r"\.benchmark")
CONVERTING = matching(r" data\.convert ")
EVALUATING = matching(r"train\.evaluate")
RESUMING = matching(r"--resume-epoch 21")
FINE_TUNING = matching(r"--fine-tune")
ONE_MACHINE = matching(r"^torchrun --nproc-per-node 4 train_hacs\.py")
TWO_MACHINES = matching(r"^torchrun --nnodes 2 ")
JOB_SCRIPT = matching(r"^srun torchrun ")  # within a script
TENSORBOARD = matching(r"^tensorboard ")
MOUNT = matching(r"^mount ")
slow = pytest.mark.slow


def test_every_command_of_every_page_is_followed() -> None:
    in_shell = {*BENCHMARKS, *CONVERTING, *EVALUATING, *RESUMING, *FINE_TUNING}
    in_shell |= {*ONE_MACHINE, *TWO_MACHINES, *JOB_SCRIPT, *TENSORBOARD, *MOUNT}
    for line in COMMANDS:
        if not line.startswith("make "):  # which run all this
            assert line in FOLLOWED | in_shell, line


class Shell:
    """In a folder with the code: a user's, who has activated the environment."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for pattern in ("data/*.py", "network/*.py", "train/*.py", "docs/*.py", "train_*.py"):
            for path in ROOT.glob(pattern):
                copy = place / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
        folders = [str(Path(sys.executable).parent), str(Path(__file__).parent / "slurm"), os.environ["PATH"]]
        self.environment = os.environ | {"PATH": os.pathsep.join(folders)}
        self.environment.pop("PYTHONPATH", None)

    def start(self, line: str, **environment: str) -> subprocess.Popen:
        shared = line.replace("/shared/", f"{self.place}/shared/").replace("first-machine", "localhost")
        return subprocess.Popen(
            ["bash", "-c", shared],
            cwd=self.place,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, line: str, more: str = "") -> str:
        """What it printed. AssertionError where its status is not 0."""
        process = self.start(f"{line.partition(' # ')[0]} {more}")
        try:
            printed, _ = process.communicate(timeout=LONGEST)
        finally:
            stop(process)
        assert process.returncode == 0, f"{line}\n{printed}"
        assert "Traceback" not in printed, f"{line}\n{printed}"
        return printed


def stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
    shutil.rmtree(shell.place)


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
    printed = shell.run(line, "" if "--no-latency" in line else SMALL_BENCHMARKS[name])
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


@slow
@pytest.mark.usefixtures("networks")
def test_training_by_four_processes(shell: Shell) -> None:
    """Where the run before stopped, as the command says."""
    for line in ONE_MACHINE:
        printed = shell.run(line, f"{SMALL} --end-epoch=23")
        assert "4 processes, up to 12 of 48 clips each" in printed
        assert "epoch 23/23 val" in printed


@slow
def test_training_on_two_machines(shell: Shell) -> None:
    for line in TWO_MACHINES:
        machines = [shell.start(f"{line} {SMALL} {LESS_MEMORY}") for _ in range(2)]
        try:
            printed = [machine.communicate(timeout=LONGEST)[0] for machine in machines]
        finally:
            for machine in machines:
                stop(machine)
        assert [machine.returncode for machine in machines] == [0, 0], printed
        assert sum("8 processes, up to 6 of 48 clips each" in text for text in printed) == 1
        shutil.rmtree(shell.place / "shared")


@slow
def test_job_script_saves_when_its_time_is_up_and_goes_on_when_it_is_queued_again(shell: Shell) -> None:
    page = (ROOT / "docs" / "processes.md").read_text("utf-8")
    script = re.search(r"^```bash\n(#!/bin/bash\n#SBATCH.*?)^```$", page, re.DOTALL | re.MULTILINE)[1]
    assert [line for line in code_lines(page) if line in JOB_SCRIPT]
    less = f"{SMALL} {LESS_MEMORY} --end-epoch=12 --save-frequency=12"
    script = script.replace("--resume-epoch auto", f"--resume-epoch auto {less}")
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost"}
    log = shell.place / "shared/results/srtg_r3d_18_gates_False/train.log"

    process = shell.start(script, **job)
    try:
        wait_until(lambda: log.exists() and "epoch 1/12 val" in log.read_text(), process)
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=LONGEST)
    finally:
        stop(process)
    assert (shell.place / "requeued-7").exists(), printed
    assert "epoch 12/12" not in printed

    process = shell.start(script, **job)
    try:
        printed, _ = process.communicate(timeout=LONGEST)
    finally:
        stop(process)
    assert process.returncode == 0, printed
    assert "going on with epoch" in printed
    assert "epoch 12/12 val" in printed


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@slow
def test_tensorboard_shows_the_runs(shell: Shell) -> None:
    train = f"python train_hacs.py --dataset {HACS} --network r3d_18 --tensorboard --model-dir results/my_set"
    shell.run(train, SMALL)
    for line in TENSORBOARD:
        process = shell.start(line)
        try:
            printed = ""
            while "http://" not in printed:
                printed += process.stdout.readline()
            url = re.search(r"http://\S+/", printed)[0]
            with urllib.request.urlopen(f"{url}data/runs", timeout=60) as answer:
                assert b"r3d_18_gates_False" in answer.read()
        finally:
            stop(process)


@slow
def test_shared_memory_can_be_made_larger() -> None:
    """In a mount namespace of its own."""
    own = ["unshare", "-m", "--propagation", "private"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount here")
    for line in MOUNT:
        script = (
            f"mount -t tmpfs -o size=64m tmpfs /dev/shm && {line} && df --output=size -B1 /dev/shm | tail -1"
        )
        size = subprocess.run([*own, "bash", "-c", script], capture_output=True, check=True, text=True).stdout
        assert int(size) == 2 * 1024**3
