"""A training process killed at random moments ends as one that was left alone."""

import random
from pathlib import Path

from tests.train.crash_recovery import Campaign, make_dataset


def test_killed_five_times_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    """Twenty steps an epoch. `make soak` does it two hundred times; docs/reliability.md has its result."""
    make_dataset(tmp_path / "set", videos_per_class=16)
    campaign = Campaign(tmp_path / "set", tmp_path, random.Random(7), epochs=2)
    campaign.run_killed(5)
    assert campaign.kills == 5
