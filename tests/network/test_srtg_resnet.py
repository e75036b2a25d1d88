"""Blocks and whole networks: on the meta device, which has shapes only, wherever values do not matter."""

import functools

import pytest
import torch
from torch import Tensor, nn

from network import create_network, list_networks, network_options
from network.blocks import BasicBlock, Block, Bottleneck
from network.layers import Conv2Plus1D, Conv3D, DepthwiseConv3D, SoftPool3d, Stem3D
from network.recursion import SqueezeRecursion
from network.srtg_resnet import VideoResNet

RESNETS = [name for name in list_networks() if not name.startswith("mtnet")]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BLOCKS[200] = (3, 24, 36, 3)
PLACES = [(BasicBlock, place) for place in ("top", "mid", "skip", "final")] + [
    (Bottleneck, place) for place in ("start", "top", "mid", "end", "skip", "final")
]


@functools.cache
def on_meta(name: str, **options: bool | str) -> VideoResNet:
    """A network with shapes and without values, shared by tests."""
    with torch.device("meta"):
        return create_network(name, 7, **options)


def modules(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@functools.cache
def small(name: str, **options: bool | str) -> VideoResNet:
    """A network with values; its state is shared by tests."""
    return create_network(name, 7, **options)


LEARNING = [name for name in RESNETS if "50" in name or name.endswith("18")]
OTHERS = [name for name in RESNETS if name not in LEARNING and not name.endswith(("152", "200"))]


@pytest.mark.parametrize("name", OTHERS)
def test_every_network_gives_logits(name: str) -> None:
    """Those of 152 and 200 layers, seconds each, only repeat the same blocks; others below build them."""
    with torch.no_grad():
        logits = on_meta(name).eval()(torch.empty(2, 3, 2, 32, 32, device="meta"))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", LEARNING)
def test_every_network_gives_logits_and_every_parameter_learns(name: str) -> None:
    """Unused modules, which the original's Bottleneck had for place="skip", stop DistributedDataParallel."""
    network = on_meta(name).eval()
    logits = network(torch.empty(2, 3, 2, 32, 32, device="meta"))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert [n for n, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", RESNETS)
def test_srtg_networks_have_recursion_and_plain_ones_none(name: str) -> None:
    """In the original every `srtg_` name built the plain network."""
    network = on_meta(name)
    blocks = len(modules(network, Block))
    assert len(modules(network, nn.LSTM)) == (blocks if name.startswith("srtg_") else 0)
    assert isinstance(network.fc, nn.Linear)


@pytest.mark.parametrize("depth", BLOCKS)
def test_depths(depth: int) -> None:
    for name in (f"r3d_{depth}", f"srtg_r2plus1d_{depth}"):
        network = on_meta(name)
        stages = (network.layer1, network.layer2, network.layer3, network.layer4)
        assert tuple(map(len, stages)) == BLOCKS[depth]
        assert isinstance(network.layer1[0], BasicBlock if depth < 50 else Bottleneck)


@pytest.mark.parametrize("name", [name for name in RESNETS if "xt" in name])
def test_resnext_is_grouped(name: str) -> None:
    """The original only widened, with one group: 140 million parameters for r3dxt50."""
    for block in modules(on_meta(name), Block):
        inner = [block.conv2] if isinstance(block, Bottleneck) else [block.conv1, block.conv2]
        convs = [conv for part in inner for conv in modules(part, nn.Conv3d)]
        assert len(convs) == len(inner) * (2 if "r2plus1d" in name else 1)
        assert all(conv.groups == 32 for conv in convs)


@pytest.mark.parametrize(
    ("name", "ratio"), [("r3dxt50_32x4d", 2), ("r3dxt101_32x8d", 4), ("wide_r3d50_2", 2)]
)
def test_widths(name: str, ratio: int) -> None:
    block = on_meta(name).layer3[0]
    assert (block.conv2[0][0].out_channels, block.conv3[0].out_channels) == (256 * ratio, 256)


@pytest.mark.parametrize("name", [name for name in RESNETS if "csn" in name])
def test_csn_is_depthwise(name: str) -> None:
    for block in modules(on_meta(name), Bottleneck):
        cubes = [conv for conv in modules(block, nn.Conv3d) if conv.kernel_size == (3, 3, 3)]
        assert [conv.groups for conv in cubes] == [cubes[0].in_channels]


@pytest.mark.parametrize("gates", [False, True, "soft"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_every_place(kind: type[Block], place: str, channels: int, stride: int, gates: bool | str) -> None:
    """In the original start and top raised, and skip made a module that was never used."""
    recursion = functools.partial(SqueezeRecursion, gates=gates)
    block = kind(4, channels, stride, conv=Conv2Plus1D, width=2, recursion=recursion, place=place)
    openings: list[Tensor] = []
    out = block(torch.randn(3, 4, 4, 6, 5), openings)
    assert out.shape == ((3, channels, 4, 6, 5) if stride == 1 else (3, channels, 2, 3, 3))
    out.sum().backward()
    assert [name for name, value in block.named_parameters() if value.grad is None] == []
    acts = place != "skip" or (channels, stride) != (4, 1)
    assert len(modules(block, nn.LSTM)) == acts
    assert len(openings) == (acts and gates is not False)


class Zero(nn.Module):
    """In the place of recursion: what it acts on is gone from the output."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(x), None


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_each_place_is_where_it_says(kind: type[Block], place: str) -> None:
    block = kind(4, 8, 2, conv=Conv3D, recursion=SqueezeRecursion, place=place).eval()
    block.sar = Zero()
    x = torch.randn(2, 4, 4, 8, 8)
    parts = [block.conv1, block.conv2] + ([block.conv3] if kind is Bottleneck else [])
    inputs = {"start": 0, "top": 1, "mid": 2, "end": 3}  # so many convolutions come before
    main = x
    for i, part in enumerate(parts):
        main = part(torch.zeros_like(main) if inputs.get(place) == i else main)
    main = torch.zeros_like(main) if inputs.get(place) == len(parts) else main
    skip = torch.zeros_like(main) if place == "skip" else block.downsample(x)
    expected = torch.zeros_like(main) if place == "final" else torch.relu(main + skip)
    torch.testing.assert_close(block(x, []), expected)


@pytest.mark.parametrize(
    ("name", "place"), [("srtg_r3d_18", "mid"), ("srtg_ir_csn_50", "start"), ("srtg_r3d_18", "skip")]
)
def test_places_in_a_network(name: str, place: str) -> None:
    network = on_meta(name, gates=True, place=place)
    _, openings = network(torch.empty(2, 3, 4, 32, 32, device="meta"), return_gates=True)
    expected = ["layer2.0", "layer3.0", "layer4.0"] if place == "skip" else network.gate_names
    assert network.gate_names == expected
    assert openings.shape == (2, len(expected))


@pytest.mark.parametrize("name", ["ir_csn_50", "srtg_ir_csn_50"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 17, 23), (3, 33, 16), (5, 40, 31)])
def test_any_length_and_size(name: str, shape: tuple[int, int, int]) -> None:
    """Multigrid needs short and odd clips; maps of one row or column raised in the original."""
    network = small(name)
    for mode in (True, False):
        logits = network.train(mode)(torch.randn(2, 3, *shape))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 4, 16, 16), (2, 1, 4, 16, 16), (2, 4, 3, 16, 16), (2, 3, 16, 16)])
def test_a_wrong_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected clips of shape \(B, 3, T, H, W\), got \("):
        on_meta("r3d_18")(torch.empty(shape, device="meta"))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gates", [True, "soft"])
def test_a_gated_batch_equals_its_clips(gates: bool | str, precision: torch.dtype) -> None:
    """The original mixed up the positions of open gates in a batch, and wrote into its inputs."""
    network = small("srtg_ir_csn_50", gates=gates).eval()
    clips = torch.randn(3, 3, 16, 32, 32)
    before = clips.clone()
    with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits, openings = network(clips, return_gates=True)
        alone = [network(clip.unsqueeze(0), return_gates=True) for clip in clips]
    assert torch.equal(clips, before)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(logits, torch.cat([one for one, _ in alone]), **tolerance)
    torch.testing.assert_close(openings, torch.cat([one for _, one in alone]), **tolerance)
    assert 0 < openings.mean() < 1


def test_openings() -> None:
    clips = torch.randn(2, 3, 16, 32, 32)
    for gates, columns in ((False, 0), (True, 16), ("soft", 16)):
        network = small("srtg_ir_csn_50", gates=gates).eval()
        logits, openings = network(clips, return_gates=True)
        assert torch.equal(logits, network(clips))
        assert len(network.gate_names) == columns
        assert (openings.shape, openings.dtype, openings.requires_grad) == (
            (2, columns),
            torch.float32,
            False,
        )
        assert (openings[:, -3:] == 1).all()  # one frame is left in the last stage
        if gates is True:
            assert set(openings.flatten().tolist()) == {0.0, 1.0}
    assert small("srtg_ir_csn_50", gates=True).gate_names[2:4] == ["layer1.2", "layer2.0"]
    _, none = small("ir_csn_50").eval()(clips, return_gates=True)
    assert none.shape == (2, 0)


def test_every_parameter_has_a_gradient_where_gates_are_shut() -> None:
    network = small("srtg_ir_csn_50", gates=True).train()
    network.zero_grad()
    logits, openings = network(torch.randn(2, 3, 16, 32, 32), return_gates=True)
    logits.sum().backward()
    shut = network.gate_names[openings.sum(dim=0).tolist().index(0)]
    cells = dict(network.named_parameters())
    assert [name for name, value in cells.items() if value.grad is None] == []
    assert not cells[f"{shut}.sar.lstm.weight_ih_l0"].grad.any()
    assert cells["layer4.0.sar.lstm.weight_ih_l0"].grad.any()


def test_gates_do_not_change_the_weights() -> None:
    names = on_meta("srtg_r3d_18").state_dict().keys()
    assert names == on_meta("srtg_r3d_18", gates="soft", pool="soft").state_dict().keys()


@pytest.mark.parametrize("name", ["ir_csn_50", "r3dxt34_32d"])
def test_zero_init_residual_starts_with_the_skip_connection(name: str) -> None:
    """The original looked for a `bn3` that no block had."""
    network = create_network(name, 7, zero_init_residual=True)
    for block in modules(network, Block):
        assert not block.last_norm.weight.any()
    block = network.layer1[0].eval()
    x = torch.rand(2, 64, 2, 4, 4)
    assert torch.equal(block(x, []), x)
    assert all(block.last_norm.weight.all() for block in modules(small(name), Block))


def test_soft_pooling() -> None:
    """pool="soft" raised NameError in the original."""
    network = create_network("ir_csn_50", 7, pool="soft").eval()
    assert isinstance(network.pool, SoftPool3d)
    clips = torch.randn(2, 3, 5, 17, 16)
    soft = network(clips)
    network.pool = nn.MaxPool3d(3, 2, 1)
    assert soft.isfinite().all()
    assert not torch.allclose(soft, network(clips))


def test_recursion_init_reaches_the_cells() -> None:
    for init, bias in (("identity", 3.0), ("default", None)):
        cell = create_network("srtg_ir_csn_50", 7, recursion_init=init).layer2[1].sar.lstm
        assert (cell.bias_ih_l1[0].item() == bias) == (bias is not None)


def one_block_a_stage(**options: bool | str) -> VideoResNet:
    """The shallowest network, plain without options."""
    recursion = functools.partial(SqueezeRecursion, **options) if options else None
    return VideoResNet(Bottleneck, (1, 1, 1, 1), DepthwiseConv3D, Stem3D, 7, recursion=recursion).eval()


def graph_breaks(network: nn.Module) -> int:
    torch._dynamo.reset()
    return torch._dynamo.explain(network)(torch.randn(2, 3, 4, 16, 16), return_gates=True).graph_break_count


@pytest.mark.parametrize("options", [{}, {"gates": True}, {"gates": "soft"}])
def test_only_recurrent_cells_break_the_compiled_graph(options: dict) -> None:
    """With cells allowed there is one graph: nothing depends on data in Python."""
    with torch._dynamo.config.patch(allow_rnn=True):
        assert graph_breaks(one_block_a_stage(**options)) == 0


def test_a_compiled_gated_network_gives_the_same() -> None:
    network = one_block_a_stage(gates=True)
    clips = torch.randn(2, 3, 16, 32, 32)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager")
    for value, expected in zip(compiled(clips, True), network(clips, True), strict=True):
        torch.testing.assert_close(value, expected)


def test_options_are_those_of_the_builders() -> None:
    for name in RESNETS:
        assert ("gates" in network_options(name)) == name.startswith("srtg_")
