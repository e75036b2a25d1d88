"""Restarting dataloader workers, and the shared memory that batches need."""

import errno
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
from data.clip_batch import BadSample, Batch, Sample, gather
from data.clip_loader import ClipLoader, JointDataset, LoaderError, plan_prefetch

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
        clip = torch.full((1, 2, 2, 3), index, dtype=torch.uint8)
        return Sample(clip, index, index, [])


class Corrupt(Dataset[Sample]):
    def __getitem__(self, index: int) -> Sample:
        return Sample(None, -1, index, [BadSample("jpg/a", str(index))])


def make_loader(clips: Dataset[Sample], workers: int = 2) -> ClipLoader:
    return ClipLoader(clips, BATCHES, workers=workers)


def numbers(batches: Iterable[list[Batch]]) -> list[list[int]]:
    return [gather(chunks).clips[:, 0, 0, 0, 0].tolist() for chunks in batches]


EARLIER: list[multiprocessing.process.BaseProcess] = []  # children of earlier tests


@pytest.fixture(autouse=True)
def _children() -> None:
    EARLIER[:] = multiprocessing.active_children()


def workers() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child not in EARLIER]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores
@pytest.mark.parametrize("deadly", [-1, 13])
@pytest.mark.parametrize(("num_workers", "shares"), [(1, [7]), (2, [4, 3]), (3, [3, 2, 2])])
def test_workers_share_each_batch_which_is_the_same_in_any_number_of_them_also_when_one_dies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, num_workers: int, shares: list[int], deadly: int
) -> None:
    batches = [[(0, i) for i in range(n, n + 7)] for n in range(0, 21, 7)]  # of two datasets
    batches += [[], [(1, 3)], [(0, 30), (1, 4), (0, 31), (1, 5)], [(0, 40)]]

    def read(workers: int, shares: list[int], deadly: int = -1) -> list[tuple[object, ...]]:
        loader = ClipLoader(
            JointDataset(Numbers(tmp_path / "log", deadly), Corrupt()), batches, workers=workers
        )
        found = list(loader)
        loader.close()
        assert [len(chunk.labels) for chunk in found[0]] == shares
        return [(*(tensor.tolist() for tensor in batch[:3]), batch.bad) for batch in map(gather, found)]

    expected = read(0, [7])
    assert [labels for _, labels, _, _ in expected] == [
        *(list(range(n, n + 7)) for n in range(0, 21, 7)),
        *([], [], [30, 31], [40]),
    ]
    assert [bad.reason for *_, bad_samples in expected for bad in bad_samples] == ["3", "4", "5"]
    assert read(num_workers, shares, deadly) == expected
    assert caplog.text.count("restarting workers: a DataLoader worker died") == (1 if deadly >= 0 else 0)
    assert workers() == []


def test_workers_read_ahead_of_what_is_asked_for(tmp_path: Path) -> None:
    """So the first batches of a phase are read while the last ones of the phase before it are computed."""
    clips = make_loader(Numbers(tmp_path / "log", deadly=5, deaths=0))
    next(clips)
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    clips.close()


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
    first = next(clips)
    for number, worker in zip((signal.SIGKILL, signal.SIGSEGV), workers(), strict=True):
        os.kill(worker.pid, number)
        worker.join()
    for _ in range(1000):
        time.sleep(0)
    assert numbers([first, *clips]) == BATCHES
    clips.close()


def test_stopped_worker_is_reported_and_can_be_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_loader, "STALL_SECONDS", 0.1)
    clips = make_loader(Numbers(tmp_path / "log"), workers=1)
    first = next(clips)
    (worker,) = workers()
    os.kill(worker.pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (worker.pid, signal.SIGCONT)).start()
    assert numbers([first, *clips]) == BATCHES
    assert "dataloader stalled for 0 s" in caplog.text
    os.kill(worker.pid, signal.SIGSTOP)
    clips.close()
    assert workers() == []


def test_workers_are_killed_by_close_and_exit_also_after_another_dataloader() -> None:
    """They ignore SIGTERM, and the other one leaves torch's SIGCHLD handler, which raises when they are killed."""
    code = """if True:
        from pathlib import Path
        from torch.utils.data import DataLoader
        from tests.data.test_clip_loader import Numbers, make_loader
        list(DataLoader(range(2), num_workers=1))
        clips = make_loader(Numbers(Path("unused")))
        next(clips)
        clips.close()
        next(clips)
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


def test_two_batches_are_prefetched_or_one_if_more_does_not_fit_into_shared_memory() -> None:
    """The original needed 86 GB."""
    shapes = [BatchShape(48, 16, 224), BatchShape(1536, 4, 80), BatchShape(384, 8, 112)]
    largest = 1536 * 4 * 80**2 * 3
    for ranks in (1, 2):
        for free, factor in ((10**12, 2), (ranks * 3 * largest, 2), (ranks * 3 * largest - 1, 1)):
            needed = ranks * (1 + factor) * largest  # one is in use
            assert plan_prefetch(shapes, 4, local_world_size=ranks, free=free) == (factor, needed)
    assert plan_prefetch([BatchShape(3, 16, 224)], 2) == (2, (2 * 2 * 2 + 3) * 16 * 224**2 * 3)
    assert plan_prefetch([BatchShape(48, 64, 448)], 16, free=10**12)[0] == 1  # SHARED_MEMORY_BUDGET
    assert plan_prefetch(shapes, 0, free=0)[1] == 0
    with pytest.raises(ValueError, match="4 workers need 236 MB of .* lower --batch-size, or enlarge it"):
        plan_prefetch(shapes, 4, free=2 * largest - 1)
