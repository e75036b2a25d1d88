"""Multi-temporal networks: structure, frame selection, clips of any size, and learning."""

import functools

import pytest
import torch
from torch import Tensor, nn

from network import create_network, list_networks
from network.layers import SoftPool3d
from network.mtnet import (
    MTBlock,
    MTConv,
    MTNet,
    SpatialPool2x,
    gather_frames,
    interpolate_to,
    select_static_frames,
)
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
    """A network without values, shared by tests."""
    with torch.device("meta"):
        return create_network(name, 7)


@functools.cache
def shallow(groups: int = 1, **options: bool | str) -> MTNet:
    """The smallest network with values, shared by tests."""
    return MTNet((1, 1, 1, 1), groups, 7, **options)


def modules(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", NAMES)
def test_depths_groups_and_lateral_connections(name: str) -> None:
    """In the original mtnet_xs built s and mtnet_xl built l."""
    network = on_meta(name)
    size, _, groups = name.removeprefix("mtnet_").partition("_g")
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    assert tuple(map(len, stages)) == DEPTHS[size]
    for block in modules(network, MTBlock):
        for conv in (block.conv2, block.conv3):
            assert (conv.conv_short.groups, conv.conv_long.groups) == ((7, 1) if groups else (1, 1))
            assert isinstance(conv.norm_short, nn.GroupNorm if groups else nn.BatchNorm3d)
            assert conv.lateral
        assert not getattr(block.downsample, "lateral", False)
        assert block.sr_short.cell_name == block.sr_long.cell_name == "op"


@pytest.mark.parametrize("name", ["mtnet_xs", "mtnet_s", "mtnet_xs_g8"])  # the others repeat the same blocks
def test_all_parameters_get_gradients(name: str) -> None:
    """On meta tensors, which have no values: a forward that depends on values in Python would raise."""
    network = on_meta(name)
    logits = network(torch.empty(2, 3, 4, 32, 32, device="meta"))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert [n for n, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("options", [{}, {"groups": 8}, {"pool": "soft"}])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8])
def test_any_length_and_size(length: int, options: dict) -> None:
    """T = 2 and clips of 32 x 32 raised in the original; multigrid needs both."""
    for height, width in ((16, 16), (17, 23), (32, 32), (33, 16)):
        for training in (True, False):
            logits = shallow(**options).train(training)(torch.randn(2, 3, length, height, width))
            assert logits.shape == (2, 7)
            assert logits.isfinite().all()


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected clips of shape \(B, 3, T, H, W\), got \(2, 3, 16, 16\)"):
        on_meta("mtnet_xs")(torch.empty(2, 3, 16, 16, device="meta"))


