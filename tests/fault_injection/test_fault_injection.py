"""The campaign of faults in short, and that it would notice if something grew or was left behind."""

import random
import signal
import tempfile
from pathlib import Path

import pytest

from tests.fault_injection.chaos_run import Campaign
from tests.fault_injection.leak_test import Sample, demo_commands, judge
from tests.fault_injection.processes import BrokenPromiseError, Training


def test_a_few_faults_change_nothing() -> None:
    """`make soak` does five hundred; docs/reliability.md has its result."""
    with tempfile.TemporaryDirectory() as place:  # a short name, as sockets want
        campaign = Campaign(Path(place), random.Random(3), epochs=1, owns_shared_memory=False, ending=0)
        campaign.disturb(lambda: campaign.faults.total() < 6)
    assert campaign.faults.total() > 0


@pytest.mark.parametrize(
    ("grows", "what"),
    [
        (lambda i: Sample(i, 400 + 0.2 * i, 100, 5), "something grows: .* 419.8 MB"),
        (lambda i: Sample(i, 400, 100 + i, 5), "something grows"),
        (lambda i: Sample(i, 400, 100, 5 + (i > 90)), "something grows"),
        (lambda i: Sample(i / 20, 400, 100, 5), "0 epochs after the warm-up say nothing"),
    ],
)
def test_what_grows_is_noticed(grows: object, what: str) -> None:
    with pytest.raises(BrokenPromiseError, match=what):
        judge([grows(i) for i in range(100)], minutes=1)


def test_a_spell_is_of_the_demo(tmp_path: Path) -> None:
    *before, training = demo_commands(tmp_path)
    assert [command[0] for command in before] == ["data.synthetic", "data.convert", "data.labels"]
    assert training[:3] == ["train", "--dataset", str(tmp_path / "motions")]
    assert training[-2:] == ["--model-dir", str(tmp_path / "results")]


def test_a_little_noise_is_no_growth() -> None:
    said = judge([Sample(i, 400 + i % 7, 100 + i % 3, 5) for i in range(100)], minutes=1)
    assert said.startswith("100 epochs in 1 minutes; ")
    # one batch more or less waits: a median that was higher by one was taken for growth
    judge([Sample(i, 2000, 50 + (3 * i) % 8 + (i > 60), 3) for i in range(100)], minutes=1)


def test_a_process_that_is_left_behind_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fault_injection.processes.GOING", 0.3)
    code = "import os, time; os.fork() or time.sleep(60)"  # the child of an interpreter that ends at once
    monkeypatch.setattr("tests.fault_injection.processes.COMMAND", ["-c", code])
    training = Training([], tmp_path / "temporary")
    training.process.wait()
    with pytest.raises(BrokenPromiseError, match="left behind: .*process "):
        training.check_nothing_is_left(owns_shared_memory=False)
    training.send(signal.SIGKILL)


def test_segments_of_dead_processes_are_noticed_where_nobody_else_has_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of other tests, whose workers are killed, were taken for this run's."""
    monkeypatch.setattr("tests.fault_injection.processes.GOING", 0.1)
    monkeypatch.setattr("tests.fault_injection.processes.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("tests.fault_injection.processes.COMMAND", ["-c", ""])
    training = Training([], tmp_path / "temporary")
    training.process.wait()
    (tmp_path / f"torch_{training.pid}_1_1").touch()
    with pytest.raises(BrokenPromiseError, match=f"left behind: .*torch_{training.pid}_1_1"):
        training.check_nothing_is_left(owns_shared_memory=True)
    training.check_nothing_is_left(owns_shared_memory=False)
