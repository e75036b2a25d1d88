"""What makes networks fast on a GPU, as far as a CPU shows it: memory layout, half precision, no look at values."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from network import create_network

FAMILIES = [  # one of each kind of convolution and recursion
    ("r3d_18", {}),
    ("r2plus1d_18", {}),
    ("r3dxt34_32d", {}),
    ("ir_csn_50", {}),
    ("ip_csn_50", {}),
    ("srtg_r3d_18", {"gates": True}),
    ("srtg_r3d_18", {"gates": "soft"}),
    ("mtnet_xs", {}),
    ("mtnet_xs_g8", {}),
]


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """A single one takes other convolutions of torch's, which do not keep the layout."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("name", "options"), FAMILIES[:-1])  # there a branch of one channel has no layout
def test_channels_last_throughout(name: str, options: dict) -> None:
    """A convolution whose input lost the layout would copy it first, on every step."""
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
    assert len(convolutions) > 10
    assert other == []


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "options"), FAMILIES)
def test_half_precision(
    name: str, options: dict, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits near those of fp32, and finite gradients.

    Without oneDNN, whose bf16 gradients of small maps are wrong on some CPUs (torch 2.13: memory that nobody set).
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
