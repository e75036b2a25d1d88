"""Workers die and shared memory runs full: what a loader then gives, says and leaves behind."""

import errno
import gc
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing import resource_sharer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from data import clip_loader
from data.clip_loader import ClipLoader, LoaderError, remove_shared_memory, sent
from data.video_iterator import Sample, collate

BATCHES = [[i, i + 1] for i in range(0, 40, 2)]


class Numbers(Dataset[Sample]):
    """Clip i holds i alone. `deadly` ends its worker, the first `lives` times that anybody meets it."""

    def __init__(self, mark: Path, deadly: int = -1, lives: int = 1) -> None:
        self.mark = mark
        self.deadly = deadly
        self.lives = lives

    def __getitem__(self, index: int) -> Sample:
        if index == self.deadly:
            with self.mark.open("a+") as file:
                file.write("x")
            if self.mark.stat().st_size <= self.lives:
                # as one that is killed between making a segment and taking away its name
                (clip_loader.SHARED_MEMORY_FOLDER / f"torch_{os.getpid()}_1_1").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return Sample(torch.full((1, 2, 2, 3), index, dtype=torch.uint8), index, index, [])


def loader(clips: Numbers, workers: int = 2) -> ClipLoader:
    return ClipLoader(
        clips,
        BATCHES,
        collate=collate,
        workers=workers,
        prefetch=2,
        prepare_worker=_ignore_sigterm,
    )


