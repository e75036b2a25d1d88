"""Sub-batch norm against plain BatchNorms; frozen and precise BatchNorm. (Synchronized: test_distributed.)"""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import tests.tiny_network  # noqa: F401
from network import create_network
from tests.train.ranks import run_ranks
from train.parallel.batch_norm import (
    SubBatchNorm3d,
    convert_sub_batchnorm,
    freeze_batchnorm,
    precise_running_stats,
)
from train.parallel.distributed import DistContext, init_distributed


def plain_and_converted(sub_batch_size: int) -> tuple[nn.BatchNorm3d, nn.Module]:
    torch.manual_seed(0)
    plain = nn.BatchNorm3d(3).double()
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    network = nn.Sequential(copy.deepcopy(plain))
    convert_sub_batchnorm(network, sub_batch_size)
    return plain, network[0]


@pytest.mark.parametrize(
    ("clips", "sizes"), [(16, [8, 8]), (20, [10, 10]), (26, [9, 9, 8]), (15, [15]), (3, [3])]
)
def test_each_sub_batch_has_its_own_statistics(clips: int, sizes: list[int]) -> None:
    plain, norm = plain_and_converted(8)
    x = torch.randn(clips, 3, 2, 4, 4, dtype=torch.float64)
    means, variances, expected = [], [], []
    for sub_batch in x.split(sizes):
        one = copy.deepcopy(plain)
        one.momentum = 1.0
        expected.append(one(sub_batch))
        means.append(one.running_mean)
        variances.append(one.running_var)
    assert torch.allclose(norm(x), torch.cat(expected))
    assert torch.allclose(norm.running_mean, 0.1 * torch.stack(means).mean(dim=0))
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * torch.stack(variances).mean(dim=0))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("clips", "calls"), [(8, 1), (11, 2)])
def test_sub_batches_are_one_call_of_one_graph_with_their_own_gradients(
    clips: int, calls: int, memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call per sub-batch took 19 times as long as plain BatchNorm for 192 of them; other sizes need a second call."""
    plain, norm = plain_and_converted(2)
    plain_calls, batch_norm = [], torch.nn.functional.batch_norm
    x = torch.randn(clips, 3, 2, 4, 4, dtype=torch.float64)
    x = x.contiguous(memory_format=memory_format).requires_grad_()
    with monkeypatch.context() as patch:
        count = lambda *args: plain_calls.append(1) or batch_norm(*args)  # noqa: E731
        patch.setattr(torch.nn.functional, "batch_norm", count)
        y = norm(x)
    (y**3).sum().backward()
    found, x.grad = x.grad, None
    assert len(plain_calls) == calls
    assert y.is_contiguous(memory_format=memory_format)
    assert found.is_contiguous(memory_format=memory_format)
    sum((copy.deepcopy(plain)(part) ** 3).sum() for part in x.tensor_split(clips // 2)).backward()
    assert torch.allclose(found, x.grad)
    compiled = torch.compile(norm, fullgraph=True, dynamic=False, backend="eager")
    assert torch.equal(compiled(x), y)


def test_weights_and_evaluation_are_those_of_plain_batchnorm() -> None:
    plain, converted = create_network("tiny", 3), create_network("tiny", 3)
    count = sum(isinstance(module, nn.BatchNorm3d) for module in plain.modules())
    convert_sub_batchnorm(converted, 2)
    assert sum(isinstance(module, SubBatchNorm3d) for module in converted.modules()) == count > 0
    clips = torch.randn(8, 3, 4, 32, 32)
    converted(clips)
    plain.load_state_dict(converted.state_dict())
    assert torch.equal(plain.eval()(clips), converted.eval()(clips))


def test_frozen_batchnorm_uses_and_keeps_the_running_statistics() -> None:
    network = create_network("tiny", 3)
    before = copy.deepcopy(network.state_dict())
    clips = torch.randn(4, 3, 4, 32, 32)
    expected = network.eval()(clips)
    freeze_batchnorm(network.train())
    assert torch.equal(network(clips), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def batches_of(sizes: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    # batches of different means, as the clips of a small batch have
    return [torch.randn(size, 3, 2, 4, 4, generator=generator) + size for size in sizes]


def precise(norm: nn.BatchNorm3d, batches: list[torch.Tensor], dist: DistContext) -> nn.BatchNorm3d:
    network = nn.Sequential(norm).train()
    with torch.no_grad(), precise_running_stats(network, dist):
        for batch in batches:
            network(batch)
    return norm


def test_precise_statistics_are_those_of_all_clips_together() -> None:
    """Running averages forget early batches and have no variance between batches: 0.9**10 of the first is left."""
    batches = batches_of([2, 8, 5, 3])
    norm = precise(nn.BatchNorm3d(3), batches, DistContext())
    clips = torch.cat(batches).double()
    var, mean = torch.var_mean(clips, dim=(0, 2, 3, 4))
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), var, rtol=0.02, atol=0)  # within a batch: unbiased
    assert (norm.momentum, norm.num_batches_tracked) == (0.1, 0)


def test_precise_statistics_are_summed_over_ranks(tmp_path: Path) -> None:
    """Of three ranks one has no batch and the others have different numbers of clips."""
    batches = batches_of([2, 8, 5, 3])
    shards = [batches[:3], batches[3:], []]

    def take_statistics(rank: int) -> None:
        norm = precise(nn.BatchNorm3d(3), shards[rank], init_distributed())
        torch.save(norm.state_dict(), tmp_path / f"{rank}.pth")

    assert [exit_code for exit_code, _ in run_ranks(3, tmp_path, take_statistics)] == [0, 0, 0]
    expected = precise(nn.BatchNorm3d(3), batches, DistContext()).state_dict()
    for rank in range(3):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pth"), expected)


def test_an_error_leaves_the_statistics_as_they_were() -> None:
    norm = nn.BatchNorm3d(3)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(ValueError, match="channels|channel|input"):
        precise(norm, [torch.randn(4, 3, 2, 4, 4), torch.randn(4, 3, 2)], DistContext())
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert norm.momentum == 0.1
