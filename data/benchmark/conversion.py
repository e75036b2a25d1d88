"""How fast videos are converted, measured: beside files that are inserted, and by two processes."""

import functools
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2

from data.benchmark.reference_pipeline import write_original_store
from data.common.job_pool import run_in_subprocesses
from data.convert.converter import Job, convert_video
from data.ffmpeg import ffmpeg_binary
from data.frame_store import FrameStore

SHORT_SIDE, QUALITY = 294, 3
TURNS = 3


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Within, this process and what it starts run on so many cores, where the system can hold them there (Macs cannot),
    and OpenCV in one thread.
    """
    can_hold, threads = hasattr(os, "sched_setaffinity"), cv2.getNumThreads()
    cores = os.sched_getaffinity(0) if can_hold else set()
    if can_hold:
        os.sched_setaffinity(0, sorted(cores)[:count])
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        if can_hold:
            os.sched_setaffinity(0, cores)
        cv2.setNumThreads(threads)


def convert_rates(videos: Sequence[Path], folder: Path) -> dict[str, float]:
    """Frames a second of converting, ours and by files that are inserted, each on one core."""
    rates = {}
    started, frames = time.perf_counter(), 0
    for i, video in enumerate(videos):
        job = Job(video, folder / "ours" / f"v{i}")
        convert_video(job, short_side=SHORT_SIDE, quality=QUALITY)
        frames += FrameStore(job.folder).n_frames
    rates["ours"] = frames / (time.perf_counter() - started)
    started = time.perf_counter()
    for i, video in enumerate(videos):
        files = folder / "files" / f"v{i}"
        files.mkdir(parents=True)
        scale = ["-vf", f"scale=-2:{SHORT_SIDE}", "-q:v", "3", "-threads", "1"]
        command = [ffmpeg_binary(), "-loglevel", "error", "-threads", "1", "-i", str(video), *scale]
        subprocess.run([*command, str(files / "frame_%05d.jpg")], check=True)
        jpegs = [path.read_bytes() for path in sorted(files.iterdir())]
        write_original_store(folder / "inserted" / f"v{i}", jpegs)
    rates["files, then inserted"] = frames / (time.perf_counter() - started)
    return rates


def convert_gain(videos: Sequence[Path], folder: Path) -> float:
    """How many times as many frames a second two processes on two cores convert as one on one: the median of turns."""
    work = functools.partial(convert_video, short_side=SHORT_SIDE, quality=QUALITY)
    gains = []
    for turn in range(TURNS):
        seconds = []
        for workers in (1, 2):
            place = folder / f"{turn}_{workers}"
            jobs = [Job(video, place / f"{i}") for i, video in enumerate([*videos, *videos])]
            started = time.perf_counter()
            with on_cores(workers):
                for ended in run_in_subprocesses(work, jobs, workers=workers, time_limit=3600):
                    if ended.error is not None:
                        raise ended.error
            seconds.append(time.perf_counter() - started)
        gains.append(seconds[0] / seconds[1])
    return statistics.median(gains)
