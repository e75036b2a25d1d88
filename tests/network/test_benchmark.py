"""Parameters, FLOPs and latencies of networks."""

import json
from pathlib import Path

import pytest
import torch

from network import create_network
from network.flops import count_flops, count_parameters
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny
from tests.commands import error_of, main_of

main = main_of("network.benchmark")
SMALL = ["--size", "32", "--length", "2", "--batch", "2", "--warmup", "1", "--repeats", "2"]


@pytest.mark.parametrize(("name", "gflops"), [("r3d_50", 53.16), ("r3d_101", 78.52), ("r2plus1d_50", 50.04)])
def test_flops_are_those_of_the_papers(name: str, gflops: float) -> None:
    assert count_flops(name, 400, 16, 224) / 1e9 == pytest.approx(gflops, rel=0.02)


def test_flops_without_pooling_after_the_stem() -> None:
    """As in the original's table of before November 2020."""
    assert count_flops("srtg_r3d_34", 400, 16, 224, stem_pool=False) / 1e9 == pytest.approx(603, abs=1)


def test_flops_of_recurrent_cells() -> None:
    """Two layers, four gates, two products each of C x C, for every frame: 32 C^2 T."""
    extra = count_flops("srtg_r3d_18", 8, 16, 64) - count_flops("r3d_18", 8, 16, 64)
    frames = {64: 8, 128: 4, 256: 2, 512: 1}
    assert extra == sum(2 * 32 * channels**2 * length for channels, length in frames.items())


def test_parameters() -> None:
    network = create_network("srtg_tiny", 8)
    assert count_parameters("srtg_tiny", 8) == sum(value.numel() for value in network.parameters())


@pytest.fixture(autouse=True)
def _flags_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what a benchmark sets for the process."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.json"
    options = ["--channels-last", "--precision", "bf16", "--json", str(path)]
    assert main(["--network", "tiny", "*tin?", *SMALL, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("2x2x32x32, bf16")
    assert [line.split()[0] for line in lines[2:]] == ["tiny", "srtg_tiny"]
    content = json.loads(path.read_text())
    assert (content["flops_per_multiply_add"], content["batch"], content["failed"]) == (2, 2, {})
    for row in content["rows"]:
        assert 0 < row["forward_ms"]["median"] < row["forward_backward_ms"]["median"]
        assert row["forward_ms"]["iqr"] >= 0
    assert not torch.backends.mkldnn.enabled  # as in training: its bf16 gradients are wrong on some CPUs


def test_kernels_and_graphs_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right kernels for a shape are several times as fast as the default ones."""
    settings = []
    monkeypatch.setattr("network.benchmark.configure_backends", lambda *found: settings.append(found))
    monkeypatch.setattr("network.benchmark.compile_network", lambda network: settings.append("compiled"))
    assert main(["--network", "tiny", *SMALL, "--compile"]) == 0
    assert settings == [(torch.device("cpu"), "fp32"), "compiled"]


def test_no_latency_needs_no_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--network", "wide_r3d101_2", "--no-latency"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:2] == ["wide_r3d101_2", "265.76"]


def test_a_network_that_fails_is_reported_and_the_others_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One value per channel, which BatchNorm rejects in train mode."""
    words = ["--network", "tiny", "srtg_tiny", *SMALL, "--size", "16", "--length", "1", "--batch", "1"]
    assert main([*words, "--json", str(tmp_path / "rows.json")]) == 1
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["tiny", "srtg_tiny"]
    assert all(" failed: ValueError: Expected more than 1 value" in line for line in lines)
    content = json.loads((tmp_path / "rows.json").read_text())
    assert (content["rows"], list(content["failed"])) == ([], ["tiny", "srtg_tiny"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "tiny", "r3d_43"], "no network matches r3d_43"),
        (["--batch", "0"], "--batch: '0' is not a whole number of at least 1"),
        (["--precision", "fp8"], "invalid choice: 'fp8'"),
        (["--json", "/"], "argument --json: /"),
    ],
)
def test_wrong_arguments_are_one_line(words: list[str], message: str) -> None:
    assert message in error_of(main, *words)
