"""Download one video, or a part of one, with yt-dlp."""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from data.common.atomic_io import flush_to_disk
from data.common.job_pool import child_process
from data.common.staging import staging_folder
from data.ffmpeg.binary import ffmpeg_binary

# Messages of yt-dlp and ffmpeg. A video is gone if one matches GONE and none TEMPORARY.
GONE = re.compile(
    r"HTTP Error (404|410)|returned 404|private video|video is (private|unavailable|no longer available)"
    r"|video unavailable|has been (removed|terminated|deleted)|video does not exist|account .*(terminated|closed)",
    re.IGNORECASE,
)
TEMPORARY = re.compile(
    r"HTTP Error (429|503)|try again later|rate.?limit|too many requests|not a bot"
    r"|your (country|location)|geo.?restrict",
    re.IGNORECASE,
)
# ffmpeg's messages where a connection broke, which it may report with exit code 0
CUT_OFF = re.compile(r"partial file|File ended prematurely|Error during demuxing|corrupt input packet")


class GoneError(Exception):
    """A video that the site no longer has or shows."""


class FetchError(Exception):
    """A video that could not be downloaded this time."""


def fetch(url: str, path: Path, seconds: tuple[float, float] | None, options: argparse.Namespace) -> None:
    """Download a video, or its `seconds` (start, end), to `path` with the extension of its format added.

    The file is written beside its path and renamed once it is complete. Raises GoneError, FetchError, and
    JobTimeoutError after `options.time_limit`.
    """
    with staging_folder(path.parent) as staging:
        command = [sys.executable, "-m", "yt_dlp", *_yt_dlp_args(seconds, options)]
        if options.cookies is not None:
            shutil.copyfile(options.cookies, staging / "cookies")  # yt-dlp writes to it
            command += ["--cookies", "cookies"]
        messages = _run([*command, "--", url], staging, options.time_limit)
        videos = list(staging.glob("video.*"))
        if len(videos) != 1:
            raise FetchError(f"yt-dlp wrote {len(videos)} files")
        if CUT_OFF.search(messages):
            raise FetchError(_first_line(messages))
        flush_to_disk(videos[0])
        videos[0].replace(path.with_name(path.name + videos[0].suffix))


def _yt_dlp_args(seconds: tuple[float, float] | None, options: argparse.Namespace) -> list[str]:
    """Return options of yt-dlp that select a video without audio where there is one, and only the wanted seconds."""
    args = ["--ignore-config", "--no-playlist", "--no-progress", "--no-warnings", "--color", "never"]
    args += ["--format", "bv*/b", "--format-sort", f"res:{options.height},vcodec:h264,ext"]
    args += ["--fixup", "never"]
    args += ["--retries", str(options.retries), "--extractor-retries", str(options.retries)]
    args += ["--sleep-interval", str(options.sleep_interval)]
    args += ["--max-sleep-interval", str(2 * options.sleep_interval)]
    args += ["--socket-timeout", str(options.timeout), "--ffmpeg-location", ffmpeg_binary()]
    if seconds is None:
        return [*args, "--output", "video.%(ext)s"]
    # yt-dlp has ffmpeg download parts; always as MP4, which can hide the frames between a key frame and the start
    args += ["--output", "video.mp4", "--download-sections", "*{:f}-{:f}".format(*seconds)]
    reconnect = f"-reconnect 1 -reconnect_delay_max {options.timeout:.0f}"
    timeout = f"-rw_timeout {options.timeout * 1e6:.0f}"
    args += ["--downloader-args", f"ffmpeg_i:-loglevel error -xerror {reconnect} {timeout}"]
    return [*args, "--downloader-args", "ffmpeg_o:-an -f mp4"]


def _run(command: list[str], folder: Path, time_limit: float) -> str:
    """Run yt-dlp in a folder; return its messages and those of ffmpeg."""
    with tempfile.TemporaryFile() as errors:
        options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": errors}
        with child_process(command, timeout=time_limit, **options) as process:
            process.wait()
        errors.seek(0)
        messages = errors.read().decode(errors="replace")
    if process.returncode != 0:
        is_gone = GONE.search(messages) and not TEMPORARY.search(messages)
        raise (GoneError if is_gone else FetchError)(
            _first_line(messages) or f"exit code {process.returncode}"
        )
    return messages


def _first_line(messages: str) -> str:
    """Return the first line without the ffmpeg component and without yt-dlp's request to report it."""
    line = messages.strip().partition("\n")[0].removeprefix("ERROR: ")
    return re.sub(r"^(\[[^]]* @ 0x[0-9a-f]+\] )+|; please report this issue on .*", "", line)
