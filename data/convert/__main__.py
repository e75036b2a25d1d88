# PYTHON_ARGCOMPLETE_OK
"""python -m data.convert VIDEOS DATASET [--short-side 294] [--quality 3] [--workers N] [--trim LABELS.csv]
       [--half-level] [--damaged keep|refuse] [--time-limit 1800] [--delete-source]
   or: python -m data.convert --add-half-level DATASET [--workers N]

Convert VIDEOS/<class>/<id>.<any> to frame stores DATASET/jpg/<class>/<id>/. Any file that ffmpeg reads will do; others
are passed over. Frames that are extracted already, VIDEOS/<class>/<id>/img_00001.jpg and so on, are stored as they are.
Videos with a store are skipped, so the same command resumes an interrupted conversion; no store is ever half-written.

A short side of 294 pixels suits UCF101, HMDB51 and Diving48; HACS, Kinetics and Moments in Time are cropped from 384.
--half-level also stores each frame at half its lines, which shapes at most half the size of the crop read faster;
--add-half-level adds that to stores that exist, each replaced by a finished copy.

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

from data.common.cli import OneLineParser, number, positive, seconds
from data.common.cpus import cpus_per_rank
from data.common.job_pool import JobTimeoutError, interrupted_by_signals, run_jobs
from data.common.manifest import Manifest
from data.common.staging import remove_abandoned
from data.convert.converter import Job, convert_video, read_back
from data.convert.extracted_frames import store_frames
from data.convert.sources import find_jobs, find_trims, list_sources, shard_for_rank
from data.ffmpeg.side_files import choose_video
from data.frame_store import DATABASE, has_store
from data.store_writer import add_half_level

logger = logging.getLogger(__name__)

MANIFEST, COLUMNS = "converted.csv", ("video", "status", "reason", "frames")
RECORDED = ("converted", "damaged", "failed")  # in the manifest and on the progress bar
MESSAGES = {  # by status
    "failed": (logging.ERROR, "%s: %s"),
    "damaged": (logging.WARNING, "%s: converted up to the damage, %s"),
    "sources_kept": (logging.WARNING, "%s: not deleted, %s"),
}


class Outcome(NamedTuple):
    """The result of a video.

    `status`: converted, damaged (stored up to the damage), failed, done_before, sources_kept or passed_over (no video).
    """

    status: str
    frames: int = 0
    reason: str = ""


def convert_one(
    jobs: Sequence[Job], options: argparse.Namespace, recorded: Mapping[str, str]
) -> tuple[Job, Outcome]:
    """Convert the one of the files for a store that is its video; return its job, the first where there is none.

    `recorded` is the store's row in the manifest, empty without one. Where the source is to be deleted, read the store
    back: for one that existed before, the row has the number of frames, and whether the video was damaged.
    """
    job = jobs[0]
    outcome = Outcome("done_before", int(recorded.get("frames", 0)))
    try:
        video = choose_video([other.video for other in jobs])
        if video is None:
            return job, Outcome("passed_over")
        job = job._replace(video=video)
        if not has_store(job.folder):
            outcome = _convert(job, options) or outcome
        if options.delete_source and not video.is_dir():
            if outcome.status == "done_before" and recorded.get("status") != "converted":
                reason = f"its store is not listed as converted in {MANIFEST}"
                return job, Outcome("sources_kept", reason=reason)
            read_back(job.folder, outcome.frames)
    except (JobTimeoutError, ValueError) as error:
        return job, Outcome("failed", reason=str(error).removeprefix(f"{job.video}: "))
    return job, outcome


def _convert(job: Job, options: argparse.Namespace) -> Outcome | None:
    """Convert a video; return None where another conversion was faster."""
    try:
        if job.video.is_dir():
            return Outcome("converted", store_frames(job, options.half_level))
        frames, damage = convert_video(
            job,
            short_side=options.short_side,
            quality=options.quality,
            half_level=options.half_level,
            keep_damaged=options.damaged == "keep",
            timeout=options.time_limit,
        )
    except FileExistsError as error:
        if has_store(job.folder):
            return None
        raise ValueError(str(error)) from None
    return Outcome("damaged" if damage else "converted", frames, damage)


def convert_all(jobs: Sequence[Job], options: argparse.Namespace) -> tuple[Counter[str], set[Path]]:
    """Convert `options.workers` videos at a time; return the number of videos by status, and the files passed over.

    Failures are logged and recorded, and do not stop the others. Raises OSError where the dataset cannot be written.
    """
    manifest = Manifest(options.dataset / MANIFEST, COLUMNS)
    recorded = manifest.read()
    stores: dict[str, list[Job]] = {}
    for job in jobs:
        stores.setdefault(job.folder.relative_to(options.dataset / "jpg").as_posix(), []).append(job)
    counts = Counter(dict.fromkeys((*RECORDED, "sources_deleted", "sources_kept", "done_before"), 0))
    passed_over: set[Path] = set()
    pending = Counter(job.video for job in jobs)  # number of stores still to be cut from each source

    def work(name: str) -> tuple[Job, Outcome]:
        return convert_one(stores[name], options, recorded.get(name, {}))

    with (
        closing(run_jobs(work, stores, workers=options.workers)) as results,
        tqdm(total=len(stores), unit="video", disable=None) as bar,
    ):
        for name, (job, outcome) in results:
            tried = job if outcome.status != "passed_over" else None
            if outcome.status != "failed":
                passed_over.update(other.video for other in stores[name] if other != tried)
            if outcome.status in MESSAGES:
                level, message = MESSAGES[outcome.status]
                logger.log(level, message, job.video, outcome.reason)
            counts.update({outcome.status} | ({"converted"} if outcome.status == "damaged" else set()))
            if outcome.status in RECORDED:
                manifest.append(name, outcome.status, outcome.reason, outcome.frames)
            if outcome.status in ("converted", "done_before"):
                pending[job.video] -= 1
                if options.delete_source and not pending[job.video] and not job.video.is_dir():
                    job.video.unlink(missing_ok=True)  # another conversion may have deleted it
                    counts["sources_deleted"] += 1
            bar.set_postfix({name: counts[name] for name in RECORDED}, refresh=False)
            bar.update()
    return counts, passed_over


def convert(options: argparse.Namespace) -> Counter[str]:
    """Find and convert the videos of this rank; return the number of videos by status."""
    sources, others = list_sources(options.videos)
    num_missing = 0
    if options.trim:
        jobs, num_missing = find_trims(sources, options.videos, options.dataset, options.trim)
    else:
        jobs = find_jobs(sources, options.videos, options.dataset)
    jobs = shard_for_rank(jobs, options.videos, os.environ)
    remove_abandoned(options.dataset / "jpg")
    todo = [
        job for job in jobs if not has_store(job.folder) or (options.delete_source and not job.video.is_dir())
    ]
    counts, passed_over = convert_all(todo, options)
    counts["done_before"] += len({job.folder for job in jobs}) - len({job.folder for job in todo})
    passed_over.update(others)
    counts["passed_over"] = len(passed_over)
    counts["without_source"] = num_missing
    if passed_over:
        suffixes = Counter(path.suffix.lower() or path.name for path in sorted(passed_over))
        shown = ", ".join(f"{suffix} {count}" for suffix, count in suffixes.most_common(10))
        logger.info("passed over files beside the videos: %s", shown)
    return counts


def add_half_levels(options: argparse.Namespace) -> Counter[str]:
    """Add the half level to the stores of this rank; return their number by status. Failures do not stop the others."""
    root = options.dataset / "jpg"
    jobs = [Job(path.parent, path.parent) for path in sorted(root.glob(f"*/*/{DATABASE}"))]
    if not jobs:
        raise ValueError(f"{options.dataset}: has no stores jpg/<class>/<id>/{DATABASE}")
    jobs = shard_for_rank(jobs, root, os.environ)
    remove_abandoned(root)

    def work(job: Job) -> str:
        try:
            return add_half_level(job.folder)
        except (ValueError, TypeError, OSError) as error:
            logger.error("%s: half level not added, %s", job.folder, error)
            return "failed"

    with closing(run_jobs(work, jobs, workers=options.workers)) as results:
        return Counter(status for _, status in tqdm(results, total=len(jobs), unit="store", disable=None))


def make_parser(adding: bool = False) -> OneLineParser:
    """Return the parser of the command line; `adding`: of that with --add-half-level."""
    parser = OneLineParser(prog="python -m data.convert", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    if not adding:
        add("videos", type=Path, metavar="VIDEOS", help="folder with <class>/<id>.<any>")
    add("dataset", type=Path, metavar="DATASET", help="folder for jpg/<class>/<id>/frames.db")
    add("--workers", type=positive, default=cpus_per_rank(), help="videos at a time (default: one per CPU)")
    text = "add the half level to the stores of DATASET; without VIDEOS, other options but --workers"
    add("--add-half-level", action="store_true", help=text)
    if adding:
        return parser
    short_side = number(int, "a whole number of at least 16", lambda value: value >= 16)
    quality = number(int, "a whole number from 2 to 31", lambda value: 2 <= value <= 31)
    add("--short-side", type=short_side, default=294, help="maximum of videos, in pixels (default: 294)")
    add("--quality", type=quality, default=3, help="JPEG quality, 2 (best) to 31 (default: 3)")
    add(
        "--half-level",
        action="store_true",
        help="also store frames at half their height and width, for small shapes",
    )
    text = "label file: cut one store per row from <youtube_id>.<any>; may be given several times"
    add("--trim", type=Path, action="append", metavar="LABELS.csv", help=text)
    text = "keep the frames before the first damage, or refuse the video (default: keep)"
    add("--damaged", choices=("keep", "refuse"), default="keep", help=text)
    add("--time-limit", type=seconds, default=1800, help="seconds per video (default: 1800)")
    text = "delete each video after reading its stores back; damaged videos and extracted frames are kept"
    add("--delete-source", action="store_true", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    parser = make_parser(adding="--add-half-level" in words)
    options = parser.parse_args(words)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    with parser.one_line_errors(), interrupted_by_signals():
        counts = (add_half_levels if options.add_half_level else convert)(options)
    summary = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count)
    print(summary or "converted 0")
    if counts["failed"] and "TORCHELASTIC_RUN_ID" in os.environ:  # set by torchrun
        logger.warning("%d failed; exit code 0, as torchrun would kill the other ranks", counts["failed"])
        return 0
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
