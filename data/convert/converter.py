"""Video files to frame stores, by ffmpeg."""

import functools
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from data.ffmpeg import (
    OWN_TIMES,
    RISING,
    _begins_with,
    _can_be_sought,
    _first_line,
    _part,
    ffmpeg_binary,
    ffmpeg_command,
    passthrough_fps_args,
    read_jpegs,
)
from data.frame_store import FrameStore, FrameStoreError, jpeg_size, write_frame_store

# How ffmpeg ends where -xerror made it stop at damage: 1 before version 7, then AVERROR_INVALIDDATA.
STOPPED_AT_DAMAGE = (1, 183)
READ_BACK_AT_A_TIME = 64  # frames, to bound memory


class ConversionError(Exception):
    """A video that cannot be converted; the message names it and the reason."""


class Job(NamedTuple):
    """One video file, the folder its store shall be, and perhaps (start, end) in seconds of what goes into it."""

    video: Path
    folder: Path
    seconds: tuple[float, float] | None = None


class Converted(NamedTuple):
    """How many frames a store got, and what ffmpeg said where the video is damaged after them; "" where it is whole."""

    frames: int
    damage: str


def convert_video(job: Job, *, short_side: int, quality: int, keep_damaged: bool = True) -> Converted:
    """Write the store of one video.

    Every frame of the source, or of `job.seconds`, becomes one of the store: none dropped, none repeated, rotation
    applied, short side at most `short_side`, of the stream that ffmpeg picks. Of a damaged video those before the first
    damage do with `keep_damaged`. Raises ConversionError with ffmpeg's reason where nothing can be decoded or the
    decoder crashes, and FileExistsError where there is something already.
    """
    return _decode(job, functools.partial(write_frame_store, job.folder), short_side, quality, keep_damaged)


def check_store(job: Job, *, short_side: int, quality: int) -> None:
    """ConversionError where a frame of a store does not decode, where it has more or less of them than its video, or
    where they are of another size than such a conversion makes.
    """
    first: list[bytes] = []

    def count(jpegs: Iterator[bytes]) -> int:
        first.append(next(jpegs))
        return 1 + sum(1 for _ in jpegs)

    read_back(job.folder, _decode(job, count, short_side, quality, keep_damaged=False).frames)
    height, width = jpeg_size(first[0])
    stored = jpeg_size(FrameStore(job.folder).fetch([0]).jpegs[0])
    if stored != (height, width):
        raise ConversionError(
            f"{job.folder}: holds frames of {stored[1]}x{stored[0]}, not {width}x{height}; "
            f"was it converted with another --short-side than {short_side}?"
        )


def read_back(folder: Path, frames: int) -> None:
    """Decode every frame of a store; ConversionError where there are not as many as `frames`, or one does not."""
    try:
        store = FrameStore(folder)
        if store.n_frames != frames:
            raise ConversionError(f"{folder}: holds {store.n_frames} frames, not {frames}")
        for start in range(0, frames, READ_BACK_AT_A_TIME):
            for _ in store.fetch(range(frames)[start : start + READ_BACK_AT_A_TIME]).decode_each(
                halved=False
            ):
                pass
    except FrameStoreError as error:
        raise ConversionError(str(error)) from None


def _decode(
    job: Job,
    take: Callable[[Iterator[bytes]], int],
    short_side: int,
    quality: int,
    keep_damaged: bool,
) -> Converted:
    """Hand the JPEGs of a video to `take`, which returns how many there were."""
    try:
        command = ffmpeg_command(job.video, short_side, quality, job.seconds)
    except UnicodeError:
        raise ConversionError(f"{str(job.video)!a}: its name is not UTF-8, rename it") from None
    except ValueError as error:
        raise ConversionError(f"{job.video}: {error}") from None
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            try:
                frames = take(_frames_of(process, errors, job, keep_damaged))
            except ValueError as error:
                raise ConversionError(f"{job.video}: {error}") from None
            finally:
                process.kill()
        return Converted(frames, _first_line(errors))


def _frames_of(
    process: subprocess.Popen[bytes], errors: IO[bytes], job: Job, keep_damaged: bool
) -> Iterator[bytes]:
    """All frames that ffmpeg writes; ValueError where it fails, as what came before would look like a whole video."""
    count = 0
    for jpeg in read_jpegs(process.stdout):
        yield jpeg
        count += 1
    status, complaint = process.wait(), _first_line(errors)
    if status < 0:
        raise ValueError(f"ffmpeg failed with status {status}")
    if count == 0 and not _begins_with(job.video):
        raise ValueError("the file is empty")
    if count == 0:
        if not job.seconds:
            raise ValueError(complaint or "no frame could be decoded")
        reason = f", {complaint}" if complaint else ""
        raise ValueError("no frame could be decoded between {:g} and {:g} s".format(*job.seconds) + reason)
    if count == 1 and _holds_a_cover_alone(job.video):
        raise ValueError("holds sound and a picture, no video")
    if status == 0 and complaint and _is_sound_from_the_start(job, count):
        errors.truncate(0)
        complaint = ""
    damaged = bool(complaint) and (status == 0 or status in STOPPED_AT_DAMAGE)
    if (status or complaint) and not (damaged and keep_damaged):
        raise ValueError(complaint or f"ffmpeg failed with status {status}")


def _is_sound_from_the_start(job: Job, frames: int) -> bool:
    """Whether a part has as many frames, and nothing to complain of, where its video is decoded from the beginning.

    Where decoding begins just before a part, frames that are thrown away may refer to some that were never decoded (an
    open group of pictures), and ffmpeg complains of those.
    """
    if not job.seconds or not _can_be_sought(_begins_with(job.video)):
        return False
    command = [ffmpeg_binary(), "-nostdin", "-loglevel", "error", "-xerror", "-protocol_whitelist", "file"]
    command += [*OWN_TIMES, "-threads", "1", "-i", f"file:{job.video}", "-an"]
    options = {"vf": f"{_part(b'', job.seconds)},{RISING}", **passthrough_fps_args()}
    command += [word for name, value in options.items() for word in (f"-{name}", value)]
    done = subprocess.run([*command, "-f", "framecrc", "-"], capture_output=True, check=False)
    counted = sum(not line.startswith(b"#") for line in done.stdout.splitlines())
    return done.returncode == 0 and not done.stderr.strip() and counted == frames


def _holds_a_cover_alone(video: Path) -> bool:
    """Whether all pictures of a file are there to be shown beside its sound."""
    command = [
        ffmpeg_binary(),
        "-nostdin",
        "-hide_banner",
        "-protocol_whitelist",
        "file",
        "-i",
        f"file:{video}",
    ]
    lines = (
        subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace").splitlines()
    )
    return all("(attached pic)" in line for line in lines if re.search(r"Stream #\S+ Video: ", line))
