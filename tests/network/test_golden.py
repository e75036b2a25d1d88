"""Names, shapes, logits, losses, gradients and gates against the original's: published weights need them."""

import gzip
import hashlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from network import create_network
from network.recursion import _cycles, cycle_consistent


def meta_network(name: str, num_classes: int) -> nn.Module:
    """A network with shapes and without values."""
    with torch.device("meta"):
        return create_network(name, num_classes)


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).abs().max() / expected.abs().max()).item()


def test_names_and_shapes_are_those_of_published_weights(golden: Path) -> None:
    file = json.loads((golden / "state_dicts.json").read_text())
    assert len(file["networks"]) >= 54
    for name in file["networks"]:
        network = meta_network(name, file["num_classes"])
        lines = sorted(f"{key} {tuple(shape)}" for key, shape in shapes(network).items())
        expected = file["networks"][name]
        assert sum(value.numel() for value in network.parameters()) == expected["parameters"], name
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == expected["sha256"], name


def test_names_one_by_one(golden: Path) -> None:
    file = json.loads(gzip.decompress((golden / "state_dict_keys.json.gz").read_bytes()))
    for name in file:
        assert shapes(meta_network(name, 400)) == file[name], name


def test_gates(golden: Path) -> None:
    for case in json.loads((golden / "gates.json").read_text()):
        a, b = (torch.tensor(case[key], dtype=torch.float64).unsqueeze(0) for key in "ab")
        assert [_cycles(a, b).item(), _cycles(b, a).item()] == [case["a_to_b"], case["b_to_a"]]
        assert cycle_consistent(a, b).item() == case["open"]


# With its golden weights deep recursion is chaotic: a relative change of 1e-14 in the input moves a logit by 1e-3,
# which is as far as other orders of summation move it. No other case is excused.
CHAOTIC = "srtg_r3d_34"


@torch.no_grad()
def assert_logits(network: nn.Module, clips: Tensor, expected: Tensor, chaotic: bool) -> None:
    """Logits within 1e-8 of the largest one; where rounding alone moves them further, within ten times that."""
    logits = network(clips)
    if not chaotic:
        assert relative_error(logits, expected) < 1e-8
        return
    by_rounding = 10 * (network(clips * (1 + 1e-14)) - logits).abs().amax(dim=1)
    assert ((logits - expected).abs().amax(dim=1) < by_rounding).all()


def test_logits_loss_and_gradients(logits_case: dict, golden_fill: ModuleType) -> None:
    case = logits_case
    network = meta_network(case["network"], case["num_classes"]).double()
    weights = golden_fill.fill(network.state_dict(), case["running_var"])
    network.load_state_dict(weights, assign=True)
    network.requires_grad_()
    clips = golden_fill.clip(case["batch"], case["frames"], case["size"]).double()

    expected = torch.tensor(case["logits_eval"], dtype=torch.float64)
    assert_logits(network.eval(), clips, expected, chaotic=case["network"] == CHAOTIC)

    logits = network.train()(clips)
    assert relative_error(logits, torch.tensor(case["logits_train"], dtype=torch.float64)) < 1e-8
    loss = cross_entropy(logits, torch.arange(case["batch"]) % 7)
    assert loss.item() == pytest.approx(case["loss_train"], rel=1e-6)

    loss.backward()
    norms = {name: value.grad.norm().item() for name, value in network.named_parameters()}
    assert {name: norms[name] for name in case["grad_norms"]} == pytest.approx(case["grad_norms"], rel=1e-6)
    assert torch.tensor(list(norms.values())).norm().item() == pytest.approx(
        case["grad_norm_total"], rel=1e-6
    )
