"""A published network of the tests, `srtg_tiny`, whose weights come from where a test says."""

import json
from pathlib import Path

import pytest
import torch

from network import create_network
from network.published import ADDRESSES, WEIGHTS
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, address: str) -> Path:
    """Add `srtg_tiny` to the published weights, with 3 classes, and return where its file is cached."""
    row = WEIGHTS["srtg_r3d_50"]._replace(dataset="custom", num_classes=3, clip_size=32)
    monkeypatch.setitem(WEIGHTS, "srtg_tiny", row)
    table = folder / "addresses.json"
    table.write_text(json.dumps({"srtg_tiny": address} if address else {}))
    monkeypatch.setenv(ADDRESSES, str(table))
    monkeypatch.setenv("TORCH_HOME", str(folder / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder / "home/hub/checkpoints/srtg_tiny_custom.pth"


def save_as_the_original(path: Path, name: str = "srtg_tiny") -> Path:
    """Write random weights as the original did, trained by DataParallel, with its optimizer and its factors."""
    torch.manual_seed(1)
    network = create_network(name, 3)
    with torch.no_grad():
        network.fc.weight.mul_(200)
    groups = [{"params": [parameter], "lr_mult": 0.5} for parameter in network.parameters()]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-5)
    network(torch.zeros(2, 3, 2, 32, 32)).sum().backward()
    optimizer.step()
    weights = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 5, "state_dict": weights, "optimizer": optimizer.state_dict()}, path)
    return path
