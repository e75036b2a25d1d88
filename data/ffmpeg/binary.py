"""The ffmpeg binary, and what it can do: tried, as version numbers do not tell."""

import functools
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from data.common.cli import sanitize

logger = logging.getLogger(__name__)

# encodes two black frames, not smaller as some encoders refuse that, and prints their times
TRIAL = (
    "-nostdin -loglevel error -f rawvideo -pix_fmt yuv420p -s 320x240 -i file:/dev/zero -frames:v 2"
    r" -vf metadata=mode=add:key=any:value=1,metadata=mode=print:file=pipe\\:1:direct=1 {} -strict unofficial -f null -"
)
H264_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox", "h264_nvenc", "h264_qsv", "h264_amf")

_trying = threading.Lock()  # threads that convert videos wait for one trial


def ffmpeg_binary() -> str:
    """Return the path of an ffmpeg that works: the one on the PATH, else that of the package imageio-ffmpeg.

    Raises OSError where neither works.
    """
    with _trying:
        return _find_ffmpeg()[0]


def passthrough_fps_options() -> dict[str, str]:
    """Return the output options that keep every frame and its timestamp.

    By default ffmpeg repeats and drops frames for a constant rate.
    """
    with _trying:
        return {_find_ffmpeg()[1]: "passthrough", "enc_time_base": "1:1000000"}


def run_ffmpeg(path: Path, *options: str) -> "subprocess.CompletedProcess[bytes]":
    """Run ffmpeg on a file, without reading the terminal or network addresses; return what it prints."""
    command = [ffmpeg_binary(), "-nostdin", "-protocol_whitelist", "file", "-i", f"file:{path}", *options]
    return subprocess.run(command, capture_output=True, check=False)


@functools.cache
def h264_encoder() -> str:
    """Return the name of an H.264 encoder of ffmpeg that works. Raises OSError where there is none."""
    for name in H264_ENCODERS:
        if not _failure(ffmpeg_binary(), f"-c:v {name}"):
            return name
    raise OSError(f"{ffmpeg_binary()} cannot write H.264 videos; install an ffmpeg with libx264")


@functools.cache
def _find_ffmpeg() -> tuple[str, str]:
    """Return the path of ffmpeg and its name of the option fps_mode."""
    failures: list[str] = []
    for path in _installed():
        for option in ("fps_mode", "vsync"):  # renamed in ffmpeg 5.1
            failure = _failure(path, f"-c:v mjpeg -{option} passthrough")
            if not failure:
                if failures:
                    logger.warning("%s; using %s", failures[0], path)
                return path, option
            if option not in failure:
                break
        failures.append(f"{path} does not work: {failure}")
    reasons = "; ".join(failures) or "no ffmpeg found"
    raise OSError(f"{reasons}; install ffmpeg, or reinstall the package imageio-ffmpeg, which has one")


def _installed() -> Iterator[str]:
    path = shutil.which("ffmpeg")
    if path:
        yield path
    with suppress(ImportError, RuntimeError):  # the package is not installed, or has none for this platform
        from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415  only needed where the other does not work

        yield get_ffmpeg_exe()


def _failure(path: str, options: str) -> str:
    """Return why ffmpeg does not encode the trial's frames with these options, "" if it does."""
    command = [path, *TRIAL.format(options).split()]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        return error.strerror or str(error)
    if done.returncode == 0 and b"pts_time" in done.stdout and not done.stderr:  # no times before version 4.3
        return ""
    line = done.stderr.decode(errors="replace").strip().partition("\n")[0]
    return sanitize(line) or f"no pts_time in its output, exit code {done.returncode}"
