"""The benchmark of steps and the race of multigrid's cycles, small."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor

from data.batch_sampler import BatchShape, ClipSpec
from data.datasets import CUSTOM
from data.synthetic.shapes import MOTIONS
from network import create_network
from tests.commands import main_of
from train.benchmark.__main__ import SMALL as SMALL_OPTIONS
from train.benchmark.__main__ import combinations, make_parser
from train.benchmark.step_time import StepConfig, StepTime, make_measured, peak_matmul_flops, time_steps
from train.benchmark.time_to_accuracy import Motions, variant_options
from train.cli import parse_options
from train.dry_run import flops_of
from train.options import Options

main = main_of("train.benchmark")

SMALL = [
    "--network",
    "ir_csn_50",
    "--clip-length",
    "4",
    "--clip-size",
    "32",
    "--batch-size",
    "2",
    "--gpus",
    "0",
]
SMALL += ["--warmup", "1", "--repeats", "1"]


def test_steps_of_every_combination_and_the_loader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *SMALL,
        "--short-cycles",
        "--precisions",
        "fp32",
        "bf16",
        "--loader-clips",
        "32",
        "--workers",
        "1",
    ]
    assert main([*words, "--json", str(tmp_path / "rows.json")]) == 0
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "rows.json").read_text())
    assert len(content["steps"]) == 2 * 2 * 3  # precisions, layouts, shapes
    for row in content["steps"]:
        batch = row["shape"][0]
        assert row["clips_per_second"] == pytest.approx(batch / row["seconds"])
        assert 0 < row["teraflops"] < row["peak_teraflops"]
    assert {tuple(row["shape"]) for row in content["steps"]} == {(2, 4, 32), (4, 4, 22), (8, 4, 16)}
    assert (
        sum(row["steps"] * row["shape"][0] for row in content["loading"]) == 32 - 2
    )  # but for the first step
    waited, seconds = (sum(row[key] for row in content["loading"]) for key in ("waited", "seconds"))
    assert f"share of time waiting for data: {waited / seconds:.1%}" in printed
    assert "bf16 channels-last eager" in printed
    assert content["options"]["network"] == "ir_csn_50"


def test_loader_reads_the_data_set_that_is_named(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "--dataset", str(stores), "--short-side", "36", "--precisions", "fp32"]
    words += ["--layouts", "contiguous", "--workers", "0", "--json", str(tmp_path / "rows.json")]
    assert main(words) == 0
    content = json.loads((tmp_path / "rows.json").read_text())
    assert [row["steps"] for row in content["loading"]] == [5]  # six batches of two; the first does not count
    assert content["loading"][0]["waited"] > 0


def test_compiled_steps_are_those_of_a_compiled_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself takes a minute here, and is torch's."""
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda what: compiled.append(what) or what)
    options = Options(network="r3d_18", gpus=0)
    sizes = {"num_classes": 3, "warmup": 0, "repeats": 1}
    for wanted in (False, True):
        combination = StepConfig("fp32", channels_last=False, compiled=wanted)
        assert len(list(time_steps(options, combination, [BatchShape(2, 4, 32)], **sizes))) == 1
        assert sum(isinstance(what, torch.nn.Module) for what in compiled) == wanted
    assert str(combination) == "fp32 contiguous compiled"


def test_where_nothing_can_be_compiled_a_line_says_so_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    words = [*SMALL, "--precisions", "fp32", "--layouts", "contiguous", "--json", str(tmp_path / "rows.json")]
    with inductor.patch({"cpp.cxx": ("/nowhere/g++",), "force_disable_caches": True}):
        assert main([*words, "--modes", "compiled", "eager", "--no-loader"]) == 0
        options = Options(network="ir_csn_50", gpus=0, precision="fp32", compile=True)
        with pytest.raises(ValueError, match="--compile: does not work here"):  # as a run would end
            make_measured(options, 3)
    printed = capsys.readouterr().out.splitlines()
    line = next(line for line in printed if line.startswith("fp32 contiguous compiled"))
    assert "left out: --compile: does not work here, InvalidCxxCompiler: No working C++ compiler" in line
    content = json.loads((tmp_path / "rows.json").read_text())
    assert [row["compiled"] for row in content["steps"]] == [False]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ["fp32 contiguous eager", "fp32 channels-last eager"]),
        ("--precision bf16", ["bf16 contiguous eager", "bf16 channels-last eager"]),
        ("--no-channels-last --compile", ["fp32 contiguous compiled"]),
        ("--channels-last True", ["fp32 channels-last eager"]),
        ("--channels-last --layouts contiguous --modes eager --compile", ["fp32 contiguous eager"]),
    ],
)
def test_flags_of_training_choose_what_is_measured(words: str, expected: list[str]) -> None:
    """The table of steps once ignored `--precision`, `--channels-last` and `--compile`."""
    arguments, rest = make_parser().parse_known_args(words.split())
    options = parse_options(CUSTOM, SMALL_OPTIONS, rest)
    measured = [str(combination) for combination in combinations(options, arguments, gpus=0)]
    assert [name for name in measured if options.precision or name.startswith("fp32")] == expected


