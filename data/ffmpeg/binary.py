"""The ffmpeg binary, and what it can do: tried, as version numbers do not tell."""

import functools
import logging
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress

from data.common.cli import sanitize
from data.common.job_pool import JobTimeoutError, child_process

logger = logging.getLogger(__name__)

TRIAL_SECONDS = 20
# two black frames, as some encoders refuse smaller ones
TRIAL = "-nostdin -loglevel error -f rawvideo -pix_fmt bgr24 -s 320x240 -i file:/dev/zero -frames:v 2 -pix_fmt yuv420p"
TRIAL_JPEGS = (
    r"-vf scale=64:-1,format=yuv420p,select=gte(n\,0),trim=start=0,settb=1/1000,setpts=PTS,"
    r"metadata=mode=add:key=a:value=1,metadata=mode=print:file=pipe\\:1"
    " -color_range pc -strict unofficial -vcodec mjpeg -f mpjpeg -{} passthrough pipe:"
)
TRIAL_H264 = "-vcodec {} -f mp4 -movflags frag_keyframe+empty_moov pipe:"
FPS_OPTIONS = ("fps_mode", "vsync")  # renamed in ffmpeg 5.1
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


@functools.cache
def h264_encoder() -> str:
    """Return the name of an H.264 encoder of ffmpeg that works. Raises OSError where there is none."""
    for name in H264_ENCODERS:
        if not _failure(ffmpeg_binary(), TRIAL_H264.format(name), b"moof"):
            return name
    raise OSError(
        f"{ffmpeg_binary()} cannot write H.264 videos; install an ffmpeg with libx264,"
        " or take this one off the PATH, as that of the package imageio-ffmpeg has it"
    )


@functools.cache
def _find_ffmpeg() -> tuple[str, str]:
    """Return the path of ffmpeg and its name of the option fps_mode."""
    failures: list[str] = []
    for path in _installed():
        for option in FPS_OPTIONS:
            failure = _failure(path, TRIAL_JPEGS.format(option), b"pts_time")  # missing before version 4.3
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


def _failure(path: str, options: str, expected: bytes) -> str:
    """Run ffmpeg; return "" if its output has the expected bytes, else why not."""
    command = [path, *TRIAL.split(), *options.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with child_process(command, timeout=TRIAL_SECONDS, **pipes) as process:
            output, errors = process.communicate()
    except JobTimeoutError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    if process.returncode == 0 and expected in output:
        return ""
    return first_line(errors) or f"no {expected.decode()} in its output, exit code {process.returncode}"


def first_line(errors: bytes) -> str:
    """Return the first line of ffmpeg's standard error, without the name and address of the component."""
    line = errors.decode(errors="replace").strip().partition("\n")[0]
    return sanitize(re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", line))
