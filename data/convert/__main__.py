"""python -m data.convert VIDEOS DATASET [--short-side 294] [--quality 3] [--workers N] [--trim LABELS.csv]
       [--damaged keep|refuse] [--time-limit 1800] [--delete-source]

Convert VIDEOS/<class>/<id>.<any> to frame stores DATASET/jpg/<class>/<id>/. Any file that ffmpeg reads will do. Videos
with a frame store are skipped, so the same command resumes an interrupted conversion; no store is ever half-written.

A short side of 294 pixels suits UCF101, HMDB51 and Diving48; HACS, Kinetics and Moments in Time are cropped from 384.

DATASET/converted.csv has the result of each video: the last row counts. Under torchrun or srun each rank converts its
share of the videos. The exit code is 1 where a video failed, but 0 under torchrun, which would kill the other ranks.
"""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import coloredlogs
from tqdm import tqdm

from data.common.atomic_io import flush_to_disk
from data.common.cli import OneLineParser, number, positive, seconds
from data.common.cpus import cpus_per_rank
from data.common.job_pool import JobTimeoutError, interrupted_by_signals, run_jobs
from data.common.manifest import Manifest
from data.common.staging import remove_abandoned
from data.convert.converter import ConversionError, Job, check_store, convert_video, read_back
from data.convert.sources import NoVideosError, find_jobs, find_trims, shard_for_rank
from data.frame_store import has_store

logger = logging.getLogger(__name__)

MANIFEST, COLUMNS = "converted.csv", ("video", "status", "reason", "frames")
RECORDED = ("converted", "damaged", "failed")  # in the manifest and on the progress bar
COUNTED = (*RECORDED, "sources_deleted", "sources_kept", "done_before")
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"  # an environment variable that torchrun sets


class Outcome(NamedTuple):
    """The result of a video.

    `status`: converted, damaged (stored up to the damage), failed, done_before or sources_kept.
    """

    status: str
    frames: int = 0
    reason: str = ""


def convert_one(job: Job, options: argparse.Namespace) -> Outcome:
    """Convert a video that has no store. Where its source is to be deleted, check the store and flush its folder."""
    settings = {"short_side": options.short_side, "quality": options.quality, "timeout": options.time_limit}
    outcome = Outcome("done_before")
    if not has_store(job.folder):
        try:
            frames, damage = convert_video(job, keep_damaged=options.damaged == "keep", **settings)
            outcome = Outcome("damaged" if damage else "converted", frames, damage)
        except FileExistsError as error:
            if not has_store(job.folder):  # else another conversion was faster
                raise ConversionError(f"{job.video}: {error}") from None
    if options.delete_source:
        if outcome.status == "done_before":
            try:
                check_store(job, **settings)
            except ConversionError as error:
                return Outcome("sources_kept", reason=str(error))
        else:
            read_back(job.folder, outcome.frames)
        for folder in (job.folder, job.folder.parent):
            flush_to_disk(folder)
    return outcome


def convert_all(jobs: Sequence[Job], options: argparse.Namespace) -> Counter[str]:
    """Convert `options.workers` videos at a time; return the number of videos by status.

    Failures are logged and recorded, and do not stop the others. Raises OSError where the dataset cannot be written.
    """
    manifest = Manifest(options.dataset / MANIFEST, COLUMNS)
    counts = Counter(dict.fromkeys(COUNTED, 0))
    pending = Counter(job.video for job in jobs)  # number of stores still to be cut from each source
    with (
        closing(run_jobs(lambda job: convert_one(job, options), jobs, workers=options.workers)) as results,
        tqdm(total=len(jobs), unit="video", disable=None) as bar,
    ):
        for job, future in results:
            outcome = _outcome(job, future)
            counts.update({outcome.status} | ({"converted"} if outcome.status == "damaged" else set()))
            if outcome.status in RECORDED:
                name = job.folder.relative_to(options.dataset / "jpg").as_posix()
                manifest.append(name, outcome.status, outcome.reason, outcome.frames)
            if outcome.status in ("converted", "done_before"):
                pending[job.video] -= 1
                if options.delete_source and not pending[job.video]:
                    job.video.unlink(missing_ok=True)  # another conversion may have deleted it
                    counts["sources_deleted"] += 1
            bar.set_postfix({name: counts[name] for name in RECORDED}, refresh=False)
            bar.update()
    return counts


def _outcome(job: Job, future: Future[Outcome]) -> Outcome:
    """Return the outcome of a video and log what is wrong with it."""
    try:
        outcome = future.result()
    except (ConversionError, JobTimeoutError) as error:
        reason = str(error).removeprefix(f"{job.video}: ")
        logger.error("%s: %s", job.video, reason)
        return Outcome("failed", reason=reason)
    if outcome.status == "damaged":
        logger.warning("%s: converted up to the damage, %s", job.video, outcome.reason)
    elif outcome.status == "sources_kept":
        logger.warning("%s: not deleted, %s", job.video, outcome.reason)
    return outcome


def convert(options: argparse.Namespace) -> Counter[str]:
    """Find and convert the videos of this rank; return the number of videos by status."""
    try:
        if options.trim:
            jobs, num_other = find_trims(options.videos, options.dataset, options.trim)
        else:
            jobs, num_other = find_jobs(options.videos, options.dataset)
    except NoVideosError:
        if not (options.delete_source and (options.dataset / MANIFEST).is_file()):
            raise
        jobs, num_other = [], 0  # all were converted and deleted before
    jobs = shard_for_rank(jobs, options.videos, os.environ)
    remove_abandoned(options.dataset / "jpg")
    todo = [job for job in jobs if options.delete_source or not has_store(job.folder)]
    counts = convert_all(todo, options)
    counts["done_before"] += len(jobs) - len(todo)
    counts["without_source" if options.trim else "not_videos"] = num_other
    return counts


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.convert", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    short_side = number(int, "a whole number of at least 16", lambda value: value >= 16)
    quality = number(int, "a whole number from 2 to 31", lambda value: 2 <= value <= 31)
    add("videos", type=Path, metavar="VIDEOS", help="folder with <class>/<id>.<any>")
    add("dataset", type=Path, metavar="DATASET", help="folder for jpg/<class>/<id>/frames.db")
    add("--short-side", type=short_side, default=294, help="maximum, in pixels (default: 294)")
    add("--quality", type=quality, default=3, help="JPEG quality, 2 (best) to 31 (default: 3)")
    add("--workers", type=positive, default=cpus_per_rank(), help="videos at a time (default: one per CPU)")
    add(
        "--trim",
        type=Path,
        action="append",
        default=[],
        metavar="LABELS.csv",
        help="label file: cut one store per row from <youtube_id>.<any>; may be given several times",
    )
    add(
        "--damaged",
        choices=("keep", "refuse"),
        default="keep",
        help="keep the frames before the first damage, or refuse the video (default: keep)",
    )
    add("--time-limit", type=seconds, default=1800, help="seconds per video (default: 1800)")
    add(
        "--delete-source",
        action="store_true",
        help="delete each video after reading its stores back; damaged videos are kept",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    try:
        with interrupted_by_signals():
            counts = convert(options)
    except KeyboardInterrupt:
        logger.error("interrupted; the same command resumes")
        return 130
    except (OSError, ValueError) as error:
        parser.error(str(error))
    summary = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    print(summary or "converted 0")
    if counts["failed"] and UNDER_TORCHRUN in os.environ:
        logger.warning("%d failed; exit code 0, as torchrun would kill the other ranks", counts["failed"])
        return 0
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
