"""Counting and timing networks."""

import json
from pathlib import Path

import pytest
import torch

from network import create_network
from network.benchmark import measure_latency
from network.flops import count_flops, count_parameters
from tests.commands import main_of

main = main_of("network.benchmark")


@pytest.mark.parametrize(("name", "gflops"), [("r3d_50", 53.16), ("r3d_101", 78.52), ("r2plus1d_50", 50.04)])
def test_operations_are_those_of_the_papers(name: str, gflops: float) -> None:
    assert count_flops(name, 400, 16, 224) / 1e9 == pytest.approx(gflops, rel=0.02)


def test_recurrent_cells_count() -> None:
    """Two layers, four gates, two products each of C x C, for every frame: 32 C^2 T."""
    extra = count_flops("srtg_r3d_18", 8, 16, 64) - count_flops("r3d_18", 8, 16, 64)
    frames = {64: 8, 128: 4, 256: 2, 512: 1}
    assert extra == sum(2 * 32 * channels**2 * length for channels, length in frames.items())


def test_parameters_are_counted_without_weights() -> None:
    assert count_parameters("r3d_18", 8) == sum(p.numel() for p in create_network("r3d_18", 8).parameters())


def test_rows_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--network",
        "r3d_18",
        "i?_csn_50",
        "--size",
        "32",
        "--length",
        "2",
        "--batch",
        "2",
        "--repeats",
        "2",
    ]
    assert (
        main(
            [
                *words,
                "--warmup",
                "1",
                "--channels-last",
                "--precision",
                "bf16",
                "--json",
                str(tmp_path / "x.json"),
            ]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["r3d_18", "ip_csn_50", "ir_csn_50"]
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["flops_per_multiply_add"] == 2
    assert all(0 < row["forward"]["median"] < row["backward"]["median"] for row in content["rows"])


def test_counting_alone_needs_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--network", "wide_r3d101_2", "--no-latency"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[:2] == ["wide_r3d101_2", "265.76"]
    assert len(row) == 3


def test_function_of_its_own() -> None:
    forward, backward = measure_latency(
        create_network("ir_csn_50", 4), torch.randn(2, 3, 2, 32, 32), repeats=2
    )
    assert 0 < forward.median < backward.median


def test_what_cannot_be_measured_is_left_out_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One value a channel, which norms refuse, was a traceback, and the networks after it were not measured."""
    small = ["--size", "16", "--length", "1", "--warmup", "1", "--repeats", "1"]
    assert main(["--network", "r3d_18", "mtnet_xs", *small, "--json", str(tmp_path / "rows.json")]) == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["r3d_18", "mtnet_xs"]
    assert all(" left out: ValueError, Expected more than 1 value" in line for line in lines)
    content = json.loads((tmp_path / "rows.json").read_text())
    assert (content["rows"], list(content["left_out"])) == ([], ["r3d_18", "mtnet_xs"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "nothing"], "no network is called 'nothing'"),
        (["--network", "r3d_18", "r3d_43"], "no network is called 'r3d_43'"),  # only the other was measured
        (["--no-such\x1b[2J\nflag"], r"unrecognized arguments: --no-such\x1b[2J\nflag"),
        (["--batch", "0"], "--batch: '0' is not a whole number of at least 1"),
        (["--size", "²"], "--size: '²' is not a whole number"),
        (["--precision", "fp8"], "invalid choice: 'fp8'"),
        (["--json", "/"], "--json: Is a directory, '/'"),
    ],
)
def test_bad_arguments_are_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
