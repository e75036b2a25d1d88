"""python -m data.download LABELS.csv... VIDEOS [--workers 4] [--retry failed] [--cookies FILE] [--url PATTERN]

Download the seconds of each row of label files to VIDEOS/<class>/<youtube_id>_<start>_<end>.<ext>, where data.convert
finds them, or the whole video where a row has no times. What is there, gone, or failed before is left out, so a
download that was stopped goes on where it was, and two at once share the work.

VIDEOS/downloaded.csv says what became of each: the last row counts. Pauses between downloads vary, and double each time
the remote side says that it is too much. Needs yt-dlp.
"""

import argparse
import functools
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import coloredlogs
from tqdm import tqdm

from data.common.cli import OneLineParser
from data.common.job_pool import (
    LONGEST_WAIT,
    Ended,
    JobCrashedError,
    interrupted_by_signals,
    run_in_subprocesses,
)
from data.common.manifest import Manifest
from data.common.staging import remove_abandoned
from data.download.fetch import Download, DownloadConfig, Fetched, Pace, fetch, load
from data.label_files import Segment, read_segments

logger = logging.getLogger(__name__)

LEDGER, COLUMNS = "downloaded.csv", ("video", "status", "reason")
WRITTEN = ("done", "gone", "failed")  # in the ledger
YOUTUBE = "https://www.youtube.com/watch?v={id}"
RETRIED = {"nothing": (), "failed": ("failed",), "gone": ("gone",), "all": ("failed", "gone")}
FAILURES_IN_A_ROW = 25  # are not the videos' fault


class TooManyFailuresError(Exception):
    """Nothing arrives any more."""


def find_downloads(segments: Sequence[Segment], videos: Path, url: str) -> list[Download]:
    """What to fetch for the rows of label files; `{id}` in `url` stands for the video's."""
    downloads = []
    for segment in segments:
        path = videos.absolute() / segment.label / segment.video_id
        address = url.replace("{id}", quote(segment.source, safe=""))
        downloads.append(Download(address, path.parent, path.name, segment.seconds))
    return downloads


def sort_out(
    downloads: Sequence[Download], videos: Path, retry: Sequence[str]
) -> tuple[list[Download], Counter[str]]:
    """What is to be fetched, and counts of what is not, as it is there, or was done, gone or failed before."""
    videos, known = videos.absolute(), Manifest(videos / LEDGER, COLUMNS).read()
    files = (path for path in videos.glob("*/*") if not path.name.startswith("."))
    present = {path.with_suffix("") for path in files}
    todo, counts = [], Counter()
    for download in downloads:
        path = download.folder / download.name
        row = known.get(path.relative_to(videos).as_posix())
        status = "done" if path in present else row["status"] if row else ""
        if not status or status in retry:
            todo.append(download)
        else:
            counts[f"{status}_before"] += 1
    return todo, counts


class Progress:
    """What became of downloads: counted, shown on a bar, and written into the ledger."""

    def __init__(self, videos: Path, bar: tqdm) -> None:
        self.videos = videos.absolute()
        self.ledger = Manifest(videos / LEDGER, COLUMNS)
        self.bar = bar
        self.counts = Counter(dict.fromkeys(WRITTEN, 0))
        self.gone: dict[str, str] = {}
        self.failures_in_a_row = 0

    def settle(self, download: Download, fetched: Fetched) -> None:
        """Raises TooManyFailuresError where nothing but failures came for a while."""
        self.counts[fetched.status] += 1
        if fetched.status in WRITTEN:
            name = (download.folder / download.name).relative_to(self.videos).as_posix()
            self.ledger.add(name, fetched.status, fetched.reason)
        if fetched.status == "gone":
            self.gone[download.url] = fetched.reason
        self.bar.set_postfix({name: self.counts[name] for name in WRITTEN}, refresh=False)
        self.bar.update()
        self.failures_in_a_row = self.failures_in_a_row + 1 if fetched.status == "failed" else 0
        if self.failures_in_a_row == FAILURES_IN_A_ROW:
            raise TooManyFailuresError(
                f"{FAILURES_IN_A_ROW} failed in a row, the last with: {fetched.reason}; "
                "--retry failed tries them again"
            )

    def unless_gone(self, downloads: Sequence[Download]) -> Iterator[Download]:
        """Other seconds of a video that is gone are not asked for."""
        for download in downloads:
            if download.url in self.gone:
                self.settle(download, Fetched("gone", self.gone[download.url]))
            else:
                yield download


def download_all(
    downloads: Sequence[Download],
    manners: DownloadConfig,
    *,
    videos: Path,
    workers: int,
    pause: float,
    time_limit: float,
) -> Counter[str]:
    """Fetch several videos at a time; counts `done`, `gone`, `failed` and others. Each is a row of the ledger.

    An interrupt ends what is in work, and is raised again; TooManyFailuresError ends it likewise.
    """
    pace = Pace(pause)
    work = functools.partial(fetch, manners=manners)
    with tqdm(total=len(downloads), unit="video", disable=None) as bar:
        progress = Progress(videos, bar)
        jobs = progress.unless_gone(downloads)
        endings = run_in_subprocesses(work, jobs, workers=workers, time_limit=time_limit, delay=pace.delay)
        with closing(endings):
            for ended in endings:
                fetched = _judge(ended)
                pace.learn(fetched)
                progress.settle(ended.job, fetched)
    return progress.counts


