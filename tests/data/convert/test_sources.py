"""Which videos are converted, and by which rank."""

from pathlib import Path

import pytest

from data.convert.converter import Job
from data.convert.sources import find_jobs, find_trims, list_sources, shard_for_rank
from tests.data.unprivileged import as_nobody, forbidden, public_folder


def jobs_in(videos: Path, dataset: Path) -> list[Job]:
    return find_jobs(list_sources(videos)[0], videos, dataset)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")])
def test_ranks_share_the_videos_whatever_others_have_deleted(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(*(tmp_path / f"a/{i}.mp4" for i in range(8)))
    environments = [{names[0]: rank, names[1]: "2"} for rank in "01"]
    touch(*(tmp_path / f"a/{i}.webm" for i in range(8)))  # other files of the same ids
    jobs = jobs_in(tmp_path, tmp_path / "set")
    first = shard_for_rank(jobs, tmp_path, environments[0])
    for job in first:
        job.video.unlink()
    jobs = jobs_in(tmp_path, tmp_path / "set")
    second = shard_for_rank(jobs, tmp_path, environments[1])
    assert 0 < len(first) < 16
    assert sorted(job.video.stem for job in first + second) == list("0011223344556677")
    assert not {job.video.stem for job in first} & {job.video.stem for job in second}
    assert shard_for_rank(jobs, tmp_path, {}) == jobs


def test_unreadable_folder_is_an_error() -> None:
    """Its videos were left out without a message."""
    with public_folder() as root:
        touch(root / "a/x.mp4", root / "b/y.mp4")
        with forbidden(root / "b"), as_nobody(), pytest.raises(PermissionError):
            list_sources(root)


def test_files_and_folders_of_one_id_are_all_found(tmp_path: Path) -> None:
    """Which of them is the video is only known when they are decoded."""
    names = ("a/x.mp4", "a/x.f137.webm", "a/x.description", "a/@eaDir/x.mp4/1.jpg", "a/._x.mp4")
    touch(*(tmp_path / name for name in names), tmp_path / "a/x.mkv/00001.JPG", tmp_path / "lost+found/x.mp4")
    touch(
        *(tmp_path / "a/v_1.2" / name for name in ("img_1.jpg", "n_frames")), tmp_path / "a/empty/notes.txt"
    )
    sources, others = list_sources(tmp_path)
    found = [(job.video.name, job.folder.name) for job in find_jobs(sources, tmp_path, tmp_path / "set")]
    assert found == [("v_1.2", "v_1.2"), ("x.f137.webm", "x"), ("x.mkv", "x"), ("x.mp4", "x")]
    assert others == [tmp_path / "a/x.description"]
    (tmp_path / "labels.csv").write_text("label,youtube_id,time_start,time_end\na,x,0,1\na,x,0,1\n")
    jobs, missing = find_trims(sources, tmp_path, tmp_path / "set", [tmp_path / "labels.csv"])
    assert [job.video.name for job in jobs] == ["x.f137.webm", "x.mkv", "x.mp4"]
    assert {job.folder.name for job in jobs} == {"x_000000_000001"}
    assert missing == 0


def test_folder_without_videos_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.m3u8", tmp_path / "y.mp4")
    with pytest.raises(ValueError, match="no videos <class>/<id>"):
        jobs_in(tmp_path, tmp_path / "set")
    with pytest.raises(ValueError, match="vidoes: not a folder with videos"):
        jobs_in(tmp_path / "vidoes", tmp_path / "set")


def test_videos_may_all_be_converted_and_deleted(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "set/jpg").mkdir(parents=True)
    assert jobs_in(tmp_path / "videos", tmp_path / "set") == []
