"""Every command of README.md and docs/*.md is run as it stands, on small videos and with tiny networks.

Most run in this process, page by page, in one folder. Those that match `IN_SHELL` start processes or measure for
minutes; `make soak` runs them, in the same folder. A command that is neither fails a test.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from network import registry
from tests.commands import REPOSITORY, run_command
from tests.data.http_server import VideoServer, serve, streamable_video
from tests.docs.fake_datasets import OFFICIAL, small_video, write_official
from tests.docs.markdown import PAGES, commands
from tests.tiny_network import tiny_builders

DATASETS = REPOSITORY / "docs/datasets.md"
SUBSET = "--num-classes 2"
TRAIN = "--clip-length 4 --clip-size 32 --short-side 36 --batch-size 4 --workers 0 --gpus 0 --lr-base 0.0001"
SCRIPT = f"{TRAIN} {SUBSET} --long-cycles False --short-cycles False"
HACS = "python train_hacs.py --dataset data/HACS_videos --network"
SHARED = "shared/results/srtg_r3d_101_gates_False"
TIMEOUT = 600  # seconds

# What is added to a command: the flags of the first pattern that it matches.
ADDED = [
    (r"train_\w+\.py .*--resume-epoch 21", f"{SCRIPT} --end-epoch 21"),
    (r"train_hacs\.py .*--gpus 4", f"{SCRIPT} --end-epoch 20 --save-frequency 20"),
    (r"torchrun .*train_hacs\.py", f"{SCRIPT} --end-epoch 22"),
    (r"python train_\w+\.py ", f"{SCRIPT} --end-epoch 1"),
    (r"python -m train ", f"{TRAIN} --end-epoch 1"),
    (r"-m train\.cross_validate ", f"{TRAIN} --end-epoch 1"),
    (r"-m data\.labels (?!link|folders)", f"{SUBSET} --overwrite"),
    (r"-m data\.download ", "--url {url} --sleep-interval 0"),
    (r"-m data\.benchmark", "--rounds 2"),
    (r"-m network\.benchmark(?!.*--no-latency)", "--length 2 --size 32 --warmup 1 --repeats 1"),
    (r"-m train\.benchmark --time-to-accuracy", "--videos 4 --epochs 1"),
    (r"-m train\.benchmark", "--clip-length 4 --clip-size 32 --batch-size 2 --warmup 1 --repeats 1"),
]
# What must be there before a command that matches, by the name of its file or folder.
NEEDED = {
    r"mtnet_s_gates_False": "python -m train --dataset my_set --network mtnet_s",
    r"srtg_r3d_34_gates_False": "python -m train --dataset my_set --network srtg_r3d_34",
    r" mtnet_l_best\.pth": f"{HACS} mtnet_l",
}
COPIED = {
    r" srtg_r3d_101_(best|hacs)\.pth": "results/HACS/srtg_r3d_101_gates_False/srtg_r3d_101_best.pth",
    r" mtnet_l_best\.pth": "results/HACS/mtnet_l_gates_False/mtnet_l_best.pth",
    r" (one|other)/scores\.npz": "results/my_set/srtg_r3d_18_gates_False/srtg_r3d_18_best_val_10x3/scores.npz",
    r" HACS_clips_v1\.1_(train|val)\.csv": "data/HACS_videos/labels/HACS_clips_v1.1_{}.csv",
}
# Commands for a shell, and what they print.
IN_SHELL = {
    r"^torchrun .*data\.convert": r"converted",
    r"^srun .*data\.convert": r"converted",
    r"^torchrun .*train\.evaluate": r"video@1",
    r"^torchrun --nproc-per-node 4 train_hacs\.py": r"epoch 22/22 val",
    r"^torchrun --nnodes 2 ": "",
    r"^tensorboard ": "",
    r"^mount ": "",
    r"-m data\.benchmark": r"clips/s",
    r"-m network\.benchmark": r"params",
    r"-m train\.benchmark": r"srtg_r3d_18|r3d_18",
    r"-m tools\.model_table": r"r3d_34",
    r"-m train\.cross_validate": r"mean of 2 of 2 folds",
}


def shell_pattern(command: str) -> str | None:
    return next((pattern for pattern in IN_SHELL if re.search(pattern, command)), None)


def in_shell(pattern: str) -> list[str]:
    found = [line for page in PAGES for line in commands(page) if shell_pattern(line) == pattern]
    return list(dict.fromkeys(found))


def in_process(page: Path, section: str = "") -> list[str]:
    return [
        line
        for line in commands(page, section)
        if shell_pattern(line) is None and not line.startswith("make ")
    ]


def with_added(command: str, url: str = "") -> str:
    command = command.partition(" # ")[0]
    flags = next((flags for pattern, flags in ADDED if re.search(pattern, command)), "")
    return f"{command} {flags.format(url=url)}"


class Workspace:
    """The folder in which a user types the commands, as if it were the repository, and a server of videos."""

    def __init__(self, folder: Path, server: VideoServer) -> None:
        self.folder, self.server = folder, server
        self.trained: list[list[str]] = []
        for path in (*REPOSITORY.glob("train_*.py"), REPOSITORY / "tools"):
            (folder / path.name).symlink_to(path)
        (folder / "cookies.txt").write_text("# Netscape HTTP Cookie File\n")
        small_video(folder / "new.mp4")
        for name in ("v.mp4", "w.mp4"):
            small_video(folder / "my_videos" / name)

    def write_videos(self) -> None:
        """Write two videos in each of three classes of `my_set`."""
        shutil.rmtree(self.folder / "videos", ignore_errors=True)
        for motion in ("left", "grow", "clockwise"):
            for name in "ab":
                small_video(self.folder / "videos" / motion / f"{name}.mp4", motion)

    def prepare(self, command: str) -> None:
        if "--trim" in command:
            shutil.rmtree(self.folder / "data/HACS_videos/jpg")
            for name in ("Class 0/trai_0", "Class 0/vali_0", "Class 1/trai_1", "Class 1/vali_1"):
                (self.folder / "videos" / name).parent.mkdir(exist_ok=True)
                (self.folder / "videos" / f"{name}.mp4").write_bytes(self.server.body)
        for pattern, needed in NEEDED.items():
            if re.search(pattern, command):
                self.run(needed)
        for pattern, source in COPIED.items():
            for match in re.finditer(pattern, command):
                target = self.folder / match[0].strip()
                target.parent.mkdir(exist_ok=True)
                shutil.copy(self.folder / source.format(match[1] if match.groups() else ""), target)

    def run(self, command: str) -> str:
        """Run a command in this process, and return its output."""
        self.prepare(command)
        python, *words = shlex.split(with_added(command, self.server.url))
        assert python == "python", command
        if "--network" in words and "--resume-epoch" not in words:
            run = words[: words.index("--network") + 2]
            if run in self.trained:  # the output directory of the first one is not empty
                words += ["--task-name", f"again_{len(self.trained)}"]
            self.trained.append(run)
        if words[0] == "-m":
            del words[0]
        exit_code, output = run_command(*words, cwd=self.folder)
        assert exit_code == 0, f"{command}: {output}"
        return output

    @contextmanager
    def start(self, command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command in a shell, with tiny networks and the scripts of tests/docs/slurm."""
        here = Path(__file__).parent
        path = os.pathsep.join([str(Path(sys.executable).parent), str(here / "slurm"), os.environ["PATH"]])
        own = {"PATH": path, "PYTHONPATH": os.pathsep.join([str(here / "tiny_networks"), str(REPOSITORY)])}
        own |= {"TMPDIR": str(self.folder)}
        command = command.replace("/shared/", f"{self.folder}/shared/").replace("first-machine", "localhost")
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=os.environ | own | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def run_in_shell(self, command: str, **environment: str) -> str:
        self.prepare(command)
        with self.start(with_added(command, self.server.url), **environment) as process:
            output, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, f"{command}: {output}"
        assert "Traceback" not in output, f"{command}: {output}"
        return output


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The workspace after the commands that run in this process: of the datasets, of README, of the other pages."""
    video = streamable_video(tmp_path_factory.mktemp("server"), 21 * 25, 48)
    with serve(video) as server, mock.patch.dict(registry._BUILDERS, tiny_builders()):
        workspace = Workspace(tmp_path_factory.mktemp("workspace"), server)
        for section in OFFICIAL:
            write_official(section, workspace.folder)
            if section == "Mini-Kinetics-200":
                workspace.run("python -m data.convert videos data/kinetics")
            for command in in_process(DATASETS, section):
                workspace.run(command)
            shutil.rmtree(workspace.folder / "videos", ignore_errors=True)
        workspace.write_videos()
        for page in PAGES:
            for command in in_process(page) if page != DATASETS else ():
                workspace.run(command)
        yield workspace


def test_commands_run(workspace: Workspace) -> None:
    run = "results/my_set/srtg_r3d_18_gates_False"
    for name in (
        *("curves.png", "both.svg", "schedule.png", "clips.jpg", "clips.mp4", "filmstrip.png", "overlay.mp4"),
        *("report.json", "stores.csv", "predictions.json", "model.safetensors", "model.pt2", "model.onnx"),
        *(f"{run}/srtg_r3d_18_best_val_10x3/confusion.png", "ensemble/scores.npz"),
        "data/HACS_videos/jpg/Class 0/trai_0_000015_000017/frames.db",
    ):
        assert (workspace.folder / name).stat().st_size > 100, name


def test_every_command_is_recognized() -> None:
    ours = re.compile(r"python (-m (data|network|train|tools)\b|train_\w+\.py |tools/docs/\w+\.py\b)")
    for page in PAGES:
        for line in commands(page):
            assert shell_pattern(line) or line.startswith("make ") or ours.match(line), f"{page}: {line}"


def test_no_row_of_the_tables_is_stale() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    for pattern in (*dict(ADDED), *NEEDED, *COPIED, *IN_SHELL):
        assert any(re.search(pattern, line) for line in lines), pattern


SIMPLE = [line for pattern, output in IN_SHELL.items() if output for line in in_shell(pattern)]


@pytest.mark.slow
@pytest.mark.parametrize("command", SIMPLE)
def test_commands_in_a_shell(workspace: Workspace, command: str) -> None:
    if "data.convert" in command:
        workspace.write_videos()
        shutil.rmtree(workspace.folder / "my_set/jpg")
    output = workspace.run_in_shell(command)
    assert re.search(IN_SHELL[str(shell_pattern(command))], output), output
    if "data.convert" in command:
        assert sum(int(count) for count in re.findall(r"^converted (\d+)", output, re.MULTILINE)) == 6


@pytest.mark.slow
@pytest.mark.parametrize("command", in_shell(r"^torchrun --nnodes 2 "))
def test_training_on_two_machines(workspace: Workspace, command: str) -> None:
    """Both are this one."""
    shutil.rmtree(workspace.folder / "shared", ignore_errors=True)
    command = with_added(command)
    with workspace.start(command) as first, workspace.start(command) as second:
        outputs = [machine.communicate(timeout=TIMEOUT)[0] for machine in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert sum("8 ranks" in output for output in outputs) == 1
    assert (workspace.folder / SHARED / "srtg_r3d_101_ep-0022.pth").exists()


@pytest.mark.slow
def test_job_script_saves_when_time_is_up_and_resumes_when_requeued(workspace: Workspace) -> None:
    shutil.rmtree(workspace.folder / "shared", ignore_errors=True)
    page = (REPOSITORY / "docs/distributed.md").read_text("utf-8")
    match = re.search(r"^```bash\n(#!/bin/bash\n#SBATCH.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert match is not None
    end = "--end-epoch 200 --save-frequency 200"
    script = match[1].replace("--resume-epoch auto", f"--resume-epoch auto {SCRIPT} {end}")
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost"}
    job["SLURM_CPUS_PER_TASK"] = "32"
    log = workspace.folder / SHARED / "train.log"
    with workspace.start(script, **job) as process:
        wait_until(process, lambda: log.exists() and "epoch 1/200 val" in log.read_text())
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=TIMEOUT)
    assert "epoch 200/200" not in output
    assert (workspace.folder / SHARED / "srtg_r3d_101_last.pth").exists(), output
    assert (workspace.folder / "requeued-7").exists(), output
    output = workspace.run_in_shell(script, **job)
    assert "resuming from epoch" in output
    assert "epoch 200/200 val" in output


@pytest.mark.slow
@pytest.mark.parametrize("command", in_shell(r"^tensorboard "))
def test_tensorboard_shows_the_runs(workspace: Workspace, command: str) -> None:
    with workspace.start(f"exec {command} --port 0 >tensorboard.log 2>&1") as process:
        log = workspace.folder / "tensorboard.log"
        wait_until(process, lambda: log.exists() and "http://" in log.read_text())
        url = re.findall(r"http://\S+/", log.read_text())[0]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        wait_until(process, lambda: b"srtg_r3d_18" in opener.open(f"{url}data/runs", timeout=60).read())


@pytest.mark.slow
@pytest.mark.parametrize("command", in_shell(r"^mount "))
def test_shared_memory_can_be_enlarged(command: str) -> None:
    namespace = ["unshare", "-m", "--propagation", "private"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"], check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    script = (
        f"mount -t tmpfs -o size=64m tmpfs /dev/shm && {command} && df --output=size -B1 /dev/shm | tail -1"
    )
    size = subprocess.run([*namespace, "bash", "-c", script], capture_output=True, check=True).stdout
    assert int(size) == 2 * 1024**3


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)
