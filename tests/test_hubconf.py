"""hubconf.py: every network by its name, through torch.hub."""

import runpy
from pathlib import Path

import pytest
import torch

from network import create_network, list_networks
from tests.commands import REPOSITORY
from tests.network.zoo_helpers import publish, save_as_the_original


def test_every_network_is_an_entry_point(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = runpy.run_path(str(REPOSITORY / "hubconf.py"))
    names = [name for name, entry in entries.items() if callable(entry) and not name.startswith("_")]
    assert sorted(names) == list_networks()  # what torch.hub.list lists
    assert "r3d_18 with squeeze and recursion" in entries["srtg_r3d_18"].__doc__
    path = save_as_the_original(tmp_path / "w.pth")
    publish(monkeypatch, tmp_path, "w.pth")
    expected = torch.load(path, weights_only=True)["state_dict"]
    for weights in (str(path), "zoo:srtg_tiny"):
        network = torch.hub.load(str(REPOSITORY), "srtg_tiny", source="local", num_classes=3, weights=weights)
        assert {f"module.{name}" for name in network.state_dict()} == expected.keys()
        assert all(
            torch.equal(value, expected[f"module.{name}"]) for name, value in network.state_dict().items()
        )
    assert caplog.text == ""
    network = torch.hub.load(
        str(REPOSITORY), "srtg_tiny", source="local", num_classes=9, weights=path, gates=True
    )
    assert "fc.weight: (3, 16) in the file, (9, 16) in the network" in caplog.text
    assert type(network) is type(create_network("srtg_tiny", 9))
