"""Weights fetched by name: what a failed download leaves, and how the next try goes on."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from network.published import fetch, weights_path
from tests.data.http_server import CUT, SENT_BEFORE_FAILING, Answer, Script, serve
from tests.network.zoo_helpers import publish, save_as_the_original

HTML = b"<!DOCTYPE html><html>Sign in</html>"


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A file of several of gdown's chunks, of 512 KB."""
    path = save_as_the_original(tmp_path / "original.pth")
    torch.save({**torch.load(path, weights_only=True), "more": torch.zeros(500_000)}, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("answer", "message"),
    [(404, "404"), (429, "429"), (CUT, "bytes"), (HTML, "this is a web page, not a file")],
)
def test_a_failed_download_is_one_line_and_the_next_try_goes_on(
    answer: Answer | bytes,
    message: str,
    weights: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("gdown", reason="needs gdown: pip install gdown")
    first = Script() if isinstance(answer, bytes) else Script(whole=(answer, "ok"))
    with serve(weights, {"w": first}) as server:
        address = server.url.format(id="w")
        path = publish(monkeypatch, tmp_path, address)
        server.body = answer if isinstance(answer, bytes) else weights
        with pytest.raises((OSError, ValueError), match=message) as caught:
            fetch("srtg_tiny")
        assert str(caught.value).startswith(f"{address}: ")
        assert "\n" not in str(caught.value)
        assert isinstance(answer, bytes) or f"to {path}" in str(caught.value)
        assert not path.exists()
        server.body = weights
        assert weights_path(Path("zoo:srtg_tiny")) == path
        assert path.read_bytes() == weights
        if answer == CUT:
            start = int(server.requests["w"][-1]["Range"].removeprefix("bytes=").removesuffix("-"))
            assert 0 < start <= SENT_BEFORE_FAILING * len(weights) + 1
        names = {file.name for file in path.parent.iterdir()} - {f".{path.name}.lock"}
        assert names == {path.name, f"{path.name}.sha256"}


def test_a_full_disk_is_one_line(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish(monkeypatch, tmp_path, "original.pth")  # beside the table
    path.parent.mkdir(parents=True)
    part = path.with_name(f"{path.name}.part")
    part.symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"original\.pth: .*No space left on device; try again, .* to {path}"):
        fetch("srtg_tiny")
    part.unlink()  # the disk has room again
    assert fetch("srtg_tiny").read_bytes() == weights


def test_another_sha256_is_refused(weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that was changed, and of one that is fetched again; a file put there by hand gets its own."""
    path = publish(monkeypatch, tmp_path, "original.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(weights)
    fetch("srtg_tiny")
    digest = hashlib.sha256(weights).hexdigest()
    record = path.with_name(f"{path.name}.sha256")
    assert record.read_text() == f"{digest}  {path.name}\n"
    changed = save_as_the_original(tmp_path / "original.pth", "tiny").read_bytes()
    other = hashlib.sha256(changed).hexdigest()
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=f"{path}: its SHA-256 is {other}, not {digest}, as {record} says"):
        fetch("srtg_tiny")
    path.unlink()
    with pytest.raises(ValueError, match=f"original.pth: its SHA-256 is {other}, not {digest}"):
        fetch("srtg_tiny")
    assert not path.exists()
    (tmp_path / "original.pth").write_bytes(weights)
    assert fetch("srtg_tiny").read_bytes() == weights


@pytest.mark.parametrize("address", ["file:///w.pth", "htp://server/w.pth"])
def test_an_address_that_gdown_refuses_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the file that no download has begun to write."""
    pytest.importorskip("gdown", reason="needs gdown: pip install gdown")
    publish(monkeypatch, tmp_path, address)
    with pytest.raises(ValueError, match=f"^{address}: "):
        fetch("srtg_tiny")


def test_without_gdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish(monkeypatch, tmp_path, "")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(OSError, match=rf"drive.*: needs gdown: pip install gdown; .* to {path}"):
        fetch("srtg_tiny")


def test_an_invalid_table_of_addresses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, tmp_path, "")
    for text in ("{", "[1]", '{"srtg_tiny": 1}'):
        (tmp_path / "addresses.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"addresses\.json, by ZOO_ADDRESSES: not JSON of addresses by name"
        ):
            fetch("srtg_tiny")
