"""Blocks computed again in the backward pass: the same numbers, norms that count a batch once, less memory."""

import copy

import pytest
import torch
from torch import nn

from network import create_network
from train.parallel.activation_checkpointing import apply_activation_checkpointing
from train.parallel.batch_norm import convert_sub_batchnorm


@pytest.mark.parametrize("group", [None, 2])
@pytest.mark.parametrize("name", ["r3d_18", "srtg_r2plus1d_18"])
def test_same_gradients_and_running_statistics(name: str, group: int | None) -> None:
    torch.manual_seed(0)
    plain = create_network(name, 3, **({"gates": "soft"} if name.startswith("srtg") else {}))
    if group:
        convert_sub_batchnorm(plain, group)
    other = copy.deepcopy(plain)
    apply_activation_checkpointing(other)
    assert list(other.state_dict()) == list(plain.state_dict())
    clips = torch.randn(4, 3, 4, 32, 32)
    for network in (plain, other):
        logits, openings = network(clips, return_gates=True)
        (logits.square().sum() + openings.sum()).backward()
    for (key, one), two in zip(plain.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), key
    for key, value in plain.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert torch.equal(plain.eval()(clips), other.eval()(clips))


def test_keeps_the_inputs_of_blocks_alone() -> None:
    def kept_bytes(network: nn.Module) -> int:
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(2, 3, 8, 32, 32)).sum()
        return sum(kept.values()) - sum(p.numel() * 4 for p in network.parameters())

    plain = create_network("r3d_18", 3)
    before = kept_bytes(plain)
    apply_activation_checkpointing(plain)
    blocks = [block for stage in (plain.layer1, plain.layer2) for block in stage]
    assert all(type(block).__mro__[1].__name__ == "_CheckpointedBlock" for block in blocks)
    assert kept_bytes(plain) < before


def test_network_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="--activation-checkpointing: this network has no stages of blocks"):
        apply_activation_checkpointing(nn.Sequential(nn.Conv3d(3, 4, 1)))
