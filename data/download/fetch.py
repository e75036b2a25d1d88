"""One video, or seconds of one, from the network by yt-dlp; and when the next may begin."""

import errno
import math
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from glob import escape
from pathlib import Path
from typing import NamedTuple

from data.common.atomic_io import flush_to_disk
from data.common.job_pool import LONGEST_WAIT
from data.common.staging import staging_folder
from data.ffmpeg import ffmpeg_binary

# What yt-dlp and ffmpeg pass on of the remote side's words. What is gone is so where neither of the others fits.
TOO_MUCH = re.compile(
    r"HTTP Error (429|503)|returned 5XX|try again later|rate.?limit|too many requests|not a bot",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(r"your (country|location)|geo.?restrict", re.IGNORECASE)
GONE = re.compile(
    r"HTTP Error (404|410)|returned 404|private video|video is (private|unavailable|no longer available)"
    r"|video unavailable|has been (removed|terminated|deleted)|video does not exist|account .*(terminated|closed)",
    re.IGNORECASE,
)
# What ffmpeg says where a connection broke and stayed so.
CUT_OFF = re.compile(r"partial file|File ended prematurely|Error during demuxing|corrupt input packet")
# What it says where a part cannot be copied into an mp4 file as it is.
NOT_IN_MP4 = re.compile(
    r"supported in|Could not find tag for codec|muxing is|Non-monotonic DTS|submitting a packet"
)
TOLERANCE = 0.5  # seconds
LONGEST_PAUSE = 600.0


class GoneError(Exception):
    """The remote side says that it does not have a video any more, or does not show it."""


class FetchError(Exception):
    """A video could not be downloaded, this time."""


class Download(NamedTuple):
    """What shall become `<folder>/<name>.<ext>`: the video at `url`, or (start, end) in seconds of it.

    `folder` is absolute.
    """

    url: str
    folder: Path
    name: str
    seconds: tuple[float, float] | None


class DownloadConfig(NamedTuple):
    """How to ask: lines of the video wanted; `retries` after the first try, the first of them `back_off` seconds later
    and each twice as long as before; seconds without a byte before a connection counts as dead; a file of cookies.
    """

    height: int
    retries: int
    back_off: float
    timeout: float
    cookies: Path | None


class Fetched(NamedTuple):
    """`status`: done, gone, failed, done_before, or at_work_elsewhere. `too_much`: the remote side said so."""

    status: str
    reason: str = ""
    too_much: bool = False


def load(url: str) -> None:
    """Import yt-dlp, which is optional, and its part for such URLs, so that processes to come need not.

    It takes a third of a second. ImportError where yt-dlp is not installed.
    """
    import yt_dlp  # noqa: PLC0415

    extractors = yt_dlp.extractor.gen_extractor_classes()
    suitable = next(extractor for extractor in extractors if extractor.suitable(url))
    yt_dlp.YoutubeDL({"logger": _Silence()}).get_info_extractor(suitable.ie_key())


def fetch(download: Download, manners: DownloadConfig) -> Fetched:
    """Download a video into a folder beside its place, check that it decodes, and rename it; for a process of its own.

    Changes the working folder and standard error. Raises OSError where the disk is full.
    """
    with staging_folder(download.folder, download.name) as staging:
        if staging is None:
            return Fetched("at_work_elsewhere")
        if any(path.stem == download.name for path in download.folder.glob(f"{escape(download.name)}.*")):
            return Fetched("done_before")
        os.chdir(staging)
        try:
            video = _try_repeatedly(download, manners)
        except GoneError as error:
            return Fetched("gone", str(error))
        except FetchError as error:
            return Fetched("failed", str(error), bool(TOO_MUCH.search(str(error))))
        flush_to_disk(video)
        video.replace(download.folder / f"{download.name}{video.suffix}")
        return Fetched("done")


def _try_repeatedly(download: Download, manners: DownloadConfig) -> Path:
    """Bounded; ends in the last error."""
    generator = random.Random()  # of its own: processes would inherit one state of the module's
    for retry in range(manners.retries + 1):
        try:
            return _try(download, manners)
        except FetchError:
            if retry == manners.retries:
                raise
        doubled = manners.back_off * 2 ** min(
            retry, 30
        )  # which is above the longest wait already, and a float still
        time.sleep(min(doubled * generator.uniform(0.5, 1.5), LONGEST_WAIT))
    raise AssertionError("the last try returns or raises")


def _try(download: Download, manners: DownloadConfig) -> Path:
    try:
        _ask(download, manners, copied=True)
    except FetchError as error:
        if download.seconds is None or not NOT_IN_MP4.search(str(error)):
            raise
        _ask(download, manners, copied=False)
    videos = list(Path().glob("video*"))
    if len(videos) != 1:
        raise FetchError(f"{len(videos)} files came of it")
    _check(videos[0], download.seconds, Path("errors").read_text("utf-8", "replace"))
    return videos[0]


def _ask(download: Download, manners: DownloadConfig, *, copied: bool) -> None:
    """Download to `video.<ext>` in the working folder; what ffmpeg says goes to `errors`."""
    import yt_dlp  # noqa: PLC0415  optional
    from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor  # noqa: PLC0415

    FFmpegPostProcessor._ffmpeg_location.set(ffmpeg_binary())  # as yt-dlp's own command does
    for leftover in Path().glob("video*"):
        leftover.unlink()
    if manners.cookies is not None:
        shutil.copyfile(manners.cookies, "cookies")  # yt-dlp writes to it
    options = _options(download, manners, copied)
    with _standard_error_in(Path("errors")), yt_dlp.YoutubeDL(options) as downloader:
        try:
            downloader.extract_info(download.url)
        except Exception as error:  # its extractors raise all kinds; each concerns this video
            said = str(error) or type(error).__name__
            raise judged(Path("errors").read_text("utf-8", "replace"), said) from None


def _options(download: Download, manners: DownloadConfig, copied: bool) -> dict[str, object]:
    """yt-dlp's: one file without sound where there is a choice, at once, silently, only the seconds wanted.

    Those are `copied` into an mp4 file, the one format that can say which of the frames since the last key frame are
    not to be shown; or encoded once more.
    """
    from yt_dlp.utils import download_range_func  # noqa: PLC0415  optional

    options = {
        "outtmpl": "video.%(ext)s",
        "format": "bv*/b",
        "format_sort": [f"res:{manners.height}", "vcodec:h264", "ext"],
        "noplaylist": True,
        "fixup": "never",
        "cookiefile": manners.cookies and "cookies",
        "retries": manners.retries,
        "extractor_retries": 0,
        "socket_timeout": manners.timeout,
        "logger": _Silence(),
        "noprogress": True,
        "color": "never",
    }
    if download.seconds is None:
        return options
    # Without these ffmpeg calls a connection that breaks or stalls the end of the video, and its part a success.
    robust = ["-loglevel", "error", "-xerror", "-rw_timeout", f"{manners.timeout * 1e6:.0f}"]
    robust += ["-reconnect", "1", "-reconnect_delay_max", str(math.ceil(manners.timeout))]
    return options | {
        "download_ranges": download_range_func(None, [download.seconds]),
        "external_downloader_args": {"ffmpeg_i": robust, "ffmpeg_o": ["-an", "-crf", "18", "-f", "mp4"]},
        "force_keyframes_at_cuts": not copied,
        "outtmpl": "video.mp4",
    }


class _Silence:
    """yt-dlp's messages; what matters of them is in its exceptions."""

    def debug(self, _: str) -> None: ...

    def warning(self, _: str) -> None: ...

    def error(self, _: str) -> None: ...


def judged(ffmpeg_says: str, yt_dlp_says: str) -> Exception:
    """What to raise for a failure."""
    text = ffmpeg_says.strip() or yt_dlp_says
    reason = _first_line(text)
    if "No space left on device" in text:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.getcwd())
    if GONE.search(text) and not TOO_MUCH.search(text) and not ELSEWHERE.search(text):
        return GoneError(reason)
    return FetchError(reason)