def _ignore_sigterm(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def numbers(batches: Iterator) -> list[list[int]]:
    return [batch.clips[:, 0, 0, 0, 0].tolist() for batch in batches]


OTHERS: list[multiprocessing.process.BaseProcess] = []  # of loaders that earlier tests have left open


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS[:] = multiprocessing.active_children()


def workers() -> list[multiprocessing.process.BaseProcess]:
    return [process for process in multiprocessing.active_children() if process not in OTHERS]


def test_what_a_dead_worker_held_is_read_again_and_what_it_left_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shared = tmp_path / "shm"
    shared.mkdir()
    monkeypatch.setattr(clip_loader, "SHARED_MEMORY_FOLDER", shared)
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    own = signal.getsignal(signal.SIGCHLD)
    clips = loader(Numbers(tmp_path / "mark", deadly=13, lives=clip_loader.MAX_DEATHS - 1))
    for _ in range(2):  # the first epoch has the deaths, the second goes through the same workers
        assert numbers(clips) == BATCHES
    assert caplog.text.count("a worker ended, killed by SIGKILL, which is what a machine that runs out") == 4
    assert list(shared.iterdir()) == []
    clips.close()
    assert workers() == []
    assert signal.signal(signal.SIGCHLD, before) is own


def test_a_batch_that_kills_every_worker_ends_the_loading(tmp_path: Path) -> None:
    clips = loader(Numbers(tmp_path / "mark", deadly=13, lives=99))
    arrived = []

    def read() -> None:
        for batch in clips:
            arrived.append(batch.labels.tolist())

    with pytest.raises(
        LoaderError, match=r"SIGKILL, .* the 5th time without a batch in between; fewer --workers"
    ):
        read()
    assert arrived == BATCHES[: len(arrived)]
    assert workers() == []


def test_a_death_is_no_error_but_where_a_batch_is_asked_for(tmp_path: Path) -> None:
    """torch raises it wherever the process is: in the middle of an update, or of a file that is being written."""
    clips = loader(Numbers(tmp_path / "mark"))
    batches = iter(clips)
    first = next(batches)
    for number, worker in zip((signal.SIGKILL, signal.SIGSEGV), workers(), strict=True):
        os.kill(worker.pid, number)
        worker.join()
    for _ in range(1000):
        time.sleep(0)  # where torch's handler would strike
    assert numbers(itertools.chain([first], batches)) == BATCHES
    for worker in workers():  # between two epochs
        worker.kill()
    assert numbers(clips) == BATCHES
    clips.close()


def test_a_connection_that_breaks_is_a_dead_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that dies while it sends may be gone from the connection before it is gone from the machine."""
    breaks = iter([False, True])
    receive = _MultiProcessingDataLoaderIter._try_get_data

    def broken(self: _MultiProcessingDataLoaderIter, *arguments: object) -> tuple[bool, object]:
        if next(breaks, False):
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return receive(self, *arguments)

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", broken)
    monkeypatch.setattr(clip_loader, "wait", lambda *_, **__: [])
    clips = loader(Numbers(tmp_path / "mark"))
    assert numbers(clips) == BATCHES
    clips.close()


def test_a_stopped_worker_is_waited_for_and_does_not_hold_up_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_loader, "PATIENCE", 0.1)
    clips = loader(Numbers(tmp_path / "mark"), workers=1)
    batches = iter(clips)
    arrived = [next(batches)]
    (worker,) = workers()
    os.kill(worker.pid, signal.SIGSTOP)
    waker = multiprocessing.get_context("fork").Process(target=_continue_later, args=(worker.pid,))
    waker.start()
    arrived += list(batches)
    waker.join()
    assert numbers(arrived) == BATCHES
    assert (
        "no batch has come for 0 s: workers, or the disk that they read, are slow or stopped" in caplog.text
    )
    os.kill(worker.pid, signal.SIGSTOP)
    clips.close()  # a worker that is asked to end does not hear it, and Python waits for it for ever
    assert workers() == []


def _continue_later(process: int) -> None:
    time.sleep(0.5)
    os.kill(process, signal.SIGCONT)


class Pair(NamedTuple):
    one: torch.Tensor
    other: list[str]


def full(*_: object) -> None:
    raise RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
    )


def test_batches_go_through_a_pipe_where_shared_memory_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.UntypedStorage, "_new_using_fd_cpu", full)
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    pair = sent(Pair(torch.arange(3), ["a"]))
    assert isinstance(pair.one, np.ndarray)
    assert pair.other == ["a"]
    clips = loader(Numbers(tmp_path / "mark"), workers=1)
    assert numbers(clips) == BATCHES
    clips.close()
    assert caplog.text.count("/dev/shm takes no more: batches come through a pipe, which is slower") == 1


def test_other_errors_of_sharing_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(torch.Tensor, "share_memory_", broken)
    with pytest.raises(RuntimeError, match="something else"):
        sent(Pair(torch.arange(3), []))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "Semaphore",
            r"/dev/shm: has no room to start workers \(No space left on device\); --workers 0 needs",
        ),
        ("Process.start", r"workers cannot be started, \[Errno 28\] No space left on device"),
    ],
)
def test_workers_that_cannot_be_started_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"multiprocessing.{what}", no_room)
    with pytest.raises(LoaderError, match=message):
        list(loader(Numbers(tmp_path / "mark")))
    assert numbers(loader(Numbers(tmp_path / "mark"), workers=0)) == BATCHES


def test_one_worker_that_can_be_started_and_one_that_cannot_are_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch forgot what it had begun with a traceback."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    start = multiprocessing.Process.start
    started: list[multiprocessing.process.BaseProcess] = []

    def once(self: multiprocessing.process.BaseProcess) -> None:
        if started:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        started.append(self)
        start(self)

    monkeypatch.setattr("multiprocessing.Process.start", once)
    with pytest.raises(LoaderError, match=r"workers cannot be started, \[Errno 2\] No such file"):
        list(loader(Numbers(tmp_path / "mark")))
    gc.collect()
    assert not started[0].is_alive()
    assert complaints == []


def test_a_folder_that_no_socket_fits_in_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a long TMPDIR: a worker could not send what it had read, and was waited for, for ever."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("multiprocessing.util.get_temp_dir", lambda: str(long))
    with pytest.raises(
        LoaderError, match=r"xxx: workers can have no sockets there \(AF_UNIX path too long\); TMPDIR"
    ):
        list(loader(Numbers(tmp_path / "mark")))


def test_segments_of_a_dead_process_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch makes one under a name, and takes it away at once, unless it is killed in between or finds no room."""
    monkeypatch.setattr(clip_loader, "SHARED_MEMORY_FOLDER", tmp_path)
    for name in ("torch_12_1_1", "torch_12_77_2", "torch_123_1_1", "sem.12"):
        (tmp_path / name).touch()
    remove_shared_memory(12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sem.12", "torch_123_1_1"]


class TurnedAway(Numbers):
    """Within the worker, somebody asks for shared memory and is gone before the answer."""

    def __getitem__(self, index: int) -> Sample:
        if index == 4:
            resource_sharer.DupFd(os.dup(0))  # starts the thread that hands it over
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(resource_sharer._resource_sharer._address)
                time.sleep(0.2)  # until there is an answer, which nobody reads
            time.sleep(0.2)
        return super().__getitem__(index)


def test_a_worker_does_not_complain_of_who_has_turned_away(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The training process does where another worker dies just then; there was a traceback in the log."""
    batches = loader(TurnedAway(tmp_path / "mark"), workers=1)
    assert numbers(batches) == BATCHES
    batches.close()
    assert capfd.readouterr().err == ""


def test_a_worker_complains_of_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    clip_loader._complain_unless_unheard(ConnectionResetError, ConnectionResetError(), None)
    clip_loader._complain_unless_unheard(KeyError, KeyError("this"), None)
    assert capsys.readouterr().err == "KeyError: 'this'\n"


def test_a_child_that_ends_between_two_batches_is_nothing_to_complain_of(tmp_path: Path) -> None:
    """Python did where that was noticed only after nobody waited for it any more: Signal 17 ignored."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        batches = loader(Numbers(tmp_path / "mark"))
        assert numbers(batches) == BATCHES
        assert callable(signal.getsignal(signal.SIGCHLD))
        os.kill(os.getpid(), signal.SIGCHLD)
        batches.close()
    finally:
        signal.signal(signal.SIGCHLD, before)
