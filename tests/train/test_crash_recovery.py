"""A run that is killed at random moments and resumed ends like an uninterrupted one."""

import random
from pathlib import Path

from tests.train.conftest import make_dataset
from tests.train.crash_recovery import CrashRecoveryTest


def test_killed_five_times_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", videos=24, val="0.17")
    test = CrashRecoveryTest(dataset, tmp_path, random.Random(7))
    test.run_killed(5)
    assert test.kills.total() >= 2  # the run may end first