def _check(video: Path, seconds: tuple[float, float] | None, ffmpeg_says: str) -> None:
    """FetchError where a file has no pictures, as where the wanted seconds lie behind the end, or lacks its end.

    ffmpeg may end with status 0 where a connection broke for good between two frames. It says so, but it also says so
    where it went on with another connection, and then the seconds are all there.
    """
    if CUT_OFF.search(ffmpeg_says):
        raise FetchError(_first_line(ffmpeg_says))
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file"]
    command += ["-i", f"file:{video}", "-map", "0:v:0", "-f", "framecrc", "-"]
    text = subprocess.run(command, capture_output=True, check=False).stdout.decode()
    frames = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    if not frames:
        raise FetchError("has no pictures in the seconds wanted" if seconds else "has no pictures")
    if seconds and ffmpeg_says:
        unit = Fraction(re.search(r"^#tb 0: (\S+)", text, re.MULTILINE)[1])
        arrived = float(max(int(pts) + int(duration) for _, _, pts, duration, *_ in frames) * unit)
        if arrived < seconds[1] - seconds[0] - TOLERANCE:
            raise FetchError(f"broke off after {arrived:.1f} s, {_first_line(ffmpeg_says)}")


def _first_line(text: str) -> str:
    """Without the part of ffmpeg that says it, and yt-dlp's advice to report it."""
    line = text.strip().splitlines()[0].removeprefix("ERROR: ")
    return re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\] )+|; please report this issue on .*", "", line)


@contextmanager
def _standard_error_in(path: Path) -> Iterator[None]:
    """Within, what this process and those that it starts say on standard error goes to a file."""
    before = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


class Pace:
    """When the next download may begin: every `pause` seconds, give or take half of it, and twice as long after each
    time the remote side said that it was too much; after each that went well half as long, down to `pause`.
    """

    def __init__(self, pause: float) -> None:
        self.pause = self.shortest = pause
        self._next = 0.0

    def delay(self) -> float:
        """Seconds until the next download may begin; with 0 it does."""
        now = time.monotonic()
        if now < self._next:
            return self._next - now
        self._next = now + self.pause * random.uniform(0.5, 1.5)
        return 0.0

    def learn(self, fetched: Fetched) -> None:
        if fetched.too_much:
            self.pause = min(2 * max(self.pause, 1), LONGEST_PAUSE)
            self._next = max(self._next, time.monotonic() + self.pause)
        elif fetched.status == "done":
            self.pause = max(self.pause / 2, self.shortest)
