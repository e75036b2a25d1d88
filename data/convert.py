"""python -m data.convert VIDEOS DATASET [--short-side 294] [--quality 3] [--workers N]

Convert VIDEOS/<class>/<id>.<any> to frame stores DATASET/jpg/<class>/<id>/. Any file that ffmpeg reads will do. Videos
with a store are skipped, so an interrupted conversion goes on where it stopped; a store is there as a whole or not at
all.

294 lines suit UCF101, HMDB51 and Diving48; HACS, Kinetics and Moments in Time are cropped from 384.
"""

import functools
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, NamedTuple

import coloredlogs
import ffmpeg
from tqdm import tqdm

from data.command_line import OneLineParser
from data.frame_store import has_store, remove_abandoned, write_frame_store

logger = logging.getLogger(__name__)

MIN_SHORT_SIDE = 16
# What lies beside videos; anything else is ffmpeg's to judge.
NO_VIDEOS = frozenset(
    ".txt .csv .tsv .json .xml .yaml .yml .md .html .pdf .srt .vtt .py .db .zip .tar .gz .7z .rar"  # noqa: SIM905
    " .jpg .jpeg .png .webp .part .ytdl".split()
)


class ConversionError(Exception):
    """A video that cannot be converted; the message names it and the reason."""


class InterruptedConversionError(Exception):
    """Somebody asked to stop."""


class Job(NamedTuple):
    """One video, and the folder its store shall be."""

    video: Path
    folder: Path


def find_jobs(videos: Path, dataset: Path) -> tuple[list[Job], int]:
    """All videos `videos/<class>/<id>.<any>`, and the number of files that are none by their ending.

    Raises ValueError where two files would become one store, and where there is nothing.
    """
    if not videos.is_dir():
        raise ValueError(f"{videos}: is not a folder with <class>/<video> in it")
    jobs: dict[Path, Job] = {}
    ignored = 0
    for path in sorted(videos.glob("*/*")):
        if path.name.startswith(".") or path.parent.name.startswith(".") or not path.is_file():
            continue
        if path.suffix.lower() in NO_VIDEOS:
            ignored += 1
            continue
        folder = dataset / "jpg" / path.parent.name / path.stem
        if folder in jobs:
            raise ValueError(f"{path} and {jobs[folder].video.name} would be one store, {folder}")
        jobs[folder] = Job(path, folder)
    if not jobs:
        raise ValueError(f"{videos}: holds no <class>/<video>")
    return list(jobs.values()), ignored


def convert_video(job: Job, *, short_side: int, quality: int, stop: threading.Event) -> str:
    """Write the store of one video; returns ffmpeg's first complaint, "" where there was none.

    Every frame of the source becomes one of the store: none dropped, none repeated, rotation applied, short side at
    most `short_side`. Raises ConversionError with ffmpeg's reason where nothing can be decoded.
    """
    try:
        command = ffmpeg_command(job.video, short_side, quality)
    except UnicodeError:
        raise ConversionError(f"{str(job.video)!a}: its name is not UTF-8, rename it") from None
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process:
            try:
                write_frame_store(job.folder, _frames_of(process, stop))
            except FileExistsError as error:
                if not has_store(job.folder):  # else another conversion was faster
                    raise ConversionError(f"{job.video}: {error}") from None
            except ValueError as error:
                raise ConversionError(f"{job.video}: {_first_line(errors) or error}") from None
            finally:
                process.kill()
        return _first_line(errors)


def ffmpeg_command(video: Path, short_side: int, quality: int) -> list[str]:
    """Decode every frame as it is, scale, and write JPEGs, each behind a header with its length."""
    # the rotation that the file asks for comes before this filter, so width and height are as seen
    smaller = {
        "width": f"if(lte(iw,ih),min(iw,{short_side}),-1)",
        "height": f"if(lte(iw,ih),-1,min(ih,{short_side}))",
    }
    # what is a playlist by its content may name files alone, not addresses
    stream = ffmpeg.input(f"file:{video}", threads=1, protocol_whitelist="file").video
    stream = stream.filter("scale", out_range="full", flags="bicubic", **smaller).filter("format", "yuv420p")
    options = {"vcodec": "mjpeg", "q:v": quality, "color_range": "pc", "format": "mpjpeg", "threads": 1}
    stream = stream.output("pipe:", **options, **_keep_every_frame())
    return [*stream.compile(cmd=[ffmpeg_binary(), "-nostdin", "-loglevel", "error"])]


