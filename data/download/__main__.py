"""python -m data.download LABELS.csv... VIDEOS [--workers 4] [--retry failed] [--cookies FILE] [--url PATTERN]

Download the seconds of each row of label files to VIDEOS/<class>/<youtube_id>_<start>_<end>.<ext>, where data.convert
finds them, or the whole video where a row has no times. Files that exist and videos that were gone or failed before are
skipped, so the same command resumes an interrupted download.

VIDEOS/downloaded.csv has the result of each video: the last row counts. The exit code is 1 where one has failed.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import importlib.util
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import coloredlogs
from tqdm import tqdm

from data.common.cli import OneLineParser, not_negative, number, positive, seconds
from data.common.job_pool import JobTimeoutError, interrupted_by_signals, run_jobs
from data.common.manifest import Manifest
from data.common.staging import remove_abandoned
from data.download.fetch import FetchError, GoneError, fetch
from data.label_files import Annotation, read_annotations

logger = logging.getLogger(__name__)

MANIFEST, COLUMNS = "downloaded.csv", ("video", "status", "reason")
STATUSES = ("done", "gone", "failed")
YOUTUBE = "https://www.youtube.com/watch?v={id}"
RETRIED = {"nothing": (), "failed": ("failed",), "gone": ("gone",), "all": ("failed", "gone")}
MAX_FAILURES_IN_A_ROW = 25  # by then the cause is not the videos


def download_all(rows: Sequence[Annotation], options: argparse.Namespace) -> Counter[str]:
    """Download the videos of rows that are not skipped, and record the results; return their number by status.

    Stops after MAX_FAILURES_IN_A_ROW.
    """
    manifest = Manifest(options.videos / MANIFEST, COLUMNS)
    todo, before = select(rows, options, manifest.read())
    counts = Counter(dict.fromkeys(STATUSES, 0))
    failures_in_a_row = 0
    gone: dict[str, str] = {}  # video ID -> reason

    def work(row: Annotation) -> tuple[str, str]:
        if row.source in gone:  # other seconds of it are not requested
            return "gone", gone[row.source]
        url = options.url.replace("{id}", quote(row.source, safe=""))
        try:
            fetch(url, options.videos / row.folder, row.seconds, options)
        except GoneError as error:
            gone[row.source] = str(error)
            return "gone", str(error)
        except (FetchError, JobTimeoutError) as error:
            return "failed", str(error)
        return "done", ""

    with (
        tqdm(total=len(todo), unit="video", disable=None) as bar,
        closing(run_jobs(work, todo, workers=options.workers)) as results,
    ):
        for row, (status, reason) in results:
            counts[status] += 1
            manifest.append(row.folder, status, reason)
            bar.set_postfix(counts, refresh=False)
            bar.update()
            if status != "failed":
                failures_in_a_row = 0
                continue
            logger.error("%s: %s", row.folder, reason)
            failures_in_a_row += 1
            if failures_in_a_row == MAX_FAILURES_IN_A_ROW:
                logger.error("stopped: %d failures in a row", MAX_FAILURES_IN_A_ROW)
                break
    return counts + before


def select(
    rows: Sequence[Annotation], options: argparse.Namespace, recorded: Mapping[str, Mapping[str, str]]
) -> tuple[list[Annotation], Counter[str]]:
    """Return the rows to download, and the number of the others by `<status>_before`."""
    files = (path for path in options.videos.glob("*/*") if not path.name.startswith("."))
    present = {path.relative_to(options.videos).with_suffix("").as_posix() for path in files}
    todo, before = [], Counter[str]()
    for row in rows:
        status = "done" if row.folder in present else recorded.get(row.folder, {}).get("status", "")
        if not status or status in RETRIED[options.retry]:
            todo.append(row)
        else:
            before[f"{status}_before"] += 1
    return todo, before


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.download", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    at_least_0 = number(float, "a number of seconds from 0 to 1000000", lambda value: 0 <= value <= 1e6)
    add("labels", type=Path, nargs="+", metavar="LABELS.csv", help="label files with the videos to download")
    add("videos", type=Path, metavar="VIDEOS", help="folder for <class>/<id>.<ext>")
    add("--workers", type=positive, default=4, help="videos at a time (default: 4)")
    text = "download videos again that failed, were gone, or both (default: nothing)"
    add("--retry", choices=RETRIED, default="nothing", help=text)
    add("--cookies", type=Path, metavar="FILE", help="cookies of a browser in the Netscape format")
    text = f"address of a video, with {{id}} in it (default: {YOUTUBE})"
    add("--url", default=YOUTUBE, metavar="PATTERN", help=text)
    add("--height", type=positive, default=480, help="maximum height in pixels (default: 480)")
    text = "seconds to sleep before each download, at random up to twice as long (default: 1)"
    add("--sleep-interval", type=at_least_0, default=1, help=text)
    add("--retries", type=not_negative, default=3, help="retries of a request (default: 3)")
    add("--timeout", type=seconds, default=30, help="timeout of a connection in seconds (default: 30)")
    add("--time-limit", type=seconds, default=900, help="seconds per video (default: 900)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    if "{id}" not in options.url:
        parser.error(f"--url {options.url}: must contain {{id}}")
    if importlib.util.find_spec("yt_dlp") is None:
        parser.error("needs yt-dlp: pip install yt-dlp")
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    with parser.one_line_errors(), interrupted_by_signals():
        rows = read_annotations(options.labels)
        remove_abandoned(options.videos)
        counts = download_all(rows, options)
    print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count))
    return 1 if counts["failed"] or counts["failed_before"] else 0


if __name__ == "__main__":
    sys.exit(main())
