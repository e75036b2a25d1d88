"""Small benchmarks of step time and time to accuracy."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.batch_sampler import BatchShape, ClipSpec
from data.datasets import CUSTOM
from data.synthetic.shapes import MOTION_CLASSES
from tests.commands import error_of, main_of
from tests.train.helpers import SMALL
from train.benchmark.step_time import make_benchmark_trainer, peak_matmul_flops, random_batch, time_steps
from train.benchmark.time_to_accuracy import MovingShapes, config_options
from train.options import Options, resolve

main = main_of("train.benchmark")
TINY = [*SMALL, "--batch-size", "2"]
OPTIONS = resolve(CUSTOM, Options(network="tiny", precision="fp32"), gpus=0)


def run(tmp_path: Path, *flags: str) -> dict[str, Any]:
    assert main([*TINY, "--warmup", "1", "--repeats", "1", *flags, "--json", str(tmp_path / "out.json")]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def test_step_times_of_every_config_and_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path, "--short-cycles")["steps"]
    formats = itertools.product(("fp32", "bf16"), ("contiguous", "channels-last"))
    shapes = ["2x4x32x32", "4x4x22x22", "8x4x16x16"]
    expected = [(f"{precision} {layout} eager", shape) for precision, layout in formats for shape in shapes]
    assert [(row["config"], row["batch"]) for row in rows] == expected
    for row in rows:
        assert row["clips/s"] == pytest.approx(1000 * int(row["batch"][0]) / row["step ms"])
        assert all(0 < row[part] < row["step ms"] for part in ("forward", "backward"))
        assert 0 < row["MFU"] < 1
    assert capsys.readouterr().out.count("bf16 channels-last eager") == 3


def test_flags_of_training_choose_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(module))
    result = run(tmp_path, "--precision", "bf16", "--channels-last", "--compile")
    configs = [row["config"] for row in result["steps"]]
    assert configs == ["bf16 channels-last eager", "bf16 channels-last compiled"]
    assert len(compiled) == 1


def test_a_config_that_cannot_be_compiled_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", fail)
    result = run(tmp_path, "--precision", "fp32", "--no-channels-last", "--compile")
    assert [row["config"] for row in result["steps"]] == ["fp32 contiguous eager"]
    lines = capsys.readouterr().out.splitlines()
    (skipped,) = [line for line in lines if "fp32 contiguous compiled" in line]
    assert "skipped: --compile: does not work on this machine: No working C++ compiler found" in skipped


def test_times_and_flops_are_those_of_the_steps_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOPs are those of three forward passes per clip."""
    trainer, shape = make_benchmark_trainer(OPTIONS, 3), BatchShape(2, 4, 32)
    update, calls = trainer._update, []

    def slow_at_first(*args: Any) -> Any:
        calls.append(args)
        time.sleep(0.5 * (len(calls) == 1))
        return update(*args)

    monkeypatch.setattr(trainer, "_update", slow_at_first)
    batch = random_batch(shape, 3, trainer.device)
    row = time_steps(trainer, batch, shape, lambda length, size: 1000, warmup=1, repeats=2)
    assert len(calls) == 3
    assert row["step ms"] < 250
    assert row["TFLOP/s"] * row["step ms"] == pytest.approx(2 * 3 * 1000 * 1e-9)


def test_peak_flops_are_measured_with_the_libraries_of_training() -> None:
    """Training does not use oneDNN for bf16."""
    peak_matmul_flops.cache_clear()
    for precision in ("fp32", "bf16"):
        assert 1e8 < peak_matmul_flops(torch.device("cpu"), precision) < 1e13
        assert torch.backends.mkldnn.enabled == (precision == "fp32")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--repeats", "0"], "'0' is not a whole number of at least 1"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--network", "nothing"], "unknown network 'nothing'"),
    ],
)
def test_invalid_arguments_are_one_line(flags: list[str], message: str) -> None:
    assert message in error_of(main, *TINY, *flags)


def test_clips_of_moving_shapes_are_functions_of_their_spec() -> None:
    train = MovingShapes(16, length=8, size=32, seed=1, train=True)
    assert train.labels == [*range(len(MOTION_CLASSES))] * 2
    clips = [train[ClipSpec(3, 2, 22, seed)].clip for seed in (1, 1, 2)]
    assert (clips[0].shape, clips[0].dtype) == ((2, 22, 22, 3), torch.uint8)
    assert torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])
    assert np.array_equal(MovingShapes(16, 8, 32, 1, True).videos[3], train.videos[3])
    assert not np.array_equal(train.videos[3], train.videos[11])
    val = MovingShapes(8, length=8, size=32, seed=1, train=False)
    assert (val[ClipSpec(3, 8, 32, 9)].clip.shape, val[ClipSpec(3, 8, 32, 9)].label) == ((8, 32, 32, 3), 3)


def test_all_configs_have_the_same_lr_at_the_base_shape() -> None:
    options = Options(lr_base=0.01)
    assert config_options(options, "none", 6).end_epoch == 6
    both = config_options(options, "both-lr-stage", 6)
    assert (both.long_cycles, both.short_cycles, both.long_cycle_period) == (True, True, "lr-stage")
    assert both.end_epoch == 9
    assert both.lr_base / 8 == pytest.approx(config_options(options, "short", 6).lr_base)


def test_time_to_accuracy_of_two_configs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--time-to-accuracy", "--videos", "80", "--epochs", "1", "--cycles", "none", "both-lr-stage"]
    first, second = run(tmp_path, *flags, "--target-top1", "0")["time_to_accuracy"]
    assert (first["cycles"], first["reached"], len(first["epochs"])) == ("none", True, 1)
    assert first["epochs"][0]["steps"] == 40 > second["epochs"][0]["steps"]
    assert first["epochs"][0]["clips"] == second["epochs"][0]["clips"] == 80
    row = next(line for line in capsys.readouterr().out.splitlines() if "both-lr-stage" in line)
    speed_up = first["epochs"][0]["seconds"] / second["epochs"][0]["seconds"]
    assert row.split()[-1] == f"{speed_up:.2f}"


def test_a_target_that_is_not_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--videos", "16", "--epochs", "1", "--target-top1", "1", "--cycles", "none"]
    (result,) = run(tmp_path, "--time-to-accuracy", *flags)["time_to_accuracy"]
    assert not result["reached"]
    assert "not reached" in capsys.readouterr().out
