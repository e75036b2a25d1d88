"""A killed and restarted conversion ends with the same stores as one that was not killed."""

from pathlib import Path

from tests.data.crash_recovery import CrashRecoveryTest, make_videos


def test_killed_conversion_ends_with_identical_stores(tmp_path: Path) -> None:
    """Five kills; `make soak` does two hundred."""
    make_videos(tmp_path / "videos", 14)
    test = CrashRecoveryTest(tmp_path / "videos", tmp_path, seed=3)
    while test.kills.total() < 5:
        test.run(5 - test.kills.total())
