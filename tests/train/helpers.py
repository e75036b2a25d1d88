"""Small runs for the tests, and what they leave."""

import atexit
import csv
import multiprocessing
import os
import time
from contextlib import redirect_stderr
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
import torch._dynamo  # by the first optimizer otherwise: here once, not in each forked process
from torch.distributed import TCPStore

from data.datasets import CUSTOM
from train.main import main
from train.options import Options

SMALL = [
    "--network",
    "ir_csn_50",
    "--clip-length",
    "4",
    "--clip-size",
    "32",
    "--short-side",
    "36",
    "--batch-size",
    "4",
]
SMALL += ["--workers", "0", "--augment", "none", "--lr-base", "0.01", "--gpus", "0"]
NAME = "ir_csn_50"
# of the run that others are compared with
UNDISTURBED = ["--end-epoch", "3", "--short-cycles", "--lr-steps", "2", "--warmup-epochs", "1"]


def train(dataset: Path, results: Path, *words: str) -> int:
    return main(
        CUSTOM, Options(), ["--dataset", str(dataset), "--model-dir", str(results), *SMALL, *words], "train"
    )


def _train_and_exit(log: Path, environment: dict[str, str], arguments: tuple[str, ...]) -> None:
    os.environ.update(environment)
    with log.open("w", buffering=1) as file, redirect_stderr(file):
        os.dup2(file.fileno(), 2)  # also of what does not come from Python
        status = train(*arguments)
    os._exit(status)


def start(log: Path, dataset: Path, results: Path, *words: str, **environment: str) -> ForkProcess:
    """`train` in a process that leads its own group, standard error in `log`. Forked, as torch is imported already."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_train_and_exit, args=(log, environment, (dataset, results, *words)))
    process.start()
    os.setpgid(process.pid, process.pid)
    atexit.register(process.kill)  # where a test fails before the run ends
    return process


def wait_for(text: str, log: Path, seconds: float = 60) -> None:
    """Until it is logged."""
    deadline = time.monotonic() + seconds
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, f"{text!r} was never logged"
        time.sleep(0.02)


class Together:
    """Processes of one run, started as torchrun does, each with a log of its standard error."""

    def __init__(self, processes: int, dataset: Path, results: Path, *words: str) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.logs = [results.with_name(f"{results.name}.{rank}.log") for rank in range(processes)]
        everybody = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.store.port)}
        everybody |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        everybody |= {"TORCHELASTIC_USE_AGENT_STORE": "True"}
        self.processes = [
            start(log, dataset, results, *words, **everybody, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank, log in enumerate(self.logs)
        ]

    def end(self, seconds: float = 60) -> list[int]:
        """Their exit statuses, which all have within `seconds`."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        statuses = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        assert None not in statuses, [log.read_text() for log in self.logs]
        return statuses

    def errors(self) -> list[str]:
        """What each process says went wrong."""
        return [
            " ".join(line for line in log.read_text().splitlines() if "error:" in line) for log in self.logs
        ]


def folder(results: Path) -> Path:
    (path,) = results.iterdir()
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_close_weights(one: Path, other: Path, within: float) -> None:
    first, second = weights(one), weights(other)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=within, atol=within, msg=name)


def rows(results: Path, split: str) -> list[list[str]]:
    found = []
    for path in sorted(folder(results).glob(f"{split}_results_s*.csv")):
        with path.open() as file:
            found += [row[:4] for row in csv.reader(file)][1:]
    return found


def fails(capsys: pytest.CaptureFixture[str], status: int, *message: str, run: object) -> None:
    capsys.readouterr()
    assert run() == status
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    for part in message:
        assert part in lines[0]


def damage(dataset: Path, split: str, row: int = 0) -> str:
    """Make the store of a row of a label file unreadable; returns its folder."""
    with (dataset / "labels" / f"{split}.csv").open() as file:
        video = list(csv.DictReader(file))[row]
    store = dataset / "jpg" / video["label"] / video["id"]
    (store / "frames.db").write_bytes(b"damaged" * 1000)
    return str(store)
