"""Restarting dataloader workers, and the shared memory that batches need."""

import errno
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from data import clip_loader
from data.batch_sampler import BatchShape
from data.clip_batch import Batch, Sample
from data.clip_loader import ClipLoader, LoaderError, choose_prefetch_factor, shared_memory_bytes

BATCHES = [[i, i + 1] for i in range(0, 40, 2)]


class Numbers(Dataset[Sample]):
    """Clip i is filled with i. Reading number `deadly` kills the worker, the first `deaths` times."""

    def __init__(self, log: Path, deadly: int = -1, deaths: int = 1) -> None:
        self.log = log
        self.deadly = deadly
        self.deaths = deaths

    def __getitem__(self, index: int) -> Sample:
        if index == self.deadly:
            with self.log.open("a") as file:
                file.write("x")
            if self.log.stat().st_size <= self.deaths:
                os.kill(os.getpid(), signal.SIGKILL)
        return Sample(torch.full((1, 2, 2, 3), index, dtype=torch.uint8), index, index, [])


def make_loader(clips: Dataset[Sample], workers: int = 2) -> ClipLoader:
    return ClipLoader(clips, BATCHES, workers=workers)


def numbers(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.clips[:, 0, 0, 0, 0].tolist() for batch in batches]


EARLIER: list[multiprocessing.process.BaseProcess] = []  # children of earlier tests


@pytest.fixture(autouse=True)
def _children() -> None:
    EARLIER[:] = multiprocessing.active_children()


def workers() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child not in EARLIER]


def test_no_batch_is_lost_or_repeated_when_a_worker_dies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    clips = make_loader(Numbers(tmp_path / "log", deadly=13))
    assert numbers(clips) == BATCHES
    assert caplog.text.count("restarting workers: a DataLoader worker died") == 1
    processes = workers()
    assert numbers(clips) == BATCHES
    assert workers() == processes  # workers persist over epochs
    clips.close()
    assert workers() == []
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_a_batch_that_kills_every_worker_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_loader, "MAX_DEATHS", 2)
    clips = make_loader(Numbers(tmp_path / "log", deadly=13, deaths=99))
    with pytest.raises(LoaderError, match=r"^a DataLoader worker died .* 2 times in a row: lower --workers$"):
        list(clips)
    assert workers() == []


def test_workers_that_die_raise_nothing_outside_of_the_loader(tmp_path: Path) -> None:
    """torch's SIGCHLD handler raises wherever the process is: within an update, or while a file is written."""
    clips = make_loader(Numbers(tmp_path / "log"))
    batches = iter(clips)
    first = next(batches)
    for number, worker in zip((signal.SIGKILL, signal.SIGSEGV), workers(), strict=True):
        os.kill(worker.pid, number)
        worker.join()
    for _ in range(1000):
        time.sleep(0)
    assert numbers(itertools.chain([first], batches)) == BATCHES
    for worker in workers():
        worker.kill()
    assert numbers(clips) == BATCHES  # also if they die between epochs
    clips.close()


def test_stopped_worker_is_reported_and_can_be_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_loader, "STALL_SECONDS", 0.1)
    clips = make_loader(Numbers(tmp_path / "log"), workers=1)
    batches = iter(clips)
    first = next(batches)
    (worker,) = workers()
    os.kill(worker.pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (worker.pid, signal.SIGCONT)).start()
    assert numbers([first, *batches]) == BATCHES
    assert "dataloader stalled for 0 s" in caplog.text
    os.kill(worker.pid, signal.SIGSTOP)
    clips.close()
    assert workers() == []


def test_process_exits_with_workers_that_are_open_and_ignore_sigterm() -> None:
    code = """if True:
        from pathlib import Path
        from tests.data.test_clip_loader import Numbers, make_loader
        clips = make_loader(Numbers(Path("unused")))
        next(iter(clips))
        print("done")"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def fail_to_share(_: torch.Tensor) -> None:
    raise RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)"
    )


def fail_to_start(_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("target", "failure"),
    [("torch.Tensor.share_memory_", fail_to_share), ("multiprocessing.Process.start", fail_to_start)],
)
def test_full_shared_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, failure: object
) -> None:
    monkeypatch.setattr(target, failure)
    with pytest.raises(
        LoaderError, match=r"^DataLoader workers failed, is /dev/shm full\? .*No space left.*$"
    ):
        list(make_loader(Numbers(tmp_path / "log")))
    assert numbers(make_loader(Numbers(tmp_path / "log"), workers=0)) == BATCHES


class Broken(Dataset[Sample]):
    def __getitem__(self, index: int) -> Sample:
        raise KeyError("a bug")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_other_errors_are_passed_on(caplog: pytest.LogCaptureFixture, num_workers: int) -> None:
    with pytest.raises(KeyError, match="a bug"):
        list(make_loader(Broken(), num_workers))
    assert caplog.text == ""


SHAPES = [BatchShape(48, 16, 224), BatchShape(1536, 4, 80), BatchShape(384, 8, 112)]


def test_shared_memory_is_that_of_the_pixels() -> None:
    """The original needed 86 GB; here 8 workers need less than 2 GiB."""
    assert shared_memory_bytes(SHAPES, workers=8) < 2 * 2**30
    assert shared_memory_bytes(SHAPES, workers=0) == 0
    assert shared_memory_bytes(SHAPES[:1], workers=1) == 3 * 48 * 16 * 224 * 224 * 3


def test_prefetch_factor_is_lowered_where_shared_memory_is_small() -> None:
    one, two = (shared_memory_bytes(SHAPES, 4, factor) for factor in (1, 2))
    assert [choose_prefetch_factor(SHAPES, 4, free=free) for free in (10 * two, two)] == [2, 2]
    assert choose_prefetch_factor(SHAPES, 8, free=10**12) == 1  # SHARED_MEMORY_BUDGET
    assert choose_prefetch_factor(SHAPES, 4, free=two - 1) == 1
    with pytest.raises(ValueError, match="4 workers need .* lower --workers or --batch-size"):
        choose_prefetch_factor(SHAPES, 4, free=one - 1)
    assert choose_prefetch_factor(SHAPES, 0, free=0) == 2
    ranks = 2 * shared_memory_bytes(SHAPES, 2)
    assert choose_prefetch_factor(SHAPES, 2, local_world_size=2, free=ranks - 1) == 1
