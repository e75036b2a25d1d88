"""Times of steps, on the CPU and on a device that completes its work later, as a GPU does."""

import time

import pytest
import torch

from train.parallel import step_timer
from train.parallel.step_timer import HostEvent, StepTimer, StepTimes


class DeviceEvent(HostEvent):
    """An event of a device that completes as many events as `completed` says, in order."""

    recorded = 0
    completed = 0

    def record(self) -> None:
        super().record()
        DeviceEvent.recorded += 1
        self.number = DeviceEvent.recorded

    def query(self) -> bool:
        return self.number <= DeviceEvent.completed

    def elapsed_time(self, end_event: HostEvent) -> float:
        assert end_event.query()
        return super().elapsed_time(end_event)


def test_steps_are_read_once_the_device_has_completed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timer, "HostEvent", DeviceEvent)
    timer = StepTimer(torch.device("cpu"))
    read = []
    for step, completed_steps in enumerate((0, 1, 1, 3)):  # of three events each
        timer.start(clips=10 + step)
        timer.forward_done()
        timer.backward_done()
        DeviceEvent.completed = 3 * completed_steps + 2  # and of the next one all but the backward pass
        read.append(timer.read().clips)
    assert read == [0, 10, 0, 11 + 12]
    DeviceEvent.completed = 12
    assert timer.read().clips == 13
    assert timer.read() == StepTimes()


def test_micro_batches_and_the_optimizer_step_are_counted_once() -> None:
    timer = StepTimer(torch.device("cpu"))
    before = time.perf_counter()
    timer.start(clips=6)
    for seconds, done in 2 * [(0.002, timer.forward_done), (0.004, timer.backward_done)]:
        time.sleep(seconds)
        done()
    time.sleep(0.008)
    timer.backward_done()
    elapsed = time.perf_counter() - before
    times = timer.read()
    assert times.clips == 6
    assert times.forward >= 2 * 0.002
    assert times.backward >= 2 * 0.004 + 0.008
    assert times.forward + times.backward <= elapsed + 1e-6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_not_waited_for() -> None:
    matrix = torch.randn(8192, 8192, device="cuda")
    timer = StepTimer(matrix.device)
    timer.start(clips=8)
    timer.forward_done()
    for _ in range(50):
        matrix = matrix @ matrix / 90
    timer.backward_done()
    assert timer.read() == StepTimes()
    torch.cuda.synchronize()
    times = timer.read()
    assert times.clips == 8
    assert times.backward > 0.1 > times.forward


def test_times_add_up() -> None:
    times = [StepTimes(2, 0.5, 1.0), StepTimes(), StepTimes(3, 0.25, 2.0)]
    assert StepTimes.sum(times) == StepTimes(5, 0.75, 3.0)
    assert StepTimes.sum([]) == StepTimes(0, 0.0, 0.0)
