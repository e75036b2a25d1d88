"""Residual blocks and whole networks: on the meta device, which has shapes only, where values do not matter."""

import functools

import pytest
import torch
from torch import Tensor, nn

from network import create_network, list_networks
from network.blocks import BasicBlock, Block, Bottleneck
from network.layers import Conv2Plus1D, Conv3D
from network.recursion import SqueezeRecursion
from network.srtg_resnet import VideoResNet
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny

RESNETS = [name for name in list_networks() if not name.startswith("mtnet")]
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DEPTHS[200] = (3, 24, 36, 3)
PLACES = [(BasicBlock, place) for place in ("top", "mid", "skip", "final")]
PLACES += [(Bottleneck, place) for place in ("start", "top", "mid", "end", "skip", "final")]


@functools.cache
def on_meta(name: str, **options: bool | str) -> VideoResNet:
    """A network without values, shared by tests."""
    with torch.device("meta"):
        return create_network(name, 7, **options)


@functools.cache
def tiny(**options: bool | str) -> VideoResNet:
    """A network with values, shared by tests."""
    return create_network("srtg_tiny", 7, **options)


def modules(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", [name for name in RESNETS if not name.endswith(("152", "200"))])
def test_all_parameters_get_gradients(name: str) -> None:
    """Unused modules, which the original's Bottleneck had for place="skip", stop DistributedDataParallel."""
    network = on_meta(name).eval()
    logits = network(torch.empty(2, 3, 2, 32, 32, device="meta"))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert [n for n, value in network.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("name", RESNETS)
def test_srtg_networks_have_recursion_and_plain_ones_none(name: str) -> None:
    """In the original every `srtg_` name built the plain network."""
    blocks = len(modules(on_meta(name), Block))
    assert len(modules(on_meta(name), nn.RNNBase)) == (blocks if name.startswith("srtg_") else 0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_depths(depth: int) -> None:
    for name in (f"r3d_{depth}", f"srtg_r2plus1d_{depth}"):
        network = on_meta(name)
        stages = (network.layer1, network.layer2, network.layer3, network.layer4)
        assert tuple(map(len, stages)) == DEPTHS[depth]
        assert isinstance(network.layer1[0], BasicBlock if depth < 50 else Bottleneck)


@pytest.mark.parametrize("name", [name for name in RESNETS if "xt" in name])
def test_resnext_is_grouped(name: str) -> None:
    """The original only widened, with one group: 140 million parameters for r3dxt50."""
    for block in modules(on_meta(name), Block):
        grouped = [block.conv2] if isinstance(block, Bottleneck) else [block.conv1, block.conv2]
        convs = [conv for part in grouped for conv in modules(part, nn.Conv3d)]
        assert len(convs) == len(grouped) * (2 if "r2plus1d" in name else 1)
        assert all(conv.groups == 32 for conv in convs)


@pytest.mark.parametrize(
    ("name", "ratio"), [("r3dxt50_32x4d", 2), ("r3dxt101_32x8d", 4), ("wide_r3d50_2", 2)]
)
def test_width_multiplier(name: str, ratio: int) -> None:
    block = on_meta(name).layer3[0]
    assert (block.conv2[0][0].out_channels, block.conv3[0].out_channels) == (256 * ratio, 256)


@pytest.mark.parametrize("gates", [False, True, "soft"])
@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (4, 2), (8, 1), (8, 2)])
@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_every_place(kind: type[Block], place: str, channels: int, stride: int, gates: bool | str) -> None:
    """In the original start and top raised, and skip made a module that was never used."""
    recursion = functools.partial(SqueezeRecursion, gates=gates)
    block = kind(4, channels, stride, conv=Conv2Plus1D, width_multiplier=2, recursion=recursion, place=place)
    out, gate_values = block(torch.randn(3, 4, 4, 6, 5))
    assert out.shape == ((3, channels, 4, 6, 5) if stride == 1 else (3, channels, 2, 3, 3))
    out.sum().backward()
    assert [name for name, value in block.named_parameters() if value.grad is None] == []
    has_branch = place != "skip" or (channels, stride) != (4, 1)
    assert len(modules(block, nn.RNNBase)) == has_branch
    assert (gate_values is not None) == (has_branch and gates is not False)


class Zero(nn.Module):
    """A branch that sets what it acts on to zero."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(x), None


@pytest.mark.parametrize(("kind", "place"), PLACES)
def test_each_place_is_where_its_name_says(kind: type[Block], place: str) -> None:
    block = kind(4, 8, 2, conv=Conv3D, recursion=SqueezeRecursion, place=place).eval()
    block.sar = Zero()
    x = torch.randn(2, 4, 4, 8, 8)
    main = source = torch.zeros_like(x) if place == "start" else x
    convs = [("top", block.conv1), ("mid", block.conv2)]
    convs += [("end", block.conv3)] if kind is Bottleneck else []
    for name, conv in convs:  # the place behind each convolution
        main = conv(main)
        main = torch.zeros_like(main) if place == name else main
    skip = torch.zeros_like(main) if place == "skip" else block.downsample(source)
    expected = torch.zeros_like(main) if place == "final" else torch.relu(main + skip)
    torch.testing.assert_close(block(x)[0], expected)


@pytest.mark.parametrize(
    ("name", "place"), [("srtg_r3d_18", "mid"), ("srtg_ir_csn_50", "start"), ("srtg_r3d_18", "skip")]
)
def test_gate_names(name: str, place: str) -> None:
    network = on_meta(name, gates=True, place=place)
    _, gate_values = network(torch.empty(2, 3, 4, 32, 32, device="meta"), return_gates=True)
    blocks = [n for n, module in network.named_modules() if isinstance(module, Block)]
    assert network.gate_names == (["layer2.0", "layer3.0", "layer4.0"] if place == "skip" else blocks)
    assert gate_values.shape == (2, len(network.gate_names))


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 17, 23), (3, 33, 16), (5, 40, 31)])
def test_any_length_and_size(shape: tuple[int, int, int]) -> None:
    """Multigrid needs short and odd clips; maps of one row or column raised in the original."""
    for training in (True, False):
        logits = tiny().train(training)(torch.randn(2, 3, *shape))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()


@pytest.mark.parametrize("shape", [(3, 4, 16, 16), (2, 1, 4, 16, 16), (2, 3, 16, 16)])
def test_a_wrong_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected clips of shape \(B, 3, T, H, W\), got \("):
        on_meta("r3d_18")(torch.empty(shape, device="meta"))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gates", [True, "soft"])
def test_a_gated_batch_gives_the_logits_of_its_clips(gates: bool | str, precision: torch.dtype) -> None:
    """The original mixed up the positions of open gates in a batch, and wrote into its inputs."""
    network = tiny(gates=gates).eval()
    clips = torch.randn(3, 3, 16, 32, 32)
    before = clips.clone()
    with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        logits, gate_values = network(clips, return_gates=True)
        alone = [network(clip.unsqueeze(0), return_gates=True) for clip in clips]
    assert torch.equal(clips, before)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if precision == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(logits, torch.cat([one for one, _ in alone]), **tolerance)
    torch.testing.assert_close(gate_values, torch.cat([one for _, one in alone]), **tolerance)
    assert 0 < gate_values.mean() < 1


@pytest.mark.parametrize("gates", [False, True, "soft"])
def test_gate_values(gates: bool | str) -> None:
    network, clips = tiny(gates=gates).eval(), torch.randn(2, 3, 16, 32, 32)
    logits, values = network(clips, return_gates=True)
    assert torch.equal(logits, network(clips))
    assert (values.shape, values.dtype) == ((2, len(network.gate_names)), torch.float32)
    assert not values.requires_grad
    assert (values[:, -1:] == 1).all()  # one frame is left in the last stage
    assert gates is not True or set(values.flatten().tolist()) == {0.0, 1.0}


def test_all_parameters_get_gradients_where_gates_are_closed() -> None:
    network = tiny(gates=True).train()
    network.zero_grad()
    logits, gate_values = network(torch.randn(2, 3, 16, 32, 32), return_gates=True)
    logits.sum().backward()
    closed = network.gate_names[gate_values.sum(dim=0).tolist().index(0)]
    parameters = dict(network.named_parameters())
    assert [name for name, value in parameters.items() if value.grad is None] == []
    assert not parameters[f"{closed}.sar.lstm.weight_ih_l0"].grad.any()
    assert parameters["layer4.0.sar.lstm.weight_ih_l0"].grad.any()


@pytest.mark.parametrize("name", ["ir_csn_50", "tiny"])
def test_zero_init_residual_starts_as_the_skip_connection(name: str) -> None:
    """The original looked for a `bn3` that no block had."""
    block = create_network(name, 7, zero_init_residual=True).layer1[0].eval()
    x = torch.rand(2, block.conv1[0][0].in_channels if name == "tiny" else 64, 2, 4, 4)
    assert torch.equal(block(x)[0], x)
    assert not torch.equal(create_network(name, 7).layer1[0].eval()(x)[0], x)


def test_soft_pooling() -> None:
    """2 x 2 x 2 after the stem, without overlap; it raised NameError in the original."""
    network, clips = create_network("tiny", 7, pool="soft").eval(), torch.randn(2, 3, 5, 34, 37)
    x = network.stem(clips)[:, :, :4, :16, :18].unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).flatten(5)
    torch.testing.assert_close(network.pool(network.stem(clips)), (x.softmax(dim=5) * x).sum(dim=5))
    soft = network(clips)
    network.pool = nn.MaxPool3d(3, 2, 1)
    assert not torch.allclose(soft, network(clips))


@pytest.mark.parametrize("name", ["tiny", "srtg_tiny"])
def test_without_pooling_after_the_stem(name: str) -> None:
    """As the original before November 2020: the same weights, the stages have twice the frames, rows and columns."""
    old, new = create_network(name, 7, stem_pool=False).eval(), create_network(name, 7).eval()
    new.load_state_dict(old.state_dict())
    clips = torch.randn(2, 3, 8, 32, 40)
    logits = old(clips)
    assert not torch.allclose(logits, new(clips))
    new.pool = nn.Identity()
    assert torch.equal(logits, new(clips))


@pytest.mark.parametrize(("init", "is_identity"), [("identity", True), ("default", False)])
def test_recursion_init(init: str, is_identity: bool) -> None:
    assert (tiny(recursion_init=init).layer2[0].sar.lstm.bias_ih_l1[0].item() == 3) == is_identity
