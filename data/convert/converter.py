"""Convert one video file to a frame store, and read a frame store back."""

import re
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from data.ffmpeg.decoding import JpegStream, describe_damage, ffmpeg_command, probe, read_header
from data.ffmpeg.video_files import StoredVideo
from data.store_writer import write_frame_store

# ffmpeg's exit codes where -xerror stopped it at damage: 1 before version 7, then AVERROR_INVALIDDATA
STOPPED_AT_DAMAGE = (1, 183)


class _SeekError(Exception):
    """Decoding that did not begin at the start of the file, and failed."""


class Job(NamedTuple):
    """A video file, the folder of its frame store, and optionally the (start, end) in seconds to convert."""

    video: Path
    folder: Path
    seconds: tuple[float, float] | None = None


def convert_video(
    job: Job,
    *,
    short_side: int,
    quality: int,
    half_level: bool = False,
    keep_damaged: bool = True,
    timeout: float | None = None,
) -> tuple[int, str]:
    """Write the frame store of one video; return its number of frames, and the damage after them, "" for none.

    Every frame of the video stream that ffmpeg selects, or of `job.seconds`, is stored exactly once, rotated as the
    metadata says, with a short side of at most `short_side`. With `keep_damaged` the frames before the first damage are
    stored. Raises ValueError with ffmpeg's reason where no frame decodes or ffmpeg crashes, JobTimeoutError where
    a decoding takes longer than `timeout` seconds, and FileExistsError where `job.folder` exists.
    """
    damage = ""
    times: list[float] = []

    def frames(seek: bool) -> Generator[bytes, None, None]:
        """Yield all frames; raise within the iteration, so that no part of a video is stored."""
        nonlocal damage
        command = ffmpeg_command(job.video, short_side, quality, job.seconds, seek)
        stream = JpegStream(command, timeout)
        yield from stream
        if "-ss" in command and (stream.error or stream.count == 0):
            raise _SeekError
        damage = _check_end(job, stream)
        if damage and not keep_damaged:
            raise ValueError(f"damaged after {damage}")
        times[:] = stream.times

    try:
        for seek in (True, False):
            with suppress(_SeekError), closing(frames(seek)) as jpegs:
                num_frames = write_frame_store(job.folder, jpegs, times, half_level)
                break
    except ValueError as error:
        raise ValueError(f"{job.video}: {error}") from None
    return num_frames, damage


def read_back(folder: Path, frames: int) -> None:
    """Decode every frame of a store. Raises ValueError where one fails or their number is not `frames`."""
    num_decoded = sum(1 for _ in StoredVideo(folder).frames())
    if num_decoded != frames:
        raise ValueError(f"{folder}: holds {num_decoded} frames, not {frames}")


def _check_end(job: Job, stream: JpegStream) -> str:
    """Return what is damaged after the last frame, "" if nothing is; raise ValueError where ffmpeg failed."""
    message = stream.error
    if stream.exit_code < 0:
        raise ValueError(f"ffmpeg was killed by signal {-stream.exit_code}")
    if stream.count == 0:
        if not read_header(job.video):
            raise ValueError("the file is empty")
        if not job.seconds:
            raise ValueError(message or "no frame could be decoded")
        reason = f", {message}" if message else ""
        raise ValueError("no frame could be decoded between {:g} and {:g} s".format(*job.seconds) + reason)
    if stream.count == 1:
        streams = re.findall(rb"Stream #\S+ Video: .*", probe(job.video))
        if all(b"(attached pic)" in line for line in streams):
            raise ValueError("holds audio and cover art, no video")
    if stream.exit_code not in (0, *STOPPED_AT_DAMAGE):
        raise ValueError(message)
    return describe_damage(job.video, stream, job.seconds) if message else ""
