"""python -m data.convert VIDEOS DATASET [--short-side 294] [--quality 3] [--workers N] [--trim LABELS.csv]
       [--damaged keep|refuse] [--time-limit 1800] [--delete-source]

Convert VIDEOS/<class>/<id>.<any> to frame stores DATASET/jpg/<class>/<id>/. Any file that ffmpeg reads will do. Videos
with a store are skipped, so an interrupted conversion goes on where it stopped; a store is there as a whole or not at
all.

294 lines suit UCF101, HMDB51 and Diving48; HACS, Kinetics and Moments in Time are cropped from 384.

Each video is converted in a process of its own. DATASET/converted.csv says what became of each: the last row counts.
Under torchrun or srun every process takes its part of the videos. The status is 1 where a video failed, but 0 under
torchrun, which would end the processes that are still at work.
"""

import argparse
import functools
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import coloredlogs
from tqdm import tqdm

from data.common.atomic_io import flush_to_disk
from data.common.cli import OneLineParser
from data.common.cpus import cpus_per_rank
from data.common.job_pool import (
    LONGEST_WAIT,
    Ended,
    JobCrashedError,
    interrupted_by_signals,
    run_in_subprocesses,
)
from data.common.manifest import Manifest
from data.common.staging import remove_abandoned
from data.convert.converter import ConversionError, Job, check_store, convert_video, read_back
from data.convert.sources import NoVideosError, find_jobs, find_trims, shard_for_rank
from data.ffmpeg import passthrough_fps_args
from data.frame_store import has_store

logger = logging.getLogger(__name__)

MIN_SHORT_SIDE = 16
LEDGER, COLUMNS = "converted.csv", ("video", "status", "reason", "frames")
WRITTEN = ("converted", "damaged", "failed")  # in the ledger
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"  # a variable that it sets
COUNTED = (*WRITTEN, "sources_deleted", "sources_kept", "done_before", "without_source", "no_videos")


class Settings(NamedTuple):
    """How videos are converted."""

    short_side: int
    quality: int
    keep_damaged: bool
    delete_source: bool


class Done(NamedTuple):
    """What became of a video: converted, damaged (kept up to there), failed, done_before, sources_kept; and why."""

    status: str
    frames: int
    reason: str = ""


def convert_one(job: Job, settings: Settings) -> Done:
    """Convert a video, and check that it arrived where its source is to be deleted. ConversionError says why not."""
    chosen = {"short_side": settings.short_side, "quality": settings.quality}
    if has_store(job.folder):
        return _done_before(job, settings)
    try:
        frames, damage = convert_video(job, keep_damaged=settings.keep_damaged, **chosen)
    except FileExistsError as error:
        if not has_store(job.folder):
            raise ConversionError(f"{job.video}: {error}") from None
        return _done_before(job, settings)  # another conversion was faster
    if settings.delete_source:
        read_back(job.folder, frames)
        _flush(job.folder)
    return Done("damaged" if damage else "converted", frames, damage)


def _done_before(job: Job, settings: Settings) -> Done:
    """Nothing says that such a store is of this source and whole, so its frames are counted before that is deleted."""
    if settings.delete_source:
        try:
            check_store(job, short_side=settings.short_side, quality=settings.quality)
        except ConversionError as error:
            return Done("sources_kept", 0, str(error))
        _flush(job.folder)
    return Done("done_before", 0)


def _flush(store: Path) -> None:
    """Its files are on the disk; now that they are there, too."""
    for folder in (store, store.parent):
        flush_to_disk(folder)


def convert_all(
    jobs: Sequence[Job], settings: Settings, *, dataset: Path, workers: int, time_limit: float
) -> Counter[str]:
    """Convert several videos at a time; counts `converted`, `damaged` (of these), `failed` and others.

    What failed is logged with its reason and does not stop the others; each is a row of the ledger in `dataset`. An
    interrupt ends what is in work, and is raised again.
    """
    ledger = Manifest(dataset / LEDGER, COLUMNS)
    counts = Counter(dict.fromkeys(COUNTED, 0))
    pending = Counter(job.video for job in jobs)  # stores that a source is still needed for
    work = functools.partial(convert_one, settings=settings)
    passthrough_fps_args()  # the processes inherit the answer
    with (
        closing(run_in_subprocesses(work, jobs, workers=workers, time_limit=time_limit)) as endings,
        tqdm(total=len(jobs), unit="video", disable=None) as bar,
    ):
        for ended in endings:
            done = _judge(ended)
            counts.update({done.status} | ({"converted"} if done.status == "damaged" else set()))
            if done.status in WRITTEN:
                name = ended.job.folder.relative_to(dataset / "jpg").as_posix()
                ledger.add(name, done.status, done.reason, done.frames)
            if done.status in ("converted", "done_before"):
                pending[ended.job.video] -= 1
                if settings.delete_source and not pending[ended.job.video]:
                    ended.job.video.unlink(missing_ok=True)  # another conversion may share the work
                    counts["sources_deleted"] += 1
            bar.set_postfix({name: counts[name] for name in WRITTEN}, refresh=False)
            bar.update()
    return counts


