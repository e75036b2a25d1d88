"""A short fuzzing run, and that its verdicts are right."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from tests.commands import Completed
from tests.fuzz import checkpoints, verdict
from tests.fuzz.dataset import VERIFY, write_dataset
from tests.fuzz.fuzzer import GENERATORS, Tally, choose_generators
from tests.fuzz.sandbox import run_in_sandbox
from tests.fuzz.verdict import FuzzInput, Verdict, judge


def test_inputs_end_in_success_or_one_clear_line(tmp_path: Path) -> None:
    """`make soak` runs ten thousand."""
    checkpoints.checkpoint()
    tally = Tally()
    tally.fuzz(seed=7, first=0, count=100, folder=tmp_path / "sandbox")
    assert tally.unclear == []
    assert tally.total()[Verdict.ACCEPTED] > 10
    assert tally.total()[Verdict.REFUSED] > 10


def test_inputs_cover_every_generator_and_can_be_repeated() -> None:
    chosen = choose_generators(seed=1, first=0, count=5000)
    assert {generator for _, generator in chosen} == set(GENERATORS)
    assert choose_generators(seed=1, first=4000, count=3) == chosen[4000:4003]


@pytest.mark.parametrize(
    ("exit_code", "output", "expected"),
    [
        (0, "done", Verdict.ACCEPTED),
        (2, "train: error: x.pth: is damaged", Verdict.REFUSED),
        (1, "  0 found\nx.pth: broken\n", Verdict.REFUSED),
        (2, "train: error: is damaged", Verdict.UNCLEAR),  # which file?
        (2, "train: error: x.pth" + "a" * 5000, Verdict.UNCLEAR),
        (2, "train: error: x.pth: \x1b[2J", Verdict.UNCLEAR),
        (2, "Traceback (most recent call last)\nerror: x.pth", Verdict.UNCLEAR),
        (137, "error: x.pth", Verdict.UNCLEAR),
    ],
)
def test_verdicts(exit_code: int, output: str, expected: Verdict) -> None:
    with mock.patch.object(verdict, "run_command", return_value=Completed(exit_code, output)):
        assert judge(FuzzInput(["train"], ["x.pth"])).verdict is expected


@pytest.mark.parametrize("end", [KeyError("x.pth"), MemoryError(), [Completed(0, "")]])
def test_uncaught_errors_and_wrong_success_are_unclear(end: object) -> None:
    with mock.patch.object(verdict, "run_command", side_effect=end):
        assert judge(FuzzInput(["train"], ["x.pth"], must_fail=True)).verdict is Verdict.UNCLEAR


@pytest.mark.parametrize(
    ("action", "detail"),
    [
        (lambda: Path("../outside/x").touch(), "outside of its folder"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "exit code -9"),
        (lambda: subprocess.run(["true"], check=True), "started true"),
    ],
)
def test_the_sandbox_reports_what_an_input_did(
    tmp_path: Path, action: Callable[[], None], detail: str
) -> None:
    def generate(folder: Path, _: object) -> FuzzInput:
        write_dataset(folder / "set", ["a"], ["v"])
        return FuzzInput(VERIFY, ["set"], check=action)

    first, second = run_in_sandbox([(0, generate), (1, generate)], tmp_path / "sandbox", seed=1)
    assert [number for number, _ in (first, second)] == [0, 1]
    assert detail in first[1].detail
    assert detail in second[1].detail