@functools.cache
def ffmpeg_binary() -> str:
    """The ffmpeg on the PATH, else the one that the package imageio-ffmpeg brings."""
    installed = shutil.which("ffmpeg")
    if installed:
        return installed
    from imageio_ffmpeg import get_ffmpeg_exe  # noqa: PLC0415  only needed where there is no other

    return get_ffmpeg_exe()


@functools.cache
def _keep_every_frame() -> dict[str, str]:
    """ffmpeg's default repeats and drops frames to make a constant rate. The option's name changed with 5.1."""
    text = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True).stdout
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return {"vsync" if old else "fps_mode": "passthrough"}


def read_jpegs(stream: IO[bytes]) -> Iterator[bytes]:
    """The images of ffmpeg's `mpjpeg` format: header lines, one of them `Content-length: N`, an empty line, N bytes."""
    length = None
    for line in iter(stream.readline, b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif not line.strip() and length is not None:
            jpeg = stream.read(length)
            if len(jpeg) < length:
                return  # ffmpeg was stopped within an image
            yield jpeg
            length = None


def _frames_of(process: subprocess.Popen[bytes], stop: threading.Event) -> Iterator[bytes]:
    """All frames that ffmpeg writes; ValueError where it fails, as what came before would look like a whole video."""
    for jpeg in read_jpegs(process.stdout):
        if stop.is_set():
            raise InterruptedConversionError
        yield jpeg
    if process.wait() != 0:
        raise ValueError(f"ffmpeg failed with status {process.returncode}")


def _first_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    line = errors.readline().decode(errors="replace").strip()
    return re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", line)  # which part of ffmpeg says it


def convert_all(jobs: Sequence[Job], *, short_side: int, quality: int, workers: int) -> Counter[str]:
    """Convert several videos at a time; counts `converted`, `damaged` (of these, with a complaint) and `failed`.

    What failed is logged with its reason and does not stop the others. An interrupt ends what is in work, leaves
    nothing half-written, and is raised again.
    """
    stop = threading.Event()
    counts = Counter(converted=0, damaged=0, failed=0)
    with ThreadPoolExecutor(workers) as pool:
        convert = functools.partial(convert_video, short_side=short_side, quality=quality, stop=stop)
        running = {pool.submit(convert, job): job for job in jobs}
        try:
            for future in tqdm(as_completed(running), total=len(jobs), unit="video", disable=None):
                try:
                    complaint = future.result()
                except ConversionError as error:
                    logger.error("%s", error)
                    counts["failed"] += 1
                    continue
                counts["converted"] += 1
                if complaint:
                    counts["damaged"] += 1
                    logger.warning("%s: converted as far as it decodes, %s", running[future].video, complaint)
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return counts


def _interrupt(signal_number: int, _: object) -> None:
    raise KeyboardInterrupt(signal.Signals(signal_number).name)


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m data.convert", description=__doc__.split("\n\n")[1])
    parser.add_argument("videos", type=Path, metavar="VIDEOS", help="folder with <class>/<id>.<any>")
    parser.add_argument(
        "dataset", type=Path, metavar="DATASET", help="folder that gets jpg/<class>/<id>/frames.db"
    )
    parser.add_argument("--short-side", type=int, default=294, help="height of frames at most (default: 294)")
    parser.add_argument("--quality", type=int, default=3, help="of the JPEGs, 2 (best) to 31 (default: 3)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="videos at a time (default: one a core)"
    )
    arguments = parser.parse_args(argv)
    if arguments.short_side < MIN_SHORT_SIDE:
        parser.error(f"--short-side {arguments.short_side}: must be at least {MIN_SHORT_SIDE}")
    if not 2 <= arguments.quality <= 31:
        parser.error(f"--quality {arguments.quality}: must be 2 to 31")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: must be at least 1")
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell's background job ignores SIGINT
        signal.signal(number, _interrupt)
    try:
        jobs, ignored = find_jobs(arguments.videos, arguments.dataset)
        abandoned = remove_abandoned(arguments.dataset / "jpg")
        todo = [job for job in jobs if not has_store(job.folder)]
        counts = convert_all(
            todo, short_side=arguments.short_side, quality=arguments.quality, workers=arguments.workers
        )
    except KeyboardInterrupt:
        logger.error("stopped; the same command goes on from here")
        return 130
    except (OSError, ValueError) as error:
        parser.error(str(error))
    counts.update(done_before=len(jobs) - len(todo), no_videos=ignored, half_written_removed=abandoned)
    print(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items() if count))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
