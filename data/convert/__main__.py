"""python -m data.convert VIDEOS DATASET [--short-side 294] [--quality 3] [--workers N] [--trim LABELS.csv]
       [--damaged keep|refuse] [--time-limit 1800] [--delete-source]

Convert VIDEOS/<class>/<id>.<any> to frame stores DATASET/jpg/<class>/<id>/. Any file that ffmpeg reads will do; others
are passed over. Frames that are extracted already, VIDEOS/<class>/<id>/img_00001.jpg and so on, are stored as they are.
Videos with a store are skipped, so the same command resumes an interrupted conversion; no store is ever half-written.

A short side of 294 pixels suits UCF101, HMDB51 and Diving48; HACS, Kinetics and Moments in Time are cropped from 384.

DATASET/converted.csv has the result of each video: the last row counts. Under torchrun or srun each rank converts its
shard of the videos. The exit code is 1 if a video failed, but 0 under torchrun, which would kill the other ranks.
"""

import argparse
import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import coloredlogs
from tqdm import tqdm

from data.common.cli import OneLineParser, number, positive, sanitize, seconds
from data.common.cpus import cpus_per_rank
from data.common.job_pool import JobTimeoutError, interrupted_by_signals, run_jobs
from data.common.manifest import Manifest
from data.common.staging import remove_abandoned
from data.convert.converter import ConversionError, Job, convert_video, read_back
from data.convert.extracted_frames import store_frames
from data.convert.sources import find_jobs, find_trims, list_sources, shard_for_rank
from data.ffmpeg.side_files import choose_videos, must_be_video
from data.frame_store import has_store

logger = logging.getLogger(__name__)

MANIFEST, COLUMNS = "converted.csv", ("video", "status", "reason", "frames")
RECORDED = ("converted", "damaged", "failed")  # in the manifest and on the progress bar
COUNTED = (*RECORDED, "sources_deleted", "sources_kept", "done_before", "passed_over")
MESSAGES = {  # by status
    "failed": (logging.ERROR, "%s: %s"),
    "damaged": (logging.WARNING, "%s: converted up to the damage, %s"),
    "sources_kept": (logging.WARNING, "%s: not deleted, %s"),
}
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"  # an environment variable that torchrun sets


class Outcome(NamedTuple):
    """The result of a video.

    `status`: converted, damaged (stored up to the damage), failed, done_before, sources_kept or passed_over (no video).
    """

    status: str
    frames: int = 0
    reason: str = ""


def convert_any(
    jobs: Sequence[Job], options: argparse.Namespace, recorded: Mapping[str, str]
) -> tuple[Job, Outcome, list[Path]]:
    """Convert the video among the files of one store; return its job, and the files that are no videos."""
    paths = [job.video for job in jobs]
    videos = choose_videos(paths)
    others = [path for path in paths if path not in videos]
    if not videos:
        return jobs[0], Outcome("passed_over"), others
    job = jobs[paths.index(videos[0])]
    if len(videos) == 1:
        return job, convert_one(job, options, recorded), others
    reason = f"{videos[1].name} is the same video: delete or rename one of the two"
    return job, Outcome("failed", reason=reason), others


def convert_one(job: Job, options: argparse.Namespace, recorded: Mapping[str, str]) -> Outcome:
    """Convert a video that has no store; `recorded` is its row in the manifest, empty without one.

    Where its source is to be deleted, read the store back. For a store that existed before, the manifest has the number
    of frames, and whether the video was damaged.
    """
    try:
        outcome = None if has_store(job.folder) else _convert(job, options)
        if outcome is None:
            if options.delete_source and recorded.get("status") != "converted":
                return Outcome("sources_kept", reason=f"its store is not listed as converted in {MANIFEST}")
            outcome = Outcome("done_before", int(recorded.get("frames", 0)))
        if options.delete_source:
            read_back(job.folder, outcome.frames)
    except (ConversionError, JobTimeoutError) as error:
        return Outcome("failed", reason=str(error).removeprefix(f"{job.video}: "))
    return outcome


def _convert(job: Job, options: argparse.Namespace) -> Outcome | None:
    """Convert a video; return None where another conversion was faster."""
    try:
        if job.video.is_dir():
            return Outcome("converted", store_frames(job))
        frames, damage = convert_video(
            job,
            short_side=options.short_side,
            quality=options.quality,
            keep_damaged=options.damaged == "keep",
            timeout=options.time_limit,
        )
    except FileExistsError as error:
        if has_store(job.folder):
            return None
        raise ConversionError(f"{job.video}: {error}") from None
    return Outcome("damaged" if damage else "converted", frames, damage)


