"""python -m data.download LABELS.csv... VIDEOS [--workers 4] [--retry failed] [--cookies FILE] [--url PATTERN]

Download the seconds of each row of label files to VIDEOS/<class>/<youtube_id>_<start>_<end>.<ext>, where data.convert
finds them, or the whole video where a row has no times. Files that exist and videos that were gone or failed before are
skipped, so the same command resumes an interrupted download.

VIDEOS/downloaded.csv has the result of each video: the last row counts. The exit code is 1 where one has failed.
"""

import argparse
import importlib.util
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
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


class Downloader:
    """Downloads rows of label files; counts, records and logs the results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.manifest = Manifest(options.videos / MANIFEST, COLUMNS)
        self.counts = Counter(dict.fromkeys(STATUSES, 0))
        self.gone: dict[str, str] = {}  # video ID -> reason
        self.failures_in_a_row = 0

    def run(self, rows: Sequence[Annotation]) -> None:
        """Download the videos of rows that are not skipped; stop after MAX_FAILURES_IN_A_ROW."""
        todo = self._not_done(rows)
        with (
            tqdm(total=len(todo), unit="video", disable=None) as bar,
            closing(run_jobs(self._fetch, self._not_gone(todo), workers=self.options.workers)) as results,
        ):
            for row, future in results:
                self._record(row, *_outcome(future))
                bar.set_postfix({name: self.counts[name] for name in STATUSES}, refresh=False)
                bar.update(sum(self.counts[name] for name in STATUSES) - bar.n)
                if self.failures_in_a_row == MAX_FAILURES_IN_A_ROW:
                    logger.error("stopped: %d failures in a row", MAX_FAILURES_IN_A_ROW)
                    break

    def _fetch(self, row: Annotation) -> None:
        url = self.options.url.replace("{id}", quote(row.source, safe=""))
        fetch(url, self.options.videos / row.folder, row.seconds, self.options)

    def _not_done(self, rows: Sequence[Annotation]) -> list[Annotation]:
        """Return the rows to download, and count the others as `<status>_before`."""
        videos, recorded = self.options.videos, self.manifest.read()
        files = (path for path in videos.glob("*/*") if not path.name.startswith("."))
        present = {path.relative_to(videos).with_suffix("").as_posix() for path in files}
        todo = []
        for row in rows:
            status = "done" if row.folder in present else recorded.get(row.folder, {}).get("status", "")
            if not status or status in RETRIED[self.options.retry]:
                todo.append(row)
            else:
                self.counts[f"{status}_before"] += 1
        return todo

    def _not_gone(self, rows: Sequence[Annotation]) -> Iterator[Annotation]:
        """Yield rows, but record other seconds of a video that is gone without requesting them."""
        for row in rows:
            if row.source in self.gone:
                self._record(row, "gone", self.gone[row.source])
            else:
                yield row

    def _record(self, row: Annotation, status: str, reason: str) -> None:
        self.counts[status] += 1
        self.manifest.append(row.folder, status, reason)
        if status == "gone":
            self.gone[row.source] = reason
        elif status == "failed":
            logger.error("%s: %s", row.folder, reason)
        self.failures_in_a_row = self.failures_in_a_row + 1 if status == "failed" else 0


def _outcome(future: Future[None]) -> tuple[str, str]:
    """Return the status and reason of a download."""
    try:
        future.result()
    except GoneError as error:
        return "gone", str(error)
    except (FetchError, JobTimeoutError) as error:
        return "failed", str(error)
    return "done", ""


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
    if options.cookies is not None and not options.cookies.is_file():
        parser.error(f"--cookies {options.cookies}: no such file")
    if importlib.util.find_spec("yt_dlp") is None:
        parser.error("needs yt-dlp: pip install yt-dlp")
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    try:
        with interrupted_by_signals():
            downloader = Downloader(options)
            rows = read_annotations(options.labels)
            remove_abandoned(options.videos)
            downloader.run(rows)
    except KeyboardInterrupt:
        logger.error("interrupted; the same command resumes")
        return 130
    except (OSError, ValueError) as error:
        parser.error(str(error))
    counts = downloader.counts
    print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count))
    return 1 if counts["failed"] or counts["failed_before"] else 0


if __name__ == "__main__":
    sys.exit(main())