def test_measured_steps_start_from_the_weights_that_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    named = create_network("r3d_18", 3)
    torch.save(named.state_dict(), tmp_path / "weights.pth")
    options = Options(network="r3d_18", gpus=0, precision="fp32", pretrained_3d=tmp_path / "weights.pth")
    measured = make_measured(options, 3).network.state_dict()
    assert [
        name for name, value in named.state_dict().items() if not torch.equal(value, measured[name])
    ] == []


def test_teraflops_are_three_forward_passes() -> None:
    options = Options(network="r3d_18", gpus=0)
    combination = StepConfig("fp32", channels_last=False, compiled=False)
    (row,) = time_steps(options, combination, [BatchShape(2, 4, 32)], num_classes=3, warmup=0, repeats=1)
    assert isinstance(row, StepTime)
    forward = flops_of(options, 3)(4, 32)
    assert row.teraflops * 1e12 * row.seconds == pytest.approx(2 * 3 * forward)
    assert row.gigabytes is None


def test_peak_is_that_of_this_machine_with_the_libraries_of_the_step() -> None:
    """That of bf16 on CPUs was once oneDNN's, which steps leave out."""
    for precision in ("fp32", "bf16"):
        assert 1e-4 < peak_matmul_flops(torch.device("cpu"), precision) < 10
        at_peak = torch.backends.mkldnn.enabled
        make_measured(Options(network="ir_csn_50", gpus=0, precision=precision), 3)
        assert torch.backends.mkldnn.enabled == at_peak == (precision == "fp32")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precisions", "fp8"], "invalid choice: 'fp8'"),
        (["--time-to-accuracy", "--workers", "9"], "--workers: has no effect with --time-to-accuracy"),
        (["--time-to-accuracy", "--no-loader"], "--no-loader: has no effect with --time-to-accuracy"),
        (["--race-clips", "9"], "--race-clips: has no effect without --time-to-accuracy"),
        (["--repeats", "0"], "'0' is not a whole number of at least 1"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        (["--network", "nothing"], "unknown network 'nothing'"),
        (["--dataset", "/nowhere", "--repeats", "1", "--warmup", "1", "--precisions", "fp32"], "/nowhere"),
    ],
)
def test_bad_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*SMALL, *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_motions_are_functions_of_the_request() -> None:
    motions = Motions(16, length=8, size=32, seed=1, moves=True)
    assert motions.labels == [*range(8), *range(8)]
    clips = [motions[ClipSpec(3, 2, 22, seed)].clip for seed in (1, 1, 2)]
    assert clips[0].shape == (2, 22, 22, 3)
    assert clips[0].dtype == torch.uint8
    assert torch.equal(clips[0], clips[1])
    assert not torch.equal(clips[0], clips[2])
    assert np.array_equal(Motions(16, 8, 32, 1, True).videos[3], motions.videos[3])
    assert not np.array_equal(motions.videos[3], motions.videos[11])
    middle = Motions(8, length=8, size=32, seed=1, moves=False)[ClipSpec(3, 8, 32, 9)]
    assert (middle.clip.shape, middle.label) == ((8, 32, 32, 3), 3)


def test_variants_differ_in_cycles_and_the_base_shapes_rate_is_one() -> None:
    options = Options(lr_base=0.01)
    assert variant_options(options, "none", 6).end_epoch == 6
    both = variant_options(options, "both-stage", 6)
    assert (both.long_cycles, both.short_cycles, both.long_cycle_period) == (True, True, "stage")
    assert both.end_epoch == 9
    assert both.lr_base / 8 == pytest.approx(variant_options(options, "short", 6).lr_base)


def test_race_runs_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To a target that chance reaches, so that every variant does."""
    words = [*SMALL, "--time-to-accuracy", "--race-clips", "80", "--race-epochs", "1", "--race-target", "0"]
    words += ["--race-variants", "none", "both-stage", "--json", str(tmp_path / "race.json")]
    assert main([*words, "--clip-size", "48"]) == 0
    first, second = json.loads((tmp_path / "race.json").read_text())["race"]
    assert (first["variant"], first["reached"], len(first["laps"])) == ("none", True, 1)
    assert first["laps"][0]["steps"] == 40
    assert second["laps"][0]["steps"] < 40
    assert first["laps"][0]["clips"] == second["laps"][0]["clips"] == 80
    printed = capsys.readouterr().out
    gain = first["laps"][0]["seconds"] / second["laps"][0]["seconds"]
    assert f"{gain:6.2f}" in next(line for line in printed.splitlines() if line.startswith("both-stage"))
    base = next(line.split() for line in printed.splitlines() if line.startswith("       2x4x48x48"))
    assert base[2:] == ["1.00", "1.00"]


def test_race_says_what_was_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--time-to-accuracy", "--race-clips", "16", "--race-epochs", "1", "--race-target", "1"]
    assert main([*words, "--race-variants", "none"]) == 0
    assert "not reached" in capsys.readouterr().out


def test_every_motion_is_in_the_race() -> None:
    assert set(Motions(8, 2, 32, 1, True).labels) == set(range(len(MOTIONS)))
