"""The temporal gate against a definition in loops, and squeeze and recursion around it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from network.recursion import SqueezeRecursion, cycle_consistent, soft_consistency


def return_distances(a: Tensor, b: Tensor) -> list[list[float]]:
    """For one clip `(C, T)`: squared distances from the soft nearest neighbour of each a_t to the frames of a."""
    a, b = a.double().T, b.double().T
    rows = []
    for frame in a:
        distances = torch.stack([(frame - other).square().sum() for other in b])
        nearest = sum(w * other for w, other in zip(torch.softmax(-distances, 0), b, strict=True))
        rows.append([(nearest - other).square().sum().item() for other in a])
    return rows


def consistent_in_loops(a: Tensor, b: Tensor) -> bool:
    return all(
        min(range(len(row)), key=row.__getitem__) == t
        for pair in ((a, b), (b, a))
        for t, row in enumerate(return_distances(*pair))
    )


def soft_in_loops(a: Tensor, b: Tensor) -> float:
    means = []
    for pair in ((a, b), (b, a)):
        rows = torch.tensor(return_distances(*pair), dtype=torch.float64)
        means.append(torch.softmax(-rows, 1).diagonal().mean().item())
    return math.sqrt(means[0] * means[1])


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
def test_gates_of_a_batch_match_the_definition(frames: int) -> None:
    """The original compared floats for equality, weighted the farthest frames most and never opened."""
    a = torch.randn(40, 6, frames)
    b = a + torch.rand(40, 1, 1) * torch.randn(40, 6, frames)
    before = a.clone(), b.clone()
    expected = [consistent_in_loops(*pair) for pair in zip(a, b, strict=True)]
    assert cycle_consistent(a, b).tolist() == expected
    assert all(expected) if frames == 1 else 0 < sum(expected) < 40
    soft = [soft_in_loops(*pair) for pair in zip(a, b, strict=True)]
    torch.testing.assert_close(soft_consistency(a, b), torch.tensor(soft), rtol=1e-3, atol=1e-6)
    assert torch.equal(a, before[0])  # the original wrote into its inputs
    assert torch.equal(b, before[1])


def test_gate_of_three_frames() -> None:
    """Open in the same and in reversed order; closed where the second frame returns to the first."""
    a = torch.tensor([[[0.0, 10.0, 20.0]]])
    assert cycle_consistent(a, a + 1).tolist() == [True]
    assert cycle_consistent(a, a.flip(2)).tolist() == [True]
    assert cycle_consistent(a, torch.tensor([[[0.0, 1.0, 20.0]]])).tolist() == [False]


@pytest.mark.parametrize("consistency", [cycle_consistent, soft_consistency])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gates_of_extreme_values(consistency: Callable, dtype: torch.dtype) -> None:
    """exp(distance) overflowed in the original."""
    a, b = (1e3 * torch.randn(2, 8, 32, 4)).to(dtype)
    assert not consistency(a, b).float().isnan().any()
    assert (consistency(a, a.clone()) == 1).all()


def test_gradient_of_soft_consistency() -> None:
    a, b = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in "ab")
    assert torch.autograd.gradcheck(soft_consistency, (a, b))
    extreme = (1e3 * torch.randn(2, 4, 8, 5)).requires_grad_()
    soft_consistency(*extreme).sum().backward()
    assert extreme.grad.isfinite().all()  # also where it underflows


@pytest.mark.parametrize("shape", [(4, 8), (4, 7, 5), (1, 8, 5)])
def test_sequences_of_different_shapes_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two sequences \(B, C, T\)"):
        cycle_consistent(torch.zeros(shape), torch.zeros(4, 8, 5))


def with_large_weights(module: SqueezeRecursion) -> SqueezeRecursion:
    """Random weights so large that outputs differ between frames and some clips are consistent."""
    for value in module.parameters():
        nn.init.normal_(value, std=3)
    return module


def in_loops(module: SqueezeRecursion, x: Tensor) -> tuple[Tensor, list[float]]:
    """The output and the gate values of the module, one clip at a time."""
    clips, gate_values = [], []
    for clip in x:
        pooled = clip.mean(dim=(2, 3))
        recurrent = module.cell(pooled.T.unsqueeze(1)).squeeze(1).T
        if module.gates == "soft":
            p = soft_in_loops(pooled, recurrent)
        else:
            p = float(consistent_in_loops(pooled, recurrent)) if module.gates else 1.0
        gate_values.append(p)
        clips.append(clip * (1 + p * (recurrent - 1))[:, :, None, None])
    return torch.stack(clips), gate_values


@pytest.mark.parametrize("gates", [False, True, "soft"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_squeeze_and_recursion_matches_the_definition(cell: str, gates: bool | str) -> None:
    module = with_large_weights(SqueezeRecursion(16, cell=cell, gates=gates)).double()
    x = torch.randn(128, 16, 2, 1, 3, dtype=torch.float64)
    with torch.no_grad():
        out, gate_values = module(x.clone())
        expected, expected_values = in_loops(module, x)
    torch.testing.assert_close(out, expected)
    if gates is False:
        assert gate_values is None
        return
    torch.testing.assert_close(gate_values.float(), torch.tensor(expected_values), rtol=1e-5, atol=1e-7)
    assert 0 < sum(expected_values) < 128
    if gates is True:
        assert torch.equal(out[~gate_values], x[~gate_values])  # bit for bit where the gate is closed


@pytest.mark.parametrize("gates", [False, True, "soft"])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 3), (2, 3, 1), (7, 2, 2)])
def test_any_size_and_gradients_of_all_parameters(gates: bool | str, size: tuple[int, int, int]) -> None:
    """The original pooled maps only if both sides were longer than 1, and its cells got no gradient."""
    module = SqueezeRecursion(4, gates=gates)
    x = torch.randn(3, 4, *size, requires_grad=True)
    out, gate_values = module(x)
    assert out.shape == x.shape
    out.sum().backward()
    assert [name for name, value in module.named_parameters() if value.grad is None] == []
    assert x.grad is not None
    assert gates is False or gate_values.requires_grad == (gates == "soft")


def test_identity_starts_near_one_and_default_near_zero() -> None:
    x = torch.randn(8, 64, 8, 4, 4).abs()
    for cell in ("lstm", "gru"):
        scale = {
            init: SqueezeRecursion(64, cell=cell, init=init)(x)[0].mean() / x.mean()
            for init in ("identity", "default")
        }
        assert 0.7 < scale["identity"] < 1
        assert scale["default"].abs() < 0.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recursion_has_full_precision_under_autocast(dtype: torch.dtype) -> None:
    """Half precision would open other gates."""
    module = with_large_weights(SqueezeRecursion(16, gates=True))
    x = torch.randn(128, 16, 2, 1, 3)
    expected, expected_gates = module(x)
    with torch.autocast("cpu", dtype=dtype):
        out, gate_values = module(x)
        half, _ = module(x.to(dtype))
    assert torch.equal(out, expected)
    assert torch.equal(gate_values, expected_gates)
    assert half.dtype == dtype


def test_a_module_in_half_precision_is_finite() -> None:
    module = SqueezeRecursion(6, gates="soft").to(torch.bfloat16)
    out, gate_values = module(1e3 * torch.randn(4, 6, 4, 2, 2, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    assert gate_values.isfinite().all()


@pytest.mark.parametrize("frames", [1, 4])
@pytest.mark.parametrize(("cell", "original"), [("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_both_forms_of_cells_are_those_of_torch(cell: str, original: type[nn.RNNBase], frames: int) -> None:
    expected = original(6, 6, num_layers=2).double()
    module = SqueezeRecursion(6, cell=cell).cell.double()
    module.load_state_dict(expected.state_dict())
    x = torch.randn(frames, 3, 6, dtype=torch.float64, requires_grad=True)
    outputs = [expected(x)[0], module.unrolled(x), module.fused(x)]
    gradients = [
        torch.autograd.grad(values.square().sum(), [x, *layer.parameters()])
        for values, layer in zip(outputs, (expected, module, module), strict=True)
    ]
    for form in (1, 2):
        torch.testing.assert_close(outputs[form], outputs[0])
        torch.testing.assert_close(gradients[form], gradients[0])


def test_only_replicas_flatten_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas have scattered copies of the weights; elsewhere flattening would only copy them on every step."""
    cell, calls = SqueezeRecursion(2).cell, []
    monkeypatch.setattr(cell, "flatten_parameters", lambda: calls.append("flattened"))
    x = torch.randn(2, 2, 2)
    expected = cell.fused(x)
    assert calls == []
    monkeypatch.setattr(cell, "parameters", lambda: iter(()))  # as DataParallel's replicas
    assert torch.equal(cell.fused(x), expected)
    assert calls == ["flattened"]


@pytest.mark.parametrize("allow_tf32", [True, False])
def test_cudnn_computes_cells_without_tf32_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch, allow_tf32: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allow_tf32)
    cell, seen = SqueezeRecursion(2).cell, []

    class Kernel(torch.autograd.Function):
        """Stands in for cuDNN's kernel."""

        @staticmethod
        def forward(_: object, x: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.rnn.fp32_precision)
            return x.clone()

        @staticmethod
        def backward(_: object, gradient: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.rnn.fp32_precision)
            return gradient

    monkeypatch.setattr(cell, "kernel", lambda x, *_: (Kernel.apply(x),))
    outputs = cell.fused(torch.randn(2, 2, 2, requires_grad=True))
    assert torch.backends.cudnn.allow_tf32 == allow_tf32  # can be read: convolutions have the same setting
    outputs.sum().backward()
    assert torch.backends.cudnn.allow_tf32 == allow_tf32
    assert seen == ["ieee", "ieee"]


def test_unknown_cells_are_an_error() -> None:
    with pytest.raises(ValueError, match="cell is 'rnn', and must be one of lstm, gru"):
        SqueezeRecursion(4, cell="rnn")
