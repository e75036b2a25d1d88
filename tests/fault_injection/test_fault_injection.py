"""A short chaos run, and that growth and leftovers would be noticed."""

import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault_injection import process
from tests.fault_injection.chaos_run import ChaosRuns
from tests.fault_injection.faults import HARMLESS
from tests.fault_injection.leak_test import Sample, check_samples, demo_commands
from tests.fault_injection.process import BrokenPromiseError, TrainingProcess


def test_a_few_faults_change_nothing() -> None:
    """`make soak` injects five hundred."""
    with tempfile.TemporaryDirectory() as place:  # a short name, as sockets need
        chaos = ChaosRuns(Path(place), random.Random(3), epochs=3, faults=HARMLESS)
        chaos.run_disturbed(lambda: chaos.injected.total() < 6)
    assert chaos.injected.total() > 0


@pytest.mark.parametrize(
    "sample",
    [
        lambda i: Sample(i, 400 + 0.2 * i, 100, 5),
        lambda i: Sample(i, 400, 100 + i, 5),
        lambda i: Sample(i, 400, 100, 5 + (i > 90)),
    ],
)
def test_growth_is_noticed(sample: Callable[[int], Sample]) -> None:
    with pytest.raises(BrokenPromiseError, match="something grows"):
        check_samples([sample(i) for i in range(100)], minutes=1)
    with pytest.raises(BrokenPromiseError, match="0 epochs after the warm-up are too few"):
        check_samples([sample(i) for i in range(10)], minutes=1)


def test_noise_is_not_growth() -> None:
    """In the second half one batch more is waiting."""
    samples = [Sample(i, 2000 + i % 7, 50 + (3 * i) % 8 + (i > 60), 3) for i in range(100)]
    assert check_samples(samples, minutes=1).startswith("100 epochs in 1 minutes; ")


def test_leak_test_trains_as_the_demo_does(tmp_path: Path) -> None:
    *preparation, training = demo_commands(tmp_path)
    assert [command[0] for command in preparation] == ["data.synthetic", "data.convert", "data.labels"]
    assert training[:2] == ["train", "--dataset"]
    assert str(tmp_path / "results") in training


def test_a_process_left_behind_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLEANUP", 0.3)
    code = "import os, time; os.fork() or time.sleep(60)"  # the child outlives its parent
    monkeypatch.setattr(process, "COMMAND", ["-c", code])
    training = TrainingProcess([], tmp_path / "temporary")
    training.process.wait()
    with pytest.raises(BrokenPromiseError, match="left behind: .*process "):
        training.check_cleanup()
    training.send(signal.SIGKILL)


@pytest.mark.parametrize("code", ["raise KeyError", "exit(1)", "exit(7)"])
def test_an_unclear_end_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(process, "COMMAND", ["-c", code])
    with pytest.raises(BrokenPromiseError, match="traceback|exit code 1 with 0 errors|exit code 7"):
        TrainingProcess([], tmp_path / "temporary").wait()
