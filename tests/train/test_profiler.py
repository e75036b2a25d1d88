"""Traces of training steps."""

import gzip
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train.helpers import folder, train
from tests.train.test_callbacks import CPU, step_report
from train.profiler import StepProfiler


def traced_steps(path: Path) -> int:
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return len({event["name"] for event in events if event["name"].startswith("ProfilerStep#")})


@pytest.mark.parametrize(("profile", "num_steps", "first"), [(2, 2, 5), (10, 4, 3)])
def test_steps_are_traced_within_an_epoch(
    stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: int, num_steps: int, first: int
) -> None:
    """Of six: those asked for, or all but the first two."""
    caplog.set_level("INFO")
    assert train(stores, tmp_path, f"--batch-size 2 --end-epoch 1 --tensorboard --profile {profile}") == 0
    (path,) = folder(tmp_path).glob("profile_s*")
    assert path.name == "profile_s0001.pt.trace.json.gz"
    assert traced_steps(path) == num_steps
    (text,) = [record.getMessage() for record in caplog.records if "costliest" in record.getMessage()]
    assert f"trace of epoch 1 from step {first} on" in text
    heading, rule, columns, rule_again, *operations, last_rule = text.splitlines()[:15]
    assert columns.split()[:3] == ["Name", "Self", "CPU"]
    assert rule == rule_again == last_rule
    assert len(operations) == 10
    assert "ProfilerStep" not in text
    events = EventAccumulator(str(folder(tmp_path)))
    events.Reload()
    assert "aten::" in events.Tensors("profile/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_run_that_ends_early_writes_what_was_traced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trace.json.gz"
    for num_steps in (6, 7):  # the second replaces the file of the first, as in a resumed run
        profiler = StepProfiler(10, path, CPU)
        for step in range(num_steps):
            profiler.on_step(step_report(step, num_steps=100))
        profiler.close()
        assert traced_steps(path) == num_steps - 3
    profiler = StepProfiler(10, tmp_path / "other.json.gz", CPU)
    for step in (0, 1, 0, 1):
        profiler.on_step(step_report(step, num_steps=2))
    profiler.close()
    assert list(tmp_path.iterdir()) == [path]
    assert "nothing was traced, the run was too short" in caplog.text
