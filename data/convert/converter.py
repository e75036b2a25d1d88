"""Convert one video file to a frame store, and check a frame store against its video."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from data.common.job_pool import child_process
from data.common.staging import staging_folder
from data.ffmpeg import (
    KEEP_TIMESTAMPS,
    MONOTONIC_PTS,
    ffmpeg_binary,
    ffmpeg_command,
    first_error_line,
    is_seekable,
    passthrough_fps_options,
    read_header,
    read_jpegs,
    trim_filter,
)
from data.frame_store import FrameStore, FrameStoreError, write_frame_store

# ffmpeg's exit codes where -xerror stopped it at damage: 1 before version 7, then AVERROR_INVALIDDATA
STOPPED_AT_DAMAGE = (1, 183)
FRAMES_PER_READ = 64  # to bound memory


class ConversionError(Exception):
    """A video that cannot be converted; the message names it and the reason."""


class Job(NamedTuple):
    """A video file, the folder of its frame store, and optionally the (start, end) in seconds to convert."""

    video: Path
    folder: Path
    seconds: tuple[float, float] | None = None


class Converted(NamedTuple):
    """The number of frames of a store, and ffmpeg's message where the video is damaged after them, else ""."""

    frames: int
    damage: str


def convert_video(
    job: Job, *, short_side: int, quality: int, keep_damaged: bool = True, timeout: float | None = None
) -> Converted:
    """Write the frame store of one video.

    Every frame of the video stream that ffmpeg selects, or of `job.seconds`, is stored exactly once, rotated as the
    metadata says, with a short side of at most `short_side`. With `keep_damaged` the frames before the first damage are
    stored. Raises ConversionError with ffmpeg's reason where no frame decodes or ffmpeg crashes, JobTimeoutError where
    it runs longer than `timeout` seconds, and FileExistsError where `job.folder` exists.
    """
    damage = ""
    try:
        command = ffmpeg_command(job.video, short_side, quality, job.seconds)
    except ValueError as error:
        raise ConversionError(f"{job.video}: {error}") from None
    with (
        tempfile.TemporaryFile() as errors,
        child_process(command, timeout=timeout, stdout=subprocess.PIPE, stderr=errors) as process,
    ):

        def frames() -> Iterator[bytes]:
            """Yield all frames; raise within the iteration, so that no part of a video is stored."""
            nonlocal damage
            assert process.stdout is not None
            count = 0
            for jpeg in read_jpegs(process.stdout):
                yield jpeg
                count += 1
            damage = _check_end(job, count, process.wait(), first_error_line(errors), timeout)
            if damage and not keep_damaged:
                raise ValueError(damage)

        try:
            num_frames = write_frame_store(job.folder, frames())
        except ValueError as error:
            raise ConversionError(f"{job.video}: {error}") from None
        return Converted(num_frames, damage)


def check_store(job: Job, *, short_side: int, quality: int, timeout: float | None = None) -> None:
    """Convert a video again and compare the number and size of frames; decode every frame of its store.

    Raises ConversionError where they differ or a frame does not decode.
    """
    with staging_folder(job.folder.parent) as staging:
        again = job._replace(folder=staging / job.folder.name)
        converted = convert_video(
            again, short_side=short_side, quality=quality, keep_damaged=False, timeout=timeout
        )
        read_back(job.folder, converted.frames)
        stored, expected = (FrameStore(folder).fetch([0]) for folder in (job.folder, again.folder))
    if (stored.height, stored.width) != (expected.height, expected.width):
        raise ConversionError(
            f"{job.folder}: holds frames of {stored.width}x{stored.height}, not {expected.width}x{expected.height}; "
            f"was it converted with another --short-side than {short_side}?"
        )


def read_back(folder: Path, frames: int) -> None:
    """Decode every frame of a store. Raises ConversionError where one fails or their number is not `frames`."""
    try:
        store = FrameStore(folder)
        if store.n_frames != frames:
            raise ConversionError(f"{folder}: holds {store.n_frames} frames, not {frames}")
        for start in range(0, frames, FRAMES_PER_READ):
            for _ in store.fetch(range(frames)[start : start + FRAMES_PER_READ]).decode_each(halved=False):
                pass
    except FrameStoreError as error:
        raise ConversionError(str(error)) from None


def _check_end(job: Job, frames: int, exit_code: int, message: str, timeout: float | None) -> str:
    """Return what is damaged after the last frame, "" if nothing is; raise ValueError where ffmpeg failed."""
    if exit_code < 0:
        raise ValueError(f"ffmpeg was killed by signal {-exit_code}")
    if frames == 0:
        if not read_header(job.video):
            raise ValueError("the file is empty")
        if not job.seconds:
            raise ValueError(message or "no frame could be decoded")
        reason = f", {message}" if message else ""
        raise ValueError("no frame could be decoded between {:g} and {:g} s".format(*job.seconds) + reason)
    if frames == 1 and _has_only_cover_art(job.video):
        raise ValueError("holds audio and cover art, no video")
    if exit_code == 0 and message and _recheck_from_start(job, frames, timeout):
        return ""
    if exit_code != 0 and (exit_code not in STOPPED_AT_DAMAGE or not message):
        raise ValueError(message or f"ffmpeg failed with exit code {exit_code}")
    return message


def _recheck_from_start(job: Job, frames: int, timeout: float | None) -> bool:
    """Return whether decoding from the start of the file gives as many frames without an error message.

    After seeking, frames before the requested seconds may refer to frames that were not decoded (an open GOP). ffmpeg
    reports those, although they are not stored.
    """
    if not job.seconds or not is_seekable(read_header(job.video)):
        return False
    filters = f"{trim_filter(b'', job.seconds)},{MONOTONIC_PTS}"
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file"]
    command += [*KEEP_TIMESTAMPS, "-threads", "1", "-i", f"file:{job.video}", "-an", "-vf", filters]
    command += [word for name, value in passthrough_fps_options().items() for word in (f"-{name}", value)]
    command += ["-f", "framecrc", "-"]
    exit_code, output, errors = _run(command, timeout)
    counted = sum(not line.startswith(b"#") for line in output.splitlines())
    return exit_code == 0 and not errors.strip() and counted == frames


def _has_only_cover_art(video: Path) -> bool:
    command = [ffmpeg_binary(), "-nostdin", "-hide_banner", "-protocol_whitelist", "file"]
    _, _, errors = _run([*command, "-i", f"file:{video}"], None)
    streams = [line for line in errors.splitlines() if re.search(rb"Stream #\S+ Video: ", line)]
    return all(b"(attached pic)" in line for line in streams)


def _run(command: Sequence[str], timeout: float | None) -> tuple[int, bytes, bytes]:
    """Return exit code, standard output and standard error of a command."""
    with child_process(command, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        output, errors = process.communicate()
        return process.returncode, output, errors
