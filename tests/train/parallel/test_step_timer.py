"""Times of steps, on the CPU and on a device that works off its queue when it pleases, as a GPU does."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

import pytest
import torch

from train.parallel.step_timer import HostClock, StepTimer, Times, clock_of


class QueueClock:
    """Of a thread that does in turn what it is given."""

    def __init__(self, queue: ThreadPoolExecutor) -> None:
        self.queue = queue

    def mark(self) -> Future[float]:
        return self.queue.submit(time.perf_counter)

    def is_past(self, moment: Future[float]) -> bool:
        return moment.done()

    def seconds(self, earlier: Future[float], later: Future[float]) -> float:
        return later.result(timeout=0) - earlier.result(timeout=0)


def test_what_the_device_has_not_done_is_read_later_and_nothing_waits() -> None:
    may_go_on, is_done = [Event() for _ in range(4)], [Event() for _ in range(4)]
    read = []
    with ThreadPoolExecutor(max_workers=1) as queue:
        timer = StepTimer(QueueClock(queue))
        for step in range(4):
            timer.start(clips=10 + step)
            timer.forward_done()
            queue.submit(may_go_on[step].wait)  # the backward pass
            timer.backward_done()
            queue.submit(is_done[step].set)
            if step == 2:  # the device has been a step behind, now it is two
                read.append(timer.read())
                continue
            for earlier in range(step):
                may_go_on[earlier].set()
                assert is_done[earlier].wait(timeout=60)
            read.append(timer.read())
        assert [times.clips for times in read] == [0, 10, 0, 11 + 12]
        may_go_on[3].set()
    assert timer.read().clips == 13
    assert timer.read() == Times()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for() -> None:
    timer = StepTimer(clock_of(torch.device("cuda", 0)))
    timer.start(clips=8)
    timer.forward_done()
    torch.cuda._sleep(10**9)
    timer.backward_done()
    assert timer.read() == Times()
    torch.cuda.synchronize()
    times = timer.read()
    assert times.clips == 8
    assert times.backward > 0.1 > times.forward


def test_passes_of_all_parts_and_the_update_are_counted_once() -> None:
    timer = StepTimer(HostClock())
    before = time.perf_counter()
    timer.start(clips=6)
    pauses = {timer.forward_done: 0.002, timer.backward_done: 0.004}
    for done in (timer.forward_done, timer.backward_done, timer.forward_done, timer.backward_done):
        time.sleep(pauses[done])
        done()
    time.sleep(0.008)
    timer.backward_done()
    elapsed = time.perf_counter() - before
    times = timer.read()
    assert times.clips == 6
    assert times.forward >= 2 * 0.002
    assert times.backward >= 2 * 0.004 + 0.008
    assert times.forward + times.backward <= elapsed


def test_times_add_up() -> None:
    assert Times.sum([Times(2, 0.5, 1.0), Times(), Times(3, 0.25, 2.0)]) == Times(5, 0.75, 3.0)
    assert Times.sum([]) == pytest.approx(Times(0, 0.0, 0.0))
