"""Which video files become which stores, and which of them are this process's."""

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data.common.atomic_io import LOST_AND_FOUND
from data.convert.converter import Job
from data.ffmpeg import NO_VIDEOS
from data.label_files import read_segments

logger = logging.getLogger(__name__)

LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


class NoVideosError(ValueError):
    """A folder without anything to convert."""


def find_jobs(videos: Path, dataset: Path) -> tuple[list[Job], int]:
    """All videos `videos/<class>/<id>.<any>`, and the number of files that are none by their ending.

    Raises ValueError where two files would become one store, NoVideosError where there is nothing.
    """
    _check_folder(videos)
    jobs: dict[Path, Job] = {}
    files, ignored = _video_files(_in_classes(videos))
    for path in files:
        folder = dataset / "jpg" / path.parent.name / path.stem
        if folder in jobs:
            raise ValueError(f"{path} and {jobs[folder].video.name} would be one store, {folder}")
        jobs[folder] = Job(path, folder)
    if not jobs:
        raise NoVideosError(f"{videos}: holds no <class>/<video>")
    return list(jobs.values()), ignored


def find_trims(videos: Path, dataset: Path, labels: Sequence[Path]) -> tuple[list[Job], int]:
    """A job for each row of label files whose source is there, and the number of rows whose source is not.

    A source is `videos/<class>/<youtube_id>.<any>` or `videos/<youtube_id>.<any>`. Raises ValueError where a source is
    there twice, NoVideosError where none is there.
    """
    _check_folder(videos)
    sources: dict[tuple[str, str], Path] = {}
    files, _ = _video_files([*_listed(videos), *_in_classes(videos)])
    for path in files:
        place = path.parent.relative_to(videos).as_posix(), path.stem
        if place in sources:
            raise ValueError(f"{path} and {sources[place].name} would be one source, {path.stem}")
        sources[place] = path
    jobs, missing = {}, 0
    for segment in read_segments(labels):
        places = (segment.label, segment.source), (".", segment.source)
        video = next((sources[place] for place in places if place in sources), None)
        if video is None:
            missing += 1
            continue
        folder = dataset / "jpg" / segment.label / segment.video_id
        jobs[folder] = Job(video, folder, segment.seconds)
    if not jobs:
        raise NoVideosError(
            f"{videos}: holds none of the {missing} sources, as {segment.label}/{segment.source}.mp4"
        )
    return list(jobs.values()), missing


def _check_folder(videos: Path) -> None:
    if not videos.is_dir():
        raise ValueError(f"{videos}: is not a folder with <class>/<video> in it")


def _listed(folder: Path) -> list[Path]:
    """What a folder shows, in order. OSError where it cannot be read, which a glob would take for an empty one."""
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and path.name != LOST_AND_FOUND
    ]


def _in_classes(videos: Path) -> Iterator[Path]:
    return (path for folder in _listed(videos) if folder.is_dir() for path in _listed(folder))


def _video_files(paths: Iterable[Path]) -> tuple[list[Path], int]:
    """The files that may be videos, and the number of those that are none by their ending."""
    files = [path for path in paths if path.is_file()]
    found = [path for path in files if path.suffix.lower() not in NO_VIDEOS]
    return found, len(files) - len(found)


def shard_for_rank(jobs: Sequence[Job], videos: Path, environment: Mapping[str, str]) -> list[Job]:
    """The jobs of this process among those of a launcher, torchrun or srun; all of them without one.

    A job's process follows from its source alone, so that it does not matter which sources others have deleted since.
    """
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            rank, size = (int(environment[name]) for name in names)
            break
    else:
        rank, size = 0, 1
    if not 0 <= rank < size:
        raise ValueError(f"{names[0]} {rank}: must be 0 to {names[1]} - 1, {size - 1}")
    if size > 1:
        logger.info(
            "this is process %d of %d (%s %d of %s %d)", rank + 1, size, names[0], rank, names[1], size
        )
    return [job for job in jobs if _stable_number(job.video.relative_to(videos)) % size == rank]


def _stable_number(path: Path) -> int:
    """Of a path, the same in every process."""
    return int.from_bytes(hashlib.sha256(os.fsencode(path)).digest()[:8])
