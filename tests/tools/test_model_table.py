"""The tables of networks in docs/networks.md and in the README."""

import re
from pathlib import Path

import pytest

from network import list_networks
from network.registry import networks_in_order
from tests.commands import main_of
from tools import model_table

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
PAGE = (REPOSITORY / "docs" / "networks.md").read_text("utf-8")
SMALL = [name for name in networks_in_order() if name in ("mtnet_xs", "r3d_18", "r2plus1d_34", "ir_csn_50")]


@pytest.mark.parametrize("name", SMALL)
def test_rows_of_the_page(name: str) -> None:
    assert model_table.table_row(name) in PAGE.splitlines()


def test_the_page_has_all_networks() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \d", PAGE, flags=re.MULTILINE)
    assert rows == [name for name in model_table.names_in_table() if name != "tiny"]
    assert {*rows, *(f"srtg_{name}" for name in rows)} >= set(list_networks()) - {
        "tiny",
        "srtg_tiny",
        "srtg_r3d_32",
    }
    assert f"| {' | '.join(model_table.TITLES)} |" in PAGE


def test_published_accuracies_in_the_readme() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(model_table.PUBLISHED)
    for name, cells in rows:
        setup = ("256", "64") if name.startswith("mtnet") else ("264", "32")
        accuracy = [f"{value:.1f}" for value in model_table.PUBLISHED[name]]
        assert cells.split(" | ")[:4] == [*setup, *accuracy]
        if name in ("srtg_r3d_34", "mtnet_s"):
            assert cells.split(" | ")[4:] == list(model_table.table_size(name))


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_table, "names_in_table", lambda: ["r3d_18"])
    assert main_of("tools.model_table")([]) == 0
    assert capsys.readouterr().out.splitlines()[2] == model_table.table_row("r3d_18")
