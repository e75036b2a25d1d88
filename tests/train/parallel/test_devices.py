"""Choosing devices, and errors for lack of memory or a compiler."""

import gc
import os
import weakref
from contextlib import suppress

import pytest
import torch

from train.parallel.devices import (
    NoCompilerError,
    check_compiler,
    choose_device,
    configure_backends,
    default_precision,
    oom_as,
    peak_memory,
)
from train.parallel.distributed import DistContext


def num_gpus(requested: int | None, batch_size: int = 64) -> int:
    return choose_device(requested, DistContext(), batch_size)[1]


def test_gpus_are_all_or_as_many_as_requested(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [num_gpus(requested) for requested in (None, 0, 1, 2)] == [2, 0, 1, 2]
    with pytest.raises(ValueError, match="--gpus 3: this machine has 2"):
        num_gpus(3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert [num_gpus(requested) for requested in (None, 0, 4)] == [0, 0, 0]
    assert "--gpus 4: no GPU found, running on the CPU" in caplog.text


def test_by_default_each_gpu_gets_eight_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm of two clips on each of four GPUs did not learn."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [num_gpus(None, batch) for batch in (1, 8, 16, 32, 64)] == [1, 1, 2, 4, 4]
    assert choose_device(4, DistContext(), 8) == (torch.device("cuda", 0), 4)


def test_a_rank_uses_the_only_gpu_that_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where SLURM gives each task its own."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    dist = DistContext(rank=3, world_size=4, local_rank=3, local_world_size=4, launched=True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ValueError, match="4 ranks were started, but this machine has 1 GPUs"):
        choose_device(None, dist)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert choose_device(None, dist) == (torch.device("cuda", 0), 1)


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16"), (False, "fp16")])
def test_default_precision(has_bf16: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that only emulates bf16 is slower in it."""
    supported = lambda including_emulation: has_bf16 or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert [default_precision(gpus) for gpus in (0, 1, 4)] == ["fp32", precision, precision]


def test_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("\nInvalidCxxCompiler: No working C++ compiler found\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", fail)
    reason = (
        "--compile: does not work on this machine: InvalidCxxCompiler: No working C\\+\\+ compiler found$"
    )
    with pytest.raises(NoCompilerError, match=reason):
        check_compiler(torch.device("cpu"))


def test_deterministic_kernels_are_for_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    configure_backends(torch.device("cuda"), "fp32", deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    configure_backends(torch.device("cuda"), "fp32", deterministic=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    configure_backends(torch.device("cuda"), "fp32")
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.benchmark
    configure_backends(torch.device("cpu"), "fp32")


def test_peak_memory_of_the_cpu_is_in_bytes() -> None:
    before = peak_memory(torch.device("cpu"))
    block = torch.ones(1 << 28, dtype=torch.uint8)
    assert before // 2 + len(block) // 2 < peak_memory(torch.device("cpu")) < before + 4 * len(block)


def test_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(OSError, match="too much"), oom_as(OSError, "too much"):
        torch.empty(2**60)
    with pytest.raises(OSError, match="too much"), oom_as(OSError, "too much"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(OSError, match="too much"), oom_as(OSError, "too much"):
        raise torch.AcceleratorError("CUDA error: out of memory")  # of a GPU that another process has filled
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), oom_as(OSError, "too much"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_out_of_memory_keeps_no_tensors() -> None:
    """Else the benchmark's next config would not have the memory either."""

    def fail() -> None:
        large = torch.zeros(8)
        references.append(weakref.ref(large))
        with oom_as(OSError, "too much"):
            raise torch.OutOfMemoryError("CUDA out of memory")

    references: list[weakref.ref[torch.Tensor]] = []
    gc.disable()
    try:
        with suppress(OSError):
            fail()
        assert references[0]() is None
    finally:
        gc.enable()
