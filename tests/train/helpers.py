"""Small training runs, and what they leave."""

import atexit
import csv
import multiprocessing
import os
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore
from tqdm import tqdm

import tests.tiny_network  # noqa: F401  registers it
from data.datasets import CUSTOM
from train.main import main
from train.options import Options

torch.optim.SGD([torch.zeros(1)], lr=1.0)  # imports torch's compiler: here once, not in each forked process

NAME = "tiny"
SMALL = shlex.split(
    f"--network {NAME} --clip-length 4 --clip-size 32 --short-side 36 --batch-size 4 "
    "--workers 0 --augment none --lr-base 0.01 --gpus 0"
)
REFERENCE = "--end-epoch 3 --short-cycles --lr-steps 2 --warmup-epochs 1"  # flags of `reference_run`


def argv_of(dataset: Path, results: Path, *flags: str) -> list[str]:
    """Return the arguments of a small run; `flags` may hold several words each."""
    words = [word for flag in flags for word in shlex.split(flag)]
    return ["--dataset", str(dataset), "--model-dir", str(results), *SMALL, *words]


def train(dataset: Path, results: Path, *flags: str) -> int:
    """Train in this process; return the exit code."""
    return main(CUSTOM, Options(), argv_of(dataset, results, *flags), "train")


def _train_and_exit(log: Path, environment: dict[str, str], arguments: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    tqdm.set_lock(
        threading.RLock()
    )  # forked processes share the default one: killed with it, one stopped all others
    with log.open("w", buffering=1) as file, redirect_stderr(file):
        os.dup2(file.fileno(), 2)  # for what does not come from Python
        exit_code = train(*arguments)
    os._exit(exit_code)


def start(log: Path, dataset: Path, results: Path, *flags: str, **environment: str) -> ForkProcess:
    """Train in a process group of its own, its standard error in `log`. Forked, as torch is already imported."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_train_and_exit, args=(log, environment, (dataset, results, *flags)))
    process.start()
    assert process.pid is not None
    os.setpgid(process.pid, process.pid)
    atexit.register(process.kill)
    return process


def wait_for(text: str, log: Path, seconds: float = 60) -> None:
    """Wait until the log contains a text."""
    deadline = time.monotonic() + seconds
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"{text!r} was never logged"
        time.sleep(0.02)


class RankProcesses:
    """The ranks of a distributed run, started as torchrun does, with a log each."""

    def __init__(self, world_size: int, dataset: Path, results: Path, *flags: str) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.logs = [results.with_name(f"{results.name}.{rank}.log") for rank in range(world_size)]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)}
        common |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
        common |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        self.processes = [
            start(log, dataset, results, *flags, **common, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank, log in enumerate(self.logs)
        ]

    def end(self, seconds: float = 60) -> list[int | None]:
        """Return the exit codes of all ranks, which end within `seconds`."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        exit_codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        assert None not in exit_codes, [log.read_text() for log in self.logs]
        return exit_codes

    def errors(self) -> list[str]:
        """Return the error line of each rank."""
        return [
            " ".join(line for line in log.read_text().splitlines() if "error:" in line) for log in self.logs
        ]


def folder(results: Path) -> Path:
    """Return the output folder of the only run in `results`."""
    (path,) = results.iterdir()
    return path


def load(results: Path, which: str) -> dict[str, Any]:
    """Return a checkpoint, such as `ep-0001`, `last` or `best`."""
    return torch.load(folder(results) / f"{NAME}_{which}.pth", weights_only=True)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_close_weights(one: Path, other: Path, within: float) -> None:
    first, second = weights(one), weights(other)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=within, atol=within, msg=name)


def assert_same_run(one: Path, other: Path, checkpoint: str = "ep-0003") -> None:
    """Assert that two runs have the same results, bit for bit."""
    assert_same_weights(*(folder(results) / f"{NAME}_{checkpoint}.pth" for results in (one, other)))
    for split in ("train", "val"):
        assert rows(one, split) == rows(other, split)


def rows(results: Path, split: str) -> list[list[str]]:
    """Return Epoch, Top1, Top5 and Loss of all epochs."""
    found: list[list[str]] = []
    for path in sorted(folder(results).glob(f"{split}_results_s*.csv")):
        with path.open() as file:
            found += [row[:4] for row in csv.reader(file)][1:]
    return found


def epochs(results: Path) -> list[str]:
    return [row[0] for row in rows(results, "val")]


def assert_fails(
    capsys: pytest.CaptureFixture[str], exit_code: int, *message: str, run: Callable[[], int]
) -> None:
    """Assert that a run ends with an exit code and one error line, which contains each `message`."""
    capsys.readouterr()
    assert run() == exit_code
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    for part in message:
        assert part in lines[0]


def corrupt_store(dataset: Path, split: str, row: int = 0) -> str:
    """Corrupt the frame database of a row of a label file; return its folder."""
    with (dataset / "labels" / f"{split}.csv").open() as file:
        video = list(csv.DictReader(file))[row]
    store = dataset / "jpg" / video["label"] / video["id"]
    (store / "frames.db").write_bytes(b"damaged" * 1000)
    return str(store)
