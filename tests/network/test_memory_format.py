"""What makes networks fast on a GPU, as far as a CPU shows it: channels-last memory and half precision."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from network import create_network
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny

NETWORKS = [  # each kind of convolution and recursion
    ("tiny", {"pool": "soft"}),
    ("r2plus1d_18", {}),
    ("r3dxt34_32d", {}),
    ("ir_csn_50", {}),
    ("ip_csn_50", {}),
    ("srtg_tiny", {"gates": True}),
    ("srtg_tiny", {"gates": "soft"}),
    ("srtg_tiny", {"stem_pool": False}),
    ("mtnet_xs", {}),
    ("mtnet_xs_g8", {}),
]


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """With one thread torch chooses convolutions that do not keep the memory format."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("name", "options"), NETWORKS[1:-1])  # one channel per group has no memory format
def test_all_convolutions_have_channels_last_inputs(name: str, options: dict) -> None:
    """A convolution whose input is in another format would copy it first, on every step."""
    network = create_network(name, 7, **options).to(memory_format=torch.channels_last_3d)
    other = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if not inputs[0].is_contiguous(memory_format=torch.channels_last_3d) and inputs[0].shape[1] > 1:
            other.append(module)

    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    for module in convolutions:
        module.register_forward_pre_hook(look)
    clips = torch.randn(2, 3, 8, 96, 96).contiguous(memory_format=torch.channels_last_3d)
    network(clips).sum().backward()
    assert len(convolutions) > 8
    assert other == []


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_half_precision(
    name: str, options: dict, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are close to those in fp32, and gradients finite.

    Without oneDNN, whose bf16 gradients of small maps read uninitialized memory on some CPUs (torch 2.13).
    """
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    network = create_network(name, 7, **options).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.autocast("cpu", dtype=precision):
        logits = network(clips)
    assert logits.dtype == precision
    with torch.no_grad():
        torch.testing.assert_close(logits.float(), network(clips), rtol=5e-2, atol=5e-2)
    logits.float().sum().backward()
    assert all(value.grad.isfinite().all() for value in network.parameters())