def static_frames_in_loops(clip: Tensor) -> list[int]:
    """The selection for one clip `(C, T, H, W)`."""
    means = clip.mean(dim=(2, 3))
    length = means.shape[1]

    def similarity(i: int, j: int) -> float:
        return torch.cosine_similarity(means[:, i], means[:, j], dim=0).item() ** 2

    scores = {i: (similarity(i - 1, i) + similarity(i, i + 1)) / 2 for i in range(1, length - 1)}
    return sorted(sorted(scores, key=scores.get, reverse=True)[: length // 2])


MEMORY_FORMATS = (torch.contiguous_format, torch.channels_last_3d)


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("length", range(3, 12))
def test_selected_frames(length: int, memory_format: torch.memory_format) -> None:
    x = torch.randn(4, 5, length, 3, 2).contiguous(memory_format=memory_format).requires_grad_()
    frames = [static_frames_in_loops(clip) for clip in x]
    selected = gather_frames(x, select_static_frames(x))
    for clip, source, indices in zip(selected, x, frames, strict=True):
        assert torch.equal(clip, source[:, indices])
    assert selected.is_contiguous(memory_format=memory_format)
    selected.sum().backward()
    assert [clip.any(dim=0).nonzero().flatten().tolist() for clip in x.grad.sum(dim=(3, 4))] == frames


class Reference:
    """The network in evaluation mode as the original defines it, one clip after the other.

    The original stops where one side of a map is a single pixel; here that pixel is kept by pooling.
    """

    def __init__(self, network: MTNet) -> None:
        self.network = network

    def __call__(self, clip: Tensor) -> Tensor:
        """Return the logits of a clip `(3, T, H, W)`."""
        x = self.network.stem(clip[None])
        if x.shape[3] % 2 or x.shape[4] % 2:  # both sides get a row, or column, if one is odd
            x = torch.cat([x[..., :1, :], x], dim=3)
            x = torch.cat([x[..., :1], x], dim=4)
        x = nn.functional.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        x = self.drop_frames(x, least=3)
        short, long = x[:, :56], self.drop_frames(self.halve(x[:, 56:]), least=3)
        for stage in (self.network.layer1, self.network.layer2, self.network.layer3, self.network.layer4):
            for block in stage:
                short, long = self.block(block, short, long)
        return self.network.fc(torch.cat([short.mean(dim=(2, 3, 4)), long.mean(dim=(2, 3, 4))], dim=1))[0]

    @staticmethod
    def halve(x: Tensor) -> Tensor:
        """Mean of 2 x 2 pixels; an odd side loses its last pixel, one of one pixel keeps it."""
        rows, columns = max(x.shape[3] // 2, 1), max(x.shape[4] // 2, 1)
        out = x.new_empty(*x.shape[:3], rows, columns)
        for row in range(rows):
            for column in range(columns):
                pixels = x[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                out[..., row, column] = pixels.mean(dim=(3, 4))
        return out

    @staticmethod
    def drop_frames(x: Tensor, least: int) -> Tensor:
        return x if x.shape[2] < least else x[:, :, static_frames_in_loops(x[0])]

    @staticmethod
    def resize(x: Tensor, *size: int) -> Tensor:
        return nn.functional.interpolate(x, size=size, mode="trilinear")

    def conv(self, conv: MTConv, short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        short, long = conv.conv_short(short), conv.conv_long(long)
        out_long = conv.norm_long(long)
        if conv.lateral:
            lateral = self.resize(self.drop_frames(self.halve(short), least=3), *long.shape[2:])
            out_long = out_long + conv.norm_long(conv.conv_short2long(lateral))
        return conv.norm_short(short), out_long

    def block(self, block: MTBlock, short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        out = short, long
        for conv in (block.conv1_1, block.conv1_2, block.conv2):
            out = tuple(part.relu() for part in self.conv(conv, *out))
        out = self.conv(block.conv3, *out)
        skip = short, long
        if isinstance(block.downsample, MTConv):
            if long.shape[3] < 3:  # the height alone decides
                skip = short, self.resize(long, long.shape[2], 3, 3)
            skip = self.conv(block.downsample, *skip)
        cells = block.sr_short.cell, block.sr_long.cell
        return tuple(
            (x * self.recurrent(cell, x) + self.resize(one, *x.shape[2:])).relu()
            for cell, x, one in zip(cells, out, skip, strict=True)
        )

    @staticmethod
    def recurrent(cell: nn.Module, x: Tensor) -> Tensor:
        gru = nn.GRU(x.shape[1], x.shape[1], num_layers=2, dtype=x.dtype)
        gru.load_state_dict(cell.state_dict())
        return gru(x.mean(dim=(3, 4)).permute(2, 0, 1))[0].permute(1, 2, 0)[..., None, None]


SIZES = [
    (8, 112, 149),  # one side of the stem is odd
    (8, 149, 112),
    (9, 85, 58),
    (8, 56, 112),  # the long branch gets 2 pixels high and 4 wide
    (8, 112, 40),  # 4 high and 2 wide
    (6, 64, 149),
    (5, 150, 33),
    (8, 32, 96),
    (8, 96, 16),  # maps of one column
    (4, 16, 31),
    (8, 57, 57),
]


@pytest.mark.parametrize(("length", "height", "width"), SIZES)
def test_clips_of_any_shape_are_those_of_the_definition(length: int, height: int, width: int) -> None:
    network = MTNet((1, 1, 1, 1), 1, 7).double()
    clips = torch.randn(2, 3, length, height, width, dtype=torch.float64)
    with torch.no_grad():
        network.train()(clips)  # running statistics
        network.eval()
        expected = torch.stack([Reference(network)(clip) for clip in clips])
        torch.testing.assert_close(network(clips), expected, rtol=1e-8, atol=1e-8 * expected.abs().max())


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_up_to_four_frames_leave_no_choice(length: int) -> None:
    """One or two are kept; the inner ones of three or four are, without looking at them."""
    x = torch.randn(2, 5, length, 3, 2)
    assert select_static_frames(x) is None
    assert (gather_frames(x, None) is x) == (length < 3)


def test_spatial_pool() -> None:
    """The original's pool="soft" was an identity, and its mean raised for a map of one pixel."""
    x = torch.randn(2, 3, 4, 5, 6)
    for pool in ("max", "soft"):
        assert SpatialPool2x(pool)(x).shape == (2, 3, 4, 2, 3)
        assert SpatialPool2x(pool)(x[..., :1, :]).shape == (2, 3, 4, 1, 3)
        assert SpatialPool2x(pool)(x[..., :1, :1]).shape == (2, 3, 4, 1, 1)
    window = x[0, 0, 0, :2, :2]
    torch.testing.assert_close(SpatialPool2x("max")(x)[0, 0, 0, 0, 0], window.mean())
    soft = (window * window.exp()).sum() / window.exp().sum()
    torch.testing.assert_close(SpatialPool2x("soft")(x)[0, 0, 0, 0, 0], soft)
    assert isinstance(shallow(pool="soft").pool, SoftPool3d)


def test_features_of_the_right_size_are_not_interpolated() -> None:
    """The original compared two sizes with three, and always interpolated."""
    x = torch.randn(1, 2, 3, 4, 5)
    assert interpolate_to(x, x.shape[2:]) is x


@pytest.mark.parametrize("size", [(2, 4, 5), (5, 7, 3), (6, 3, 3), (1, 1, 2)])
@pytest.mark.parametrize("target", [(1, 4, 5), (3, 7, 3), (4, 4, 4), (7, 2, 1), (1, 1, 2)])
def test_interpolation_is_trilinear(size: tuple[int, int, int], target: tuple[int, int, int]) -> None:
    """Values and gradients, in the memory format and dtype of the features, also under autocast."""
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = nn.functional.interpolate(x, size=target, mode="trilinear")
    weights = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weights).sum(), x)
    for memory_format in MEMORY_FORMATS:
        features = x.detach().contiguous(memory_format=memory_format).requires_grad_()
        out = interpolate_to(features, torch.Size(target))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        assert out.is_contiguous(memory_format=memory_format)
        (out * weights).sum().backward()
        torch.testing.assert_close(features.grad, gradient, rtol=0, atol=1e-12)
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype=dtype):
                assert interpolate_to(features.to(dtype), torch.Size(target)).dtype == dtype


@pytest.mark.parametrize("pool", ["max", "soft"])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_the_spatial_pool_keeps_the_memory_format(pool: str, memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=memory_format)
    assert SpatialPool2x(pool)(x).is_contiguous(memory_format=memory_format)


def test_the_long_branch_and_the_lateral_connection_share_a_norm() -> None:
    """As the published weights were trained: two updates per forward pass, first of the long branch."""
    conv = MTConv(16, 16)
    short, long = torch.randn(2, 14, 4, 4, 4), torch.randn(2, 2, 2, 2, 2)
    _, out = conv((short, long))
    assert (conv.norm_long.num_batches_tracked, conv.norm_short.num_batches_tracked) == (2, 1)
    pooled = SpatialPool2x("max")(conv.conv_short(short))
    lateral = conv.conv_short2long(gather_frames(pooled, select_static_frames(pooled)))
    norm = nn.BatchNorm3d(2)
    torch.testing.assert_close(out, norm(conv.conv_long(long)) + norm(lateral))
    torch.testing.assert_close(conv.norm_long.running_mean, norm.running_mean)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_gives_the_logits_of_its_clips(precision: torch.dtype) -> None:
    network = shallow().eval()
    clips = torch.randn(3, 3, 8, 40, 40)
    with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits = network(clips)
        alone = torch.cat([network(clip.unsqueeze(0)) for clip in clips])
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(logits, alone, **tolerance)


def test_zero_init_residual_starts_as_the_skip_connection() -> None:
    """The original looked for a `bn3` that no block had."""
    block = shallow(zero_init_residual=True).layer1[0].eval()
    branches = torch.rand(2, 56, 4, 8, 8), torch.rand(2, 8, 2, 4, 4)
    for out, expected in zip(block(branches), branches, strict=True):
        assert torch.equal(out, expected)


@pytest.mark.parametrize("init", ["identity", "default"])
def test_recursion_init_of_all_cells(init: str) -> None:
    cells = modules(shallow(recursion_init=init), SqueezeRecursion)
    assert len(cells) == 8
    assert all((cell.cell.bias_hh_l1 == 0).all() == (init == "identity") for cell in cells)


def test_it_learns_the_order_of_frames() -> None:
    """Eight clips, forwards or backwards."""
    start = torch.randn(4, 3, 1, 16, 16)
    ramp = torch.linspace(-1, 1, 8).view(1, 1, 8, 1, 1)
    clips = torch.cat([start * ramp + ramp, start * ramp.flip(2) + ramp.flip(2)])
    labels = torch.tensor([0] * 4 + [1] * 4)
    network = MTNet((1, 1, 1, 1), 1, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        loss = nn.functional.cross_entropy(network(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize("pool", ["max", "soft"])
def test_an_exported_convolution_has_any_batch_size(pool: str) -> None:
    """`len` of a tensor is a constant to torch.export."""
    conv = MTConv(64, 64, 3, padding=1, lateral=True, pool=pool).eval()
    branches = torch.randn(5, 56, 4, 8, 8), torch.randn(5, 8, 2, 4, 4)
    batch = torch.export.Dim("batch", min=1, max=64)
    three = tuple(branch[:3] for branch in branches)
    exported = torch.export.export(conv, (three,), dynamic_shapes=(({0: batch}, {0: batch}),)).module()
    for size in (1, 2, 5):
        part = tuple(branch[:size] for branch in branches)
        for one, other in zip(exported(part), conv(part), strict=True):
            torch.testing.assert_close(one, other)
