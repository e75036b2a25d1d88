"""torch.compile makes one graph of each network and shape, which computes what eager mode does.

The backend counts graphs and runs them without a compiler. Tracing takes 0.1 s a block, so that networks with one block
in each stage stand for all others of the same modules; `make soak` also compiles each network at full depth.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from network import create_network, layers, list_networks, mtnet, srtg_resnet
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny

FRAMES = 8  # 4, 2, 1 and 1 in the stages


@pytest.fixture(autouse=True)
def _no_trace_in_the_captured_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing it takes longer than compiling."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)


class GraphCounter:
    """A backend for torch.compile."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def shallow_stage(make_block: Callable[..., nn.Module], _: int, *channels: int, stride: int) -> nn.Module:
    return layers.make_stage(make_block, 1, *channels, stride=stride)


def shallow_network(name: str, **options: bool | str) -> nn.Module:
    with pytest.MonkeyPatch.context() as patch:
        for module in (srtg_resnet, mtnet):
            patch.setattr(module, "make_stage", shallow_stage)
        return create_network(name, 7, **options)


@functools.cache
def kinds_of_networks() -> list[str]:
    """Return the first network with each set of classes of modules."""
    names: dict[frozenset[type], str] = {}
    for name in list_networks():
        with torch.device("meta"):
            names.setdefault(frozenset(map(type, shallow_network(name).modules())), name)
    return list(names.values())


def calm(network: nn.Module) -> nn.Module:
    """Scale the residual branches of a new network down, as otherwise each block multiplies rounding errors."""
    for module in network.modules():
        for name in getattr(module, "residual_scales", ()):
            nn.init.constant_(module.get_parameter(name), 0.1)
    return network


def assert_one_graph(network: nn.Module, **arguments: bool) -> None:
    clips = torch.randn(4, 3, FRAMES, 32, 32, dtype=next(network.parameters()).dtype)
    counter = GraphCounter()
    torch.compiler.reset()
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=False)
    for _ in range(2):
        outputs = compiled(clips, **arguments)
    assert counter.graphs == 1
    tolerance = 1e-4 if not torch.is_autocast_enabled("cpu") else 2e-2
    torch.testing.assert_close(outputs, network(clips, **arguments), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", kinds_of_networks())
def test_each_kind_of_network_is_one_graph(name: str) -> None:
    assert_one_graph(shallow_network(name))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gates", [False, True, "soft"])
def test_gates_and_modes(gates: bool | str, training: bool, autocast: bool) -> None:
    network = create_network("srtg_tiny", 7, gates=gates).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert_one_graph(network, return_gates=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_networks())
def test_each_network_is_one_graph(name: str) -> None:
    """In double precision and evaluation mode, as rounding errors grow in each block, most of all by BatchNorm."""
    assert_one_graph(calm(create_network(name, 7)).double().eval())