def _judge(ended: Ended[Download, Fetched]) -> Fetched:
    """What became of a download, logged where it failed; raises what concerns more than this one."""
    if isinstance(ended.error, JobCrashedError):
        fetched = Fetched("failed", str(ended.error))
    elif ended.error is not None:
        raise ended.error
    else:
        fetched = ended.result
    if fetched.status == "failed":
        logger.error("%s: %s", ended.job.name, fetched.reason)
    return fetched


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.download", description=__doc__.split("\n\n")[1])
    parser.add_argument(
        "labels", type=Path, nargs="+", metavar="LABELS.csv", help="label files: what to download"
    )
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder that gets <class>/<id>.<ext>")
    parser.add_argument("--workers", type=int, default=4, help="videos at a time (default: 4)")
    parser.add_argument(
        "--retry",
        choices=RETRIED,
        default="nothing",
        help="try those again that failed, were gone, or both (all), before (default: nothing)",
    )
    parser.add_argument(
        "--cookies", type=Path, metavar="FILE", help="cookies of a browser, in Netscape's format"
    )
    parser.add_argument(
        "--url",
        default=YOUTUBE,
        metavar="PATTERN",
        help=f"where videos are, with {{id}} in it (default: {YOUTUBE})",
    )
    parser.add_argument(
        "--height",
        type=int,
        default=480,
        help="lines of a video, the most that is there up to this (default: 480)",
    )
    parser.add_argument(
        "--pause",
        type=float,
        default=1,
        help="seconds from one start to the next, give or take half (default: 1)",
    )
    parser.add_argument("--retries", type=int, default=3, help="of a video that fails, at once (default: 3)")
    parser.add_argument(
        "--back-off",
        type=float,
        default=5,
        help="seconds before the first of them; then twice as long (default: 5)",
    )
    parser.add_argument(
        "--timeout", type=float, default=30, help="seconds that a connection may be silent (default: 30)"
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=900,
        help="seconds that a video may take, retries and all (default: 900)",
    )
    return parser


def check(parser: OneLineParser, arguments: argparse.Namespace) -> None:
    """Ends with an error where arguments make no sense."""
    for name, least in (("workers", 1), ("height", 1), ("pause", 0), ("retries", 0), ("back_off", 0)):
        value = getattr(arguments, name)
        if not value >= least:
            parser.error(f"--{name.replace('_', '-')} {value:g}: must be at least {least}")
    for name in ("timeout", "time_limit"):
        value = getattr(arguments, name)
        if not value > 0:
            parser.error(f"--{name.replace('_', '-')} {value:g}: must be above 0")
    for name in ("pause", "back_off", "timeout", "time_limit"):
        value = getattr(arguments, name)
        if value > LONGEST_WAIT:
            parser.error(f"--{name.replace('_', '-')} {value:g}: must be at most {LONGEST_WAIT:g} seconds")
    if "{id}" not in arguments.url:
        parser.error(f"--url {arguments.url}: must have {{id}} in it, where the video's goes")
    if arguments.cookies is not None and not arguments.cookies.is_file():
        parser.error(f"--cookies {arguments.cookies}: there is no such file")


def download(arguments: argparse.Namespace) -> Counter[str]:
    """All that the command does; counts what became of the videos."""
    videos = arguments.videos
    downloads = find_downloads(read_segments(arguments.labels), videos, arguments.url)
    todo, before = sort_out(downloads, videos, RETRIED[arguments.retry])
    remove_abandoned(videos)
    manners = DownloadConfig(
        height=arguments.height,
        retries=arguments.retries,
        back_off=arguments.back_off,
        timeout=arguments.timeout,
        cookies=arguments.cookies and arguments.cookies.absolute(),
    )
    try:
        counts = download_all(
            todo,
            manners,
            videos=videos,
            workers=arguments.workers,
            pause=arguments.pause,
            time_limit=arguments.time_limit,
        )
    finally:
        remove_abandoned(videos)  # of processes that were killed
    return counts + before


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    check(parser, arguments)
    try:
        load(arguments.url.replace("{id}", "x" * 11))
    except ImportError:
        parser.error("needs yt-dlp: pip install yt-dlp")
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    try:
        with interrupted_by_signals():
            counts = download(arguments)
    except KeyboardInterrupt:
        logger.error("stopped; the same command goes on from here")
        return 130
    except TooManyFailuresError as error:
        logger.error("stopped: %s", error)
        return 1
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count))
    return 1 if counts["failed"] or counts["failed_before"] else 0


if __name__ == "__main__":
    sys.exit(main())
