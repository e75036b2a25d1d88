"""python -m network.zoo: the published weights, and which network a file fits."""

from pathlib import Path

import pytest

from network import list_networks
from network.published import DRIVE, WEIGHTS, sha256
from tests.commands import error_of, main_of
from tests.network.zoo_helpers import publish, save_as_the_original

main = main_of("network.zoo")


def test_all_published_weights_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    title, *rows, note = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == list(WEIGHTS)
    assert set(WEIGHTS) <= set(list_networks())
    address = DRIVE + WEIGHTS["srtg_r3d_101"].file_id
    assert rows[2].split() == ["srtg_r3d_101", "hacs", "16", "264", "32", "81.659", "96.326", address]
    assert "None of these files has been tried" in note


@pytest.mark.parametrize(
    ("network", "exit_code", "line"),
    [
        ("srtg_tiny", 0, "the weights of srtg_tiny, 3 classes"),
        ("tiny", 1, "these are not the weights of srtg_tiny, but of tiny"),
    ],
)
def test_what_was_fetched_is_described(
    network: str,
    exit_code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The original's scripts built `srtg_` networks without recursion."""
    save_as_the_original(tmp_path / "w.pth", network)
    publish(monkeypatch, tmp_path, "w.pth")
    for name in [name for name in WEIGHTS if name != "srtg_tiny"]:
        monkeypatch.delitem(WEIGHTS, name)
    folder = tmp_path / "mine"
    assert main(["srtg_tiny", "--dir", str(folder)]) == exit_code
    path = folder / "srtg_tiny_custom.pth"
    assert capsys.readouterr().out.splitlines() == [str(path), f"SHA-256 {sha256(path)}", line]


def test_an_unknown_name_is_one_line() -> None:
    assert "'srtg_r3d_152' is not one of srtg_r3d_34, srtg_r3d_50, " in error_of(main, "srtg_r3d_152")
