"""Find the videos to convert, and the shard of this rank."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

from data.convert.converter import Job
from data.convert.extracted_frames import holds_frames
from data.ffmpeg.side_files import may_be_video, video_id
from data.label_files import clean, read_annotations

logger = logging.getLogger(__name__)

LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # torchrun, srun
HIDDEN = (".", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found")


def list_sources(root: Path) -> tuple[list[Path], list[Path]]:
    """Return what may be a video or is a folder of frames, `root/[<class>/]<name>`, and the files that are neither."""
    entries = _visible(root)
    inside = [path for folder in entries if folder.is_dir() for path in _visible(folder)]
    videos: list[Path] = []
    others: list[Path] = []
    for path in [*entries, *inside]:
        if path.is_file():
            (videos if may_be_video(path) else others).append(path)
        elif path.parent != root and path.is_dir() and holds_frames(path):
            videos.append(path)
    return videos, others


def find_jobs(sources: Sequence[Path], videos: Path, dataset: Path) -> list[Job]:
    """Return a job for each `<class>/<id>.<any>` and each folder of frames `<class>/<id>`, several for files of one id.

    Raises ValueError where there are none and nothing was converted before.
    """
    inside = [path for path in sources if path.parent != videos]
    jobs = [Job(path, dataset / "jpg" / path.parent.name / video_id(path)) for path in inside]
    if not jobs and not (dataset / "jpg").is_dir():  # else all may have been converted and deleted
        raise ValueError(f"{videos}: no videos <class>/<id>.<any> or frames <class>/<id>/<number>.jpg in it")
    return jobs


def find_trims(
    sources: Sequence[Path], videos: Path, dataset: Path, labels: Sequence[Path]
) -> tuple[list[Job], int]:
    """Return a job for each row of label files whose source exists, and the number of rows whose source does not.

    A source is `<class>/<youtube_id>.<any>` or `<youtube_id>.<any>`; a row has several jobs where it exists several
    times. Raises ValueError where none exists.
    """
    paths: dict[tuple[str, str], list[Path]] = {}
    for path in sources:
        key = clean(path.parent.relative_to(videos).as_posix()), clean(video_id(path))
        paths.setdefault(key, []).append(path)
    jobs: list[Job] = []
    missing = 0
    for row in read_annotations(labels):
        found = paths.get((row.label, row.source)) or paths.get((".", row.source))
        if not found:
            missing += 1
            continue
        folder = dataset / "jpg" / row.folder
        jobs += [Job(path, folder, row.seconds) for path in found]
    if not jobs and not (dataset / "jpg").is_dir():
        raise ValueError(f"{videos}: has none of the {missing} sources, such as {row.label}/{row.source}.mp4")
    return jobs, missing


def _visible(folder: Path) -> list[Path]:
    """Return the entries of a folder without hidden ones, sorted. Raises OSError where it cannot be read."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder with videos <class>/<id>.<any>")
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(HIDDEN)]


def shard_for_rank(jobs: Sequence[Job], videos: Path, environment: Mapping[str, str]) -> list[Job]:
    """Return the jobs of this rank under torchrun or srun; all jobs without them.

    The rank of a job is a hash of its source's path without the suffix, so the shards do not change when sources are
    deleted, and files of one id are in one shard.
    """
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            rank, size = (int(environment[name]) for name in names)
            if size > 1:
                logger.info("rank %d of %d (%s, %s)", rank, size, *names)
            ids = {job: job.video.relative_to(videos).with_name(video_id(job.video)) for job in jobs}
            return [job for job, name in ids.items() if crc32(os.fsencode(name)) % size == rank]
    return list(jobs)