def convert_all(
    jobs: Sequence[Job], options: argparse.Namespace, recorded: Mapping[str, Mapping[str, str]]
) -> tuple[Counter[str], set[Path]]:
    """Convert `options.workers` videos at a time; return the number of videos by status, and files that are no videos.

    Failures are logged and recorded, and do not stop the others. Raises OSError where the dataset cannot be written.
    """
    manifest = Manifest(options.dataset / MANIFEST, COLUMNS)
    stores: dict[str, list[Job]] = {}
    for job in jobs:
        stores.setdefault(job.folder.relative_to(options.dataset / "jpg").as_posix(), []).append(job)
    counts = Counter(dict.fromkeys(COUNTED, 0))
    passed_over: set[Path] = set()
    pending = Counter(job.video for job in jobs)  # number of stores still to be cut from each source

    def work(name: str) -> tuple[Job, Outcome, list[Path]]:
        return convert_any(stores[name], options, recorded.get(name, {}))

    with (
        closing(run_jobs(work, stores, workers=options.workers)) as results,
        tqdm(total=len(stores), unit="video", disable=None) as bar,
    ):
        for name, (job, outcome, others) in results:
            for path in others:
                if path not in passed_over and not must_be_video(path):  # so that it is not tried again
                    manifest.append(path.relative_to(options.videos).as_posix(), "passed_over", "no video", 0)
                passed_over.add(path)
            if outcome.status in MESSAGES:
                level, message = MESSAGES[outcome.status]
                logger.log(level, message, job.video, outcome.reason)
            counts.update({outcome.status} | ({"converted"} if outcome.status == "damaged" else set()))
            if outcome.status in RECORDED:
                manifest.append(name, outcome.status, outcome.reason, outcome.frames)
            if outcome.status in ("converted", "done_before"):
                pending[job.video] -= 1
                if options.delete_source and job.video.is_dir():
                    counts["sources_kept"] += 1
                elif options.delete_source and not pending[job.video]:
                    job.video.unlink(missing_ok=True)  # another conversion may have deleted it
                    counts["sources_deleted"] += 1
            bar.set_postfix({name: counts[name] for name in RECORDED}, refresh=False)
            bar.update()
    return counts, passed_over


def convert(options: argparse.Namespace) -> Counter[str]:
    """Find and convert the videos of this rank; return the number of videos by status."""
    recorded = Manifest(options.dataset / MANIFEST, COLUMNS).read()
    known = {name for name, row in recorded.items() if row["status"] == "passed_over"}
    sources, passed_over = list_sources(options.videos, known)
    num_missing = 0
    if options.trim:
        jobs, num_missing = find_trims(sources, options.videos, options.dataset, options.trim)
    else:
        jobs = find_jobs(sources, options.videos, options.dataset)
    jobs = shard_for_rank(jobs, options.videos, os.environ)
    remove_abandoned(options.dataset / "jpg")
    todo = [job for job in jobs if options.delete_source or not has_store(job.folder)]
    counts, others = convert_all(todo, options, recorded)
    counts["done_before"] += len({job.folder for job in jobs}) - len({job.folder for job in todo})
    counts["without_source"] = num_missing
    others |= {path for path in passed_over if options.trim or path.parent != options.videos}
    counts["passed_over"] = len(others)
    if others:
        suffixes = Counter(path.suffix.lower() or path.name for path in sorted(others))
        shown = sanitize(", ".join(f"{suffix} {count}" for suffix, count in suffixes.most_common(10)))
        logger.info("passed over %d files that are no videos (%s)", len(others), shown)
    return counts


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.convert", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    short_side = number(int, "a whole number of at least 16", lambda value: value >= 16)
    quality = number(int, "a whole number from 2 to 31", lambda value: 2 <= value <= 31)
    add("videos", type=Path, metavar="VIDEOS", help="folder with <class>/<id>.<any>")
    add("dataset", type=Path, metavar="DATASET", help="folder for jpg/<class>/<id>/frames.db")
    text = "maximum, in pixels; extracted frames keep their size (default: 294)"
    add("--short-side", type=short_side, default=294, help=text)
    add("--quality", type=quality, default=3, help="JPEG quality, 2 (best) to 31 (default: 3)")
    add("--workers", type=positive, default=cpus_per_rank(), help="videos at a time (default: one per CPU)")
    text = "label file: cut one store per row from <youtube_id>.<any>; may be given several times"
    add("--trim", type=Path, action="append", metavar="LABELS.csv", help=text)
    text = "keep the frames before the first damage, or refuse the video (default: keep)"
    add("--damaged", choices=("keep", "refuse"), default="keep", help=text)
    add("--time-limit", type=seconds, default=1800, help="seconds per video (default: 1800)")
    text = "delete each video after reading its stores back; damaged videos and extracted frames are kept"
    add("--delete-source", action="store_true", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    with parser.one_line_errors(), interrupted_by_signals():
        counts = convert(options)
    summary = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    print(summary or "converted 0")
    if counts["failed"] and UNDER_TORCHRUN in os.environ:
        logger.warning("%d failed; exit code 0, as torchrun would kill the other ranks", counts["failed"])
        return 0
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
