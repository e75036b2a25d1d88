"""A conversion killed at random moments ends with the stores of one that was left alone."""

import random
from pathlib import Path

from tests.data.crash_recovery import Campaign, make_videos


def test_killed_five_times_and_started_again_gives_the_same_stores_byte_for_byte(tmp_path: Path) -> None:
    """`make soak` does it two hundred times; docs/reliability.md has its result."""
    make_videos(tmp_path / "videos", 14)
    campaign = Campaign(tmp_path / "videos", tmp_path, random.Random(3))
    while campaign.kills < 5:
        campaign.run_killed(5 - campaign.kills)
