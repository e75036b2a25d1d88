"""The cyclic gate against loops, and squeeze and recursion around it."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from network.recursion import SqueezeRecursion, cycle_consistent, soft_consistency


def return_distances(a: Tensor, b: Tensor) -> list[list[float]]:
    """For one clip `(C, T)`, frame by frame: squared distances from each s_t to the frames of a."""
    a, b = a.double().T, b.double().T
    rows = []
    for frame in a:
        distances = torch.stack([(frame - other).square().sum() for other in b])
        nearest = sum(w * other for w, other in zip(torch.softmax(-distances, 0), b, strict=True))
        rows.append([(nearest - other).square().sum().item() for other in a])
    return rows


def consistent_by_hand(a: Tensor, b: Tensor) -> bool:
    return all(
        min(range(len(row)), key=row.__getitem__) == t
        for first, second in ((a, b), (b, a))
        for t, row in enumerate(return_distances(first, second))
    )


def soft_by_hand(a: Tensor, b: Tensor) -> float:
    means = []
    for first, second in ((a, b), (b, a)):
        rows = return_distances(first, second)
        returned = [
            torch.softmax(-torch.tensor(row, dtype=torch.float64), 0)[t].item() for t, row in enumerate(rows)
        ]
        means.append(sum(returned) / len(returned))
    return math.sqrt(means[0] * means[1])


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
def test_gate_of_a_batch_is_the_definition_clip_by_clip(frames: int) -> None:
    """The original compared floats for equality, weighted the farthest frames most and never opened."""
    a = torch.randn(40, 6, frames)
    b = a + torch.rand(40, 1, 1) * torch.randn(40, 6, frames)
    expected = [consistent_by_hand(*pair) for pair in zip(a, b, strict=True)]
    assert cycle_consistent(a, b).tolist() == expected
    assert all(expected) if frames == 1 else 0 < sum(expected) < 40
    soft = [soft_by_hand(*pair) for pair in zip(a, b, strict=True)]
    torch.testing.assert_close(soft_consistency(a, b), torch.tensor(soft), rtol=1e-3, atol=1e-6)


def test_gate_of_three_frames() -> None:
    """Opens in order, and reversed too; shuts where the second frame comes back to the first."""
    a = torch.tensor([[[0.0, 10.0, 20.0]]])
    merged = torch.tensor([[[0.0, 1.0, 20.0]]])
    assert cycle_consistent(a, a + 1).tolist() == [True]
    assert cycle_consistent(a, a.flip(2)).tolist() == [True]
    assert cycle_consistent(a, merged).tolist() == [False]


def test_identical_sequences_open_the_gate() -> None:
    """The original set its result to zero whatever the sequences were."""
    a = 5 * torch.randn(4, 16, 8)
    assert cycle_consistent(a, a.clone()).all()
    assert (soft_consistency(a, a.clone()) > 0.99).all()


@pytest.mark.parametrize("consistency", [cycle_consistent, soft_consistency])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gate_of_extreme_values(consistency: Callable, dtype: torch.dtype) -> None:
    """exp(distance) overflowed in the original."""
    a, b = (1e3 * torch.randn(2, 8, 32, 4)).to(dtype)
    assert not consistency(a, b).float().isnan().any()
    assert (consistency(a, a) == 1).all()


def test_soft_consistency_has_a_finite_gradient_where_it_underflows() -> None:
    sequences = (1e3 * torch.randn(2, 4, 8, 5)).requires_grad_()
    soft_consistency(*sequences).sum().backward()
    assert sequences.grad.isfinite().all()


def test_soft_consistency_gradient() -> None:
    a, b = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in "ab")
    assert torch.autograd.gradcheck(soft_consistency, (a, b))


def test_gates_do_not_write_to_their_inputs() -> None:
    """The original scattered into the pooled and recurrent sequences."""
    a, b = torch.randn(2, 4, 8, 5)
    before = a.clone(), b.clone()
    cycle_consistent(a, b)
    soft_consistency(a, b)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.parametrize("shape", [(4, 8), (4, 7, 5), (1, 8, 5)])
def test_sequences_of_different_shapes_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two sequences \(B, C, T\)"):
        cycle_consistent(torch.zeros(shape), torch.zeros(4, 8, 5))


def follow_input(module: SqueezeRecursion) -> SqueezeRecursion:
    """Random weights so large that outputs differ between frames and some clips are consistent."""
    for value in module.parameters():
        nn.init.normal_(value, std=3)
    return module


def by_hand(module: SqueezeRecursion, x: Tensor) -> tuple[Tensor, list[float]]:
    """What the module should do, for each clip by itself."""
    clips, openings = [], []
    for clip in x:
        pooled = clip.mean(dim=(2, 3))
        recurrent = module.cell(pooled.T.unsqueeze(1))[0].squeeze(1).T
        if module.gates == "soft":
            p = soft_by_hand(pooled, recurrent)
        else:
            p = float(consistent_by_hand(pooled, recurrent)) if module.gates else 1.0
        openings.append(p)
        clips.append(clip * (1 + p * (recurrent - 1))[:, :, None, None])
    return torch.stack(clips), openings


@pytest.mark.parametrize("gates", [False, True, "soft"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_squeeze_and_recursion_is_the_definition(cell: str, gates: bool | str) -> None:
    module = follow_input(SqueezeRecursion(16, cell=cell, gates=gates)).double()
    x = torch.randn(128, 16, 2, 1, 3, dtype=torch.float64)
    before = x.clone()
    with torch.no_grad():
        out, opening = module(x)
        expected, openings = by_hand(module, x)
    torch.testing.assert_close(out, expected)
    assert torch.equal(x, before)
    if gates is False:
        assert opening is None
    else:
        torch.testing.assert_close(opening.float(), torch.tensor(openings), rtol=1e-5, atol=1e-7)
        assert 0 < sum(openings) < 128  # some clips open, some shut


def test_shut_clips_pass_unchanged() -> None:
    module = follow_input(SqueezeRecursion(16, gates=True))
    x = torch.randn(128, 16, 2, 1, 3)
    out, opening = module(x)
    assert 0 < opening.sum() < 128
    assert torch.equal(out[~opening], x[~opening])
    assert (out[opening] != x[opening]).any(dim=(1, 2, 3, 4)).all()


@pytest.mark.parametrize("gates", [False, True, "soft"])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 3), (2, 3, 1), (7, 2, 2)])
def test_any_size_and_every_parameter_learns(gates: bool | str, size: tuple[int, int, int]) -> None:
    """The original pooled maps only if both sides were longer than 1, and its cells got no gradient."""
    module = SqueezeRecursion(4, gates=gates)
    x = torch.randn(3, 4, *size, requires_grad=True)
    out, _ = module(x)
    assert out.shape == x.shape
    out.sum().backward()
    assert [name for name, value in module.named_parameters() if value.grad is None] == []
    assert x.grad is not None


def test_the_strict_decision_has_no_gradient_and_the_soft_one_has() -> None:
    x = torch.randn(4, 4, 3, 2, 2, requires_grad=True)
    _, strict = SqueezeRecursion(4, gates=True)(x)
    _, soft = SqueezeRecursion(4, gates="soft")(x)
    assert (strict.requires_grad, soft.requires_grad) == (False, True)


def test_identity_starts_near_one_and_default_near_zero() -> None:
    x = torch.randn(8, 64, 8, 4, 4).abs()
    for cell in ("lstm", "gru"):
        ratio = {
            init: SqueezeRecursion(64, cell=cell, init=init)(x)[0].mean() / x.mean()
            for init in ("identity", "default")
        }
        assert 0.7 < ratio["identity"] < 1
        assert ratio["default"].abs() < 0.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_recursion_is_exact_under_autocast(dtype: torch.dtype) -> None:
    """Cells and decisions keep full precision: half precision would open other gates."""
    module = follow_input(SqueezeRecursion(16, gates=True))
    x = torch.randn(128, 16, 2, 1, 3)
    expected, opening = module(x)
    with torch.autocast("cpu", dtype=dtype):
        out, autocast_opening = module(x)
        half, _ = module(x.to(dtype))
    assert torch.equal(out, expected)
    assert torch.equal(autocast_opening, opening)
    assert half.dtype == dtype


def test_a_module_in_half_precision_survives_extremes() -> None:
    module = SqueezeRecursion(6, gates="soft").to(torch.bfloat16)
    out, opening = module(1e3 * torch.randn(4, 6, 4, 2, 2, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    assert opening.isfinite().all()


def test_only_replicas_flatten_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scattered weights cost memory in each replica; weights in one piece need no copy in each step."""
    module = SqueezeRecursion(2)
    calls = []
    monkeypatch.setattr(nn.LSTM, "flatten_parameters", lambda cell: calls.append(id(cell)))
    x = torch.randn(2, 2, 2, 2, 2)
    module(x)
    assert calls == []
    replica = module._replicate_for_data_parallel()
    replica.lstm = copy.copy(module.lstm)
    replica(x)
    assert calls == [id(replica.lstm)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gates": "hard"}, "gates is 'hard', and must be False, True or 'soft'"),
        ({"gates": "True"}, "gates is 'True'"),
        ({"init": "zero"}, "recursion_init is 'zero', and must be 'identity' or 'default'"),
        ({"cell": "rnn"}, "cell is 'rnn', and must be one of lstm, gru"),
    ],
)
def test_wrong_options_are_errors(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SqueezeRecursion(4, **options)
