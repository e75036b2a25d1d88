"""The multi-temporal networks: what they are made of, any length and size, what they choose and how they learn."""

import functools
import itertools

import pytest
import torch
from torch import Tensor, nn

from network import create_network, list_networks
from network.layers import SoftPool3d
from network.mtnet import MTBlock, MTConv, MTNet, SpatialPool2x, gather_frames, resized, select_static_frames
from network.recursion import SqueezeRecursion

NAMES = list_networks("mtnet_*")
DEPTHS = {
    "xs": (2, 2, 2, 2),
    "s": (2, 2, 5, 3),
    "m": (3, 4, 6, 3),
    "l": (3, 4, 23, 3),
    "xl": (3, 8, 36, 3),
    "xxl": (3, 24, 36, 3),
}


@functools.cache
def on_meta(name: str) -> MTNet:
    """A network with shapes and without values, shared by tests."""
    with torch.device("meta"):
        return create_network(name, 7)


def modules(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", NAMES)
def test_depths_and_groups(name: str) -> None:
    """In the original mtnet_xs built s and mtnet_xl built l."""
    network = on_meta(name)
    size, _, groups = name.removeprefix("mtnet_").partition("_g")
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    assert tuple(map(len, stages)) == DEPTHS[size]
    for block in modules(network, MTBlock):
        for conv in (block.conv2, block.conv3):
            assert (conv.conv_short.groups, conv.conv_long.groups) == ((7, 1) if groups else (1, 1))
            assert isinstance(conv.norm_short, nn.GroupNorm if groups else nn.BatchNorm3d)
        assert [cell.cell_name for cell in (block.sr_short, block.sr_long)] == ["op", "op"]


@pytest.mark.parametrize("name", [name for name in NAMES if "xl" not in name])
def test_every_network_gives_logits_and_every_parameter_learns(name: str) -> None:
    """On meta tensors, which know no values: a forward that asked for one in Python would raise."""
    network = on_meta(name)
    logits = network(torch.empty(2, 3, 4, 32, 32, device="meta"))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert [n for n, value in network.named_parameters() if value.grad is None] == []


@functools.cache
def small(**options: bool | int | str) -> MTNet:
    """The shallowest network, with values; shared by tests."""
    return MTNet((1, 1, 1, 1), 7, **options)


@pytest.mark.parametrize("options", [{}, {"groups": 8}, {"pool": "soft"}])
@pytest.mark.parametrize("length", range(1, 10))
def test_any_length_and_size(length: int, options: dict) -> None:
    """T = 2 and clips of 32 x 32 raised in the original; multigrid needs both."""
    network = small(**options)
    for (height, width), mode in itertools.product([(16, 16), (17, 23), (32, 32), (33, 16)], (True, False)):
        logits = network.train(mode)(torch.randn(2, 3, length, height, width))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected clips of shape \(B, 3, T, H, W\), got \(2, 3, 16, 16\)"):
        on_meta("mtnet_xs")(torch.empty(2, 3, 16, 16, device="meta"))


def frames_by_hand(clip: Tensor) -> list[int]:
    """The choice for one clip `(C, T, H, W)`, a frame at a time."""
    means = clip.mean(dim=(2, 3))
    length = means.shape[1]

    def likeness(i: int, j: int) -> float:
        return torch.cosine_similarity(means[:, i], means[:, j], dim=0).item() ** 2

    scores = {i: (likeness(i - 1, i) + likeness(i, i + 1)) / 2 for i in range(1, length - 1)}
    return sorted(sorted(scores, key=scores.get, reverse=True)[: length // 2])


@pytest.mark.parametrize("length", range(3, 12))
def test_frames_that_are_kept(length: int) -> None:
    x = torch.randn(4, 5, length, 3, 2)
    frames = select_static_frames(x)
    assert frames.tolist() == [frames_by_hand(clip) for clip in x]
    taken = gather_frames(x, frames)
    for clip, expected, chosen in zip(taken, x, frames, strict=True):
        assert torch.equal(clip, expected[:, chosen])


@pytest.mark.parametrize("length", [1, 2])
def test_one_frame_or_two_stay(length: int) -> None:
    x = torch.randn(2, 5, length, 3, 2)
    assert select_static_frames(x) is None
    assert gather_frames(x, None) is x


def test_a_still_is_kept_of_a_moving_clip() -> None:
    """Frames 2 to 4 of seven are alike: the choice is the middle of what stands still, and never an end."""
    x = torch.randn(1, 16, 7, 1, 1)
    x[:, :, 3:5] = x[:, :, 2:3]
    assert 3 in select_static_frames(x)[0]
    assert not {0, 6} & set(select_static_frames(x)[0].tolist())


def test_gradient_reaches_the_frames_that_are_kept_alone() -> None:
    x = torch.randn(1, 4, 6, 2, 2, requires_grad=True)
    frames = select_static_frames(x)
    gather_frames(x, frames).sum().backward()
    moved = x.grad.abs().sum(dim=(0, 1, 3, 4)) > 0
    assert moved.nonzero().flatten().tolist() == frames[0].tolist()


def test_pixels_are_halved() -> None:
    """The original's pool="soft" was an identity, and its mean raised for a map of one pixel."""
    x = torch.randn(2, 3, 4, 5, 6)
    for pool in ("max", "soft"):
        halved = SpatialPool2x(pool)(x)
        assert halved.shape == (2, 3, 4, 2, 3)
        assert SpatialPool2x(pool)(x[..., :1, :]).shape == (2, 3, 4, 1, 3)
        assert SpatialPool2x(pool)(x[..., :1, :1]).shape == (2, 3, 4, 1, 1)
    window = x[0, 0, 0, :2, :2]
    torch.testing.assert_close(SpatialPool2x("max")(x)[0, 0, 0, 0, 0], window.mean())
    torch.testing.assert_close(
        SpatialPool2x("soft")(x)[0, 0, 0, 0, 0], (window * window.exp()).sum() / window.exp().sum()
    )
    assert isinstance(small(pool="soft").pool, SoftPool3d)


def test_what_has_its_size_already_is_not_resampled() -> None:
    """The original compared two sizes with three, and always interpolated."""
    x = torch.randn(1, 2, 3, 4, 5)
    assert resized(x, x.shape[2:]) is x
    assert resized(x, torch.Size((2, 2, 2))).shape[2:] == (2, 2, 2)


def test_the_long_norm_sees_its_own_and_the_lateral_features() -> None:
    """As the published weights were trained: two passes a forward through one norm, the own one first."""
    conv = MTConv(16, 16)
    short, long = torch.randn(2, 14, 4, 4, 4), torch.randn(2, 2, 2, 2, 2)
    _, out = conv((short, long))
    assert (conv.norm_long.num_batches_tracked, conv.norm_short.num_batches_tracked) == (2, 1)
    made = conv.conv_short(short)
    halved = SpatialPool2x("max")(made)
    lateral = conv.conv_short2long(gather_frames(halved, select_static_frames(halved)))
    assert lateral.shape == out.shape
    norm = nn.BatchNorm3d(2)
    expected = norm(conv.conv_long(long)) + norm(lateral)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(conv.norm_long.running_mean, norm.running_mean)


def test_skip_connections_have_no_lateral() -> None:
    skips = [block.downsample for block in modules(on_meta("mtnet_xs"), MTBlock)]
    assert [skip.lateral for skip in skips if isinstance(skip, MTConv)] == [False] * 3
    assert all(block.conv3.lateral for block in modules(on_meta("mtnet_xs"), MTBlock))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_equals_its_clips(precision: torch.dtype) -> None:
    network = small().eval()
    clips = torch.randn(3, 3, 8, 40, 40)
    before = clips.clone()
    with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = network(clips)
        alone = torch.cat([network(clip.unsqueeze(0)) for clip in clips])
    assert torch.equal(clips, before)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(logits, alone, **tolerance)


def test_zero_init_residual_starts_with_the_skip_connection() -> None:
    """The original looked for a `bn3` that no block had."""
    block = MTNet((1, 1, 1, 1), 7, zero_init_residual=True).layer1[0].eval()
    branches = torch.rand(2, 56, 4, 8, 8), torch.rand(2, 8, 2, 4, 4)
    for out, expected in zip(block(branches), branches, strict=True):
        assert torch.equal(out, expected)


def test_recursion_init_reaches_the_cells() -> None:
    for init in ("identity", "default"):
        cells = modules(MTNet((1, 1, 1, 1), 7, recursion_init=init), SqueezeRecursion)
        assert len(cells) == 8
        assert all((cell.cell.bias_hh_l1 == 0).all() == (init == "identity") for cell in cells)


def test_only_recurrent_cells_break_the_compiled_graph() -> None:
    network, clips = small().eval(), torch.randn(2, 3, 8, 32, 32)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        assert torch._dynamo.explain(network)(clips).graph_break_count == 0
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager")
    torch.testing.assert_close(compiled(clips), network(clips))


def test_it_learns() -> None:
    """Eight clips that differ by the order of their frames alone: forwards or backwards."""
    torch.manual_seed(1)
    start = torch.randn(4, 3, 1, 32, 32)
    ramp = torch.linspace(-1, 1, 8).view(1, 1, 8, 1, 1)
    clips = torch.cat([start * ramp + ramp, start * ramp.flip(2) + ramp.flip(2)])
    labels = torch.tensor([0] * 4 + [1] * 4)
    network = MTNet((1, 1, 1, 1), 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize("pool", ["max", "soft"])
def test_a_convolution_can_be_exported_for_batches_of_any_size(pool: str) -> None:
    """`len` of a tensor is a constant to torch.export."""
    convolution = MTConv(64, 64, 3, padding=1, lateral=True, pool=pool).eval()
    short, long = torch.randn(5, 56, 4, 8, 8), torch.randn(5, 8, 2, 4, 4)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(
        convolution, ((short[:3], long[:3]),), dynamic_shapes=(({0: batch}, {0: batch}),)
    )
    for size in (1, 2, 5):
        branches = short[:size], long[:size]
        for one, other in zip(exported.module()(branches), convolution(branches), strict=True):
            torch.testing.assert_close(one, other)
