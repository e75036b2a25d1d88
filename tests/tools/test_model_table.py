"""The README's table of networks, row by row, is what the registry gives."""

import re
from pathlib import Path

import pytest

from network import list_networks
from tests.commands import main_of
from tools.model_table import PUBLISHED, TITLES, plain_names, table_row

main = main_of("tools.model_table")

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", plain_names())
def test_a_row_is_true(name: str) -> None:
    assert table_row(name) in README.splitlines()


def test_no_network_is_missing_and_none_invented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \d", README, flags=re.MULTILINE)
    assert rows == plain_names()
    forms = {*rows, *(f"srtg_{name}" for name in rows), "srtg_r3d_32"}
    assert {name for name in list_networks() if name not in forms} == set()
    assert f"| {' | '.join(TITLES)} |" in README


def test_published_accuracies_are_of_networks_that_exist() -> None:
    assert set(PUBLISHED) <= set(list_networks())


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.model_table.plain_names", lambda: ["r3d_34"])
    assert main() == 0
    assert capsys.readouterr().out.splitlines()[2] == table_row("r3d_34")
