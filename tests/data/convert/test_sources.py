"""Which videos are converted, and by which rank."""

from pathlib import Path

import pytest

from data.convert.sources import find_jobs, find_trims, shard_for_rank
from tests.data.unprivileged import as_nobody, forbidden, public_folder


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_ranks_share_the_videos_whatever_others_have_deleted(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(*(tmp_path / f"a/{i}.mp4" for i in range(8)))
    environments = [{names[0]: rank, names[1]: "2"} for rank in "01"]
    jobs = find_jobs(tmp_path, tmp_path / "set")
    first = shard_for_rank(jobs, tmp_path, environments[0])
    for job in first:
        job.video.unlink()
    jobs = find_jobs(tmp_path, tmp_path / "set")
    second = shard_for_rank(jobs, tmp_path, environments[1])
    assert 0 < len(first) < 8
    assert sorted(job.video.stem for job in first + second) == list("01234567")
    assert shard_for_rank(jobs, tmp_path, {}) == jobs


def test_unreadable_folder_is_an_error() -> None:
    """Its videos were left out without a message."""
    with public_folder() as root:
        touch(root / "a/x.mp4", root / "b/y.mp4")
        with forbidden(root / "b"), as_nobody(), pytest.raises(PermissionError):
            find_jobs(root, root / "set")
        with forbidden(root / "b"), as_nobody(), pytest.raises(PermissionError):
            find_trims(root, root / "set", [])


def test_two_files_for_one_store_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "videos/a/x.mp4", tmp_path / "videos/a/x.avi")
    (tmp_path / "labels.csv").write_text("label,youtube_id,time_start,time_end\na,x,0,1\n")
    with pytest.raises(ValueError, match=r"x.mp4 and x.avi have the same frame store"):
        find_jobs(tmp_path / "videos", tmp_path / "set")
    with pytest.raises(ValueError, match=r"x.mp4 and x.avi are both the source x"):
        find_trims(tmp_path / "videos", tmp_path / "set", [tmp_path / "labels.csv"])


def test_folder_without_videos_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.m3u8", tmp_path / "y.mp4")
    with pytest.raises(ValueError, match="no videos <class>/<id>"):
        find_jobs(tmp_path, tmp_path / "set")
    with pytest.raises(ValueError, match="vidoes: not a folder with videos"):
        find_jobs(tmp_path / "vidoes", tmp_path / "set")


def test_videos_may_all_be_converted_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "set/jpg").mkdir(parents=True)
    assert find_jobs(tmp_path / "videos", tmp_path / "set") == []