def _judge(ended: Ended[Job, Done]) -> Done:
    """What became of a video, logged where it is not as it should be; raises what concerns more than this video."""
    video = ended.job.video
    if ended.error is None:
        if ended.result.status == "damaged":
            logger.warning("%s: converted as far as it decodes, %s", video, ended.result.reason)
        elif ended.result.status == "sources_kept":
            logger.warning("%s: not deleted, %s", video, ended.result.reason)
        return ended.result
    if not isinstance(ended.error, ConversionError | JobCrashedError):
        raise ended.error
    reason = str(ended.error).removeprefix(f"{video}: ")
    logger.error("%s: %s", video, reason)
    return Done("failed", 0, reason)


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.convert", description=__doc__.split("\n\n")[1])
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder with <class>/<id>.<any>")
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="folder that gets jpg/<class>/<id>/frames.db"
    )
    parser.add_argument("--short-side", type=int, default=294, help="height of frames at most (default: 294)")
    parser.add_argument("--quality", type=int, default=3, help="of the JPEGs, 2 (best) to 31 (default: 3)")
    parser.add_argument(
        "--workers", type=int, default=cpus_per_rank(), help="videos at a time (default: one a core)"
    )
    parser.add_argument(
        "--trim",
        type=Path,
        action="append",
        default=[],
        metavar="LABELS.csv",
        help="cut a store for each of its rows out of <youtube_id>.<any>; may be given several times",
    )
    parser.add_argument(
        "--damaged",
        choices=("keep", "refuse"),
        default="keep",
        help="keep the frames before the first damage, or refuse the video (default: keep)",
    )
    parser.add_argument(
        "--time-limit", type=float, default=1800, help="seconds that a video may take (default: 1800)"
    )
    parser.add_argument(
        "--delete-source",
        action="store_true",
        help="delete each video once its stores were read back; damaged ones stay",
    )
    return parser


def _find(arguments: argparse.Namespace) -> tuple[list[Job], dict[str, int]]:
    """What is to be converted, and counts of what is not."""
    if arguments.trim:
        jobs, missing = find_trims(arguments.videos, arguments.dataset, arguments.trim)
        return jobs, {"without_source": missing}
    jobs, ignored = find_jobs(arguments.videos, arguments.dataset)
    return jobs, {"no_videos": ignored}


def convert(arguments: argparse.Namespace) -> Counter[str]:
    """All that the command does; counts what became of the videos."""
    dataset = arguments.dataset
    try:
        jobs, besides = _find(arguments)
    except NoVideosError:
        if not (arguments.delete_source and (dataset / LEDGER).is_file()):
            raise
        jobs, besides = [], {}  # all were converted before, and deleted
    jobs = shard_for_rank(jobs, arguments.videos, os.environ)
    settings = Settings(
        short_side=arguments.short_side,
        quality=arguments.quality,
        keep_damaged=arguments.damaged == "keep",
        delete_source=arguments.delete_source,
    )
    besides["half_written_removed"] = remove_abandoned(dataset / "jpg")
    todo = [job for job in jobs if settings.delete_source or not has_store(job.folder)]
    try:
        counts = convert_all(
            todo,
            settings,
            dataset=dataset,
            workers=arguments.workers,
            time_limit=arguments.time_limit,
        )
    finally:
        remove_abandoned(dataset / "jpg")  # of processes that were killed
    counts["done_before"] += len(jobs) - len(todo)
    counts.update(besides)
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.short_side < MIN_SHORT_SIDE:
        parser.error(f"--short-side {arguments.short_side}: must be at least {MIN_SHORT_SIDE}")
    if not 2 <= arguments.quality <= 31:
        parser.error(f"--quality {arguments.quality}: must be 2 to 31")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: must be at least 1")
    if not 0 < arguments.time_limit <= LONGEST_WAIT:
        parser.error(
            f"--time-limit {arguments.time_limit:g}: must be above 0, and at most {LONGEST_WAIT:g} seconds"
        )
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    try:
        with interrupted_by_signals():
            counts = convert(arguments)
    except KeyboardInterrupt:
        logger.error("stopped; the same command goes on from here")
        return 130
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(
        ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
        or "converted 0"
    )
    if counts["failed"] and UNDER_TORCHRUN in os.environ:
        reason = "ends with status 0 though %d failed, for torchrun not to end the other processes"
        logger.warning(reason, counts["failed"])
        return 0
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
