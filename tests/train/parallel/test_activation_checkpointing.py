"""Activation checkpointing: the same gradients and BatchNorm statistics with less memory."""

import copy

import pytest
import torch
from torch import nn

import tests.tiny_network  # noqa: F401
from network import create_network
from train.parallel.activation_checkpointing import CheckpointedBlock, apply_activation_checkpointing
from train.parallel.batch_norm import convert_sub_batchnorm


@pytest.mark.parametrize("sub_bn_size", [None, 2])
@pytest.mark.parametrize("name", ["tiny", "srtg_tiny"])
def test_same_gradients_and_running_statistics(name: str, sub_bn_size: int | None) -> None:
    torch.manual_seed(0)
    plain = create_network(name, 3, **({"gates": "soft"} if name == "srtg_tiny" else {}))
    if sub_bn_size:
        convert_sub_batchnorm(plain, sub_bn_size)
    checkpointed = copy.deepcopy(plain)
    apply_activation_checkpointing(checkpointed)
    assert isinstance(checkpointed.layer1[0], CheckpointedBlock)
    clips = torch.randn(4, 3, 4, 32, 32)
    for network in (plain, checkpointed):
        logits, gates = network(clips, return_gates=True)
        (logits.square().sum() + gates.sum()).backward()
    for (key, one), two in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad), key
    assert list(checkpointed.state_dict()) == list(plain.state_dict())
    for key, value in plain.state_dict().items():
        assert torch.equal(value, checkpointed.state_dict()[key]), key
    assert torch.equal(plain.eval()(clips), checkpointed.eval()(clips))


def test_saves_less_for_the_backward_pass() -> None:
    def saved_bytes(network: nn.Module) -> int:
        saved: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(2, 3, 8, 32, 32)).sum()
        return sum(saved.values()) - sum(p.numel() * 4 for p in network.parameters())

    network = create_network("tiny", 3)
    before = saved_bytes(network)
    apply_activation_checkpointing(network)
    assert saved_bytes(network) < before


def test_network_without_stages_is_an_error() -> None:
    with pytest.raises(ValueError, match="--activation-checkpointing: this network has no stages of blocks"):
        apply_activation_checkpointing(nn.Sequential(nn.Conv3d(3, 4, 1)))
