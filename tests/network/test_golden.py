"""Names, shapes, logits, losses, gradients and gates against reference values of the original's networks.

Published weights load and give the same results only if these hold.
"""

import gzip
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from network import create_network
from network.recursion import consistent_one_way, cycle_consistent

GOLDEN = Path(os.environ.get("SRTG_SHARED", Path(__file__).parents[3] / "shared")) / "golden"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="no reference values: set SRTG_SHARED to the folder that holds golden/"
)


def load_cases(*files: str) -> dict[str, dict[str, Any]]:
    paths = [GOLDEN / file for file in files if GOLDEN.is_dir()]
    return {name: case for path in paths for name, case in json.loads(path.read_text()).items()}


CASES = load_cases("logits.json", "more.json")


@pytest.fixture(scope="module")
def fill() -> ModuleType:
    """The module that generates the weights and clips of the reference values."""
    spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def meta_network(name: str, num_classes: int, **options: str) -> nn.Module:
    with torch.device("meta"):
        return create_network(name, num_classes, **options)


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def assert_golden(logits: Tensor, expected: list[list[float]]) -> None:
    reference = torch.tensor(expected, dtype=torch.float64)
    assert (logits - reference).abs().max() < 1e-8 * reference.abs().max()


def test_names_and_shapes_are_those_of_published_weights() -> None:
    file = json.loads((GOLDEN / "state_dicts.json").read_text())
    assert len(file["networks"]) >= 54
    for name, expected in file["networks"].items():
        network = meta_network(name, file["num_classes"])
        lines = sorted(f"{key} {tuple(shape)}" for key, shape in shapes(network).items())
        assert sum(value.numel() for value in network.parameters()) == expected["parameters"], name
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == expected["sha256"], name


def test_names_one_by_one() -> None:
    for name, expected in json.loads(
        gzip.decompress((GOLDEN / "state_dict_keys.json.gz").read_bytes())
    ).items():
        assert shapes(meta_network(name, 400)) == expected, name


def test_gates() -> None:
    for case in json.loads((GOLDEN / "gates.json").read_text()):
        a, b = (torch.tensor(case[key], dtype=torch.float64).unsqueeze(0) for key in "ab")
        assert [consistent_one_way(a, b).item(), consistent_one_way(b, a).item()] == [
            case["a_to_b"],
            case["b_to_a"],
        ]
        assert cycle_consistent(a, b).item() == case["open"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_logits_loss_and_gradients(case: dict[str, Any], fill: ModuleType) -> None:
    network = meta_network(case["network"], case["num_classes"], **case.get("options", {})).double()
    network.load_state_dict(fill.fill(network.state_dict(), case["running_var"]), assign=True)
    network.requires_grad_()
    height, width = case.get("height", case.get("size")), case.get("width", case.get("size"))
    clips = fill.clip(case["batch"], case["frames"], max(height, width))[..., :height, :width].double()

    with torch.no_grad():
        assert_golden(network.eval()(clips), case["logits_eval"])
    logits = network.train()(clips)
    assert_golden(logits, case["logits_train"])
    if "loss_train" not in case:
        return

    loss = cross_entropy(logits, torch.arange(case["batch"]) % 7)
    assert loss.item() == pytest.approx(case["loss_train"], rel=1e-8)
    loss.backward()
    norms = {name: value.grad.norm().item() for name, value in network.named_parameters()}
    assert {name: norms[name] for name in case["grad_norms"]} == pytest.approx(case["grad_norms"], rel=1e-8)
    assert torch.tensor(list(norms.values()), dtype=torch.float64).norm().item() == pytest.approx(
        case["grad_norm_total"], rel=1e-8
    )
