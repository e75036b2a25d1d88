"""Find the videos to convert, and the shard of this rank."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.convert.converter import Job
from data.ffmpeg.video_files import NON_VIDEO_SUFFIXES
from data.label_files import read_annotations

logger = logging.getLogger(__name__)

LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # torchrun, srun


def find_jobs(videos: Path, dataset: Path) -> list[Job]:
    """Return a job for each video `videos/<class>/<id>.<any>`.

    Raises ValueError where two files have the same store, and where there are none and nothing was converted before.
    """
    jobs: dict[Path, Job] = {}
    for path in _list_videos(videos):
        if path.parent == videos:
            continue
        folder = dataset / "jpg" / path.parent.name / path.stem
        if folder in jobs:
            raise ValueError(f"{path} and {jobs[folder].video.name} have the same frame store, {folder}")
        jobs[folder] = Job(path, folder)
    if not jobs and not (dataset / "jpg").is_dir():  # else all may have been converted and deleted
        raise ValueError(f"{videos}: no videos <class>/<id>.<any> in it")
    return list(jobs.values())


def find_trims(videos: Path, dataset: Path, labels: Sequence[Path]) -> tuple[list[Job], int]:
    """Return a job for each row of label files whose source exists, and the number of rows whose source does not.

    A source is `videos/<class>/<youtube_id>.<any>` or `videos/<youtube_id>.<any>`. Raises ValueError where a source
    exists twice, and where none exists.
    """
    sources: dict[tuple[str, str], Path] = {}
    for path in _list_videos(videos):
        key = path.parent.relative_to(videos).as_posix(), path.stem
        if key in sources:
            raise ValueError(f"{path} and {sources[key].name} are both the source {path.stem}")
        sources[key] = path
    jobs, missing = {}, 0
    for row in read_annotations(labels):
        keys = (row.label, row.source), (".", row.source)
        video = next((sources[key] for key in keys if key in sources), None)
        if video is None:
            missing += 1
            continue
        folder = dataset / "jpg" / row.folder
        jobs[folder] = Job(video, folder, row.seconds)
    if not jobs and not (dataset / "jpg").is_dir():
        raise ValueError(f"{videos}: has none of the {missing} sources, such as {row.label}/{row.source}.mp4")
    return list(jobs.values()), missing


def _list_videos(videos: Path) -> list[Path]:
    """Return the files `videos/<name>` and `videos/<class>/<name>` that may be videos, sorted."""
    entries = _visible(videos)
    inside = [path for folder in entries if folder.is_dir() for path in _visible(folder)]
    files = [path for path in [*entries, *inside] if path.is_file()]
    return [path for path in files if path.suffix.lower() not in NON_VIDEO_SUFFIXES]


def _visible(folder: Path) -> list[Path]:
    """Return the entries of a folder without hidden ones, sorted. Raises OSError where it cannot be read."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder with videos <class>/<id>.<any>")
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


def shard_for_rank(jobs: Sequence[Job], videos: Path, environment: Mapping[str, str]) -> list[Job]:
    """Return the jobs of this rank under torchrun or srun; all jobs without them.

    The rank of a job is a hash of its source's path, so the shards do not change when sources are deleted.
    """
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            rank, size = (int(environment[name]) for name in names)
            if size > 1:
                logger.info("rank %d of %d (%s, %s)", rank, size, *names)
            return [job for job in jobs if _stable_hash(job.video.relative_to(videos)) % size == rank]
    return list(jobs)


def _stable_hash(path: Path) -> int:
    """Return a hash of a path that is the same in every process."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8])
