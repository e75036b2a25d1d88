"""Pretrained weights: what is loaded and what is reported, and files that are rejected."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from network import create_network
from network.pretrained import load_weights, read_tensors_file, write_safetensors
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny

Weights = dict[str, Tensor]


def tiny_weights(name: str = "srtg_tiny", num_classes: int = 4) -> Weights:
    return create_network(name, num_classes).state_dict()


def assert_loaded(network: nn.Module, weights: Weights) -> None:
    loaded = network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
    ],
    ids=["bare", "wrapped", "of DataParallel"],
)
def test_published_weights_load(wrap: Callable[[Weights], dict], tmp_path: Path) -> None:
    """With the prefix of DataParallel the original loaded nothing, silently."""
    weights, network = tiny_weights(), create_network("srtg_tiny", 4)
    torch.save(wrap(weights), tmp_path / "w.pth")
    report = load_weights(network, tmp_path / "w.pth")
    assert_loaded(network, weights)
    assert sorted(report.loaded) == sorted(weights)
    assert (report.shape_mismatch, report.missing, report.unexpected) == ([], [], [])
    assert (report.format, report.normalization) == ("own", None)


def test_safetensors(tmp_path: Path) -> None:
    weights, network = tiny_weights(), create_network("srtg_tiny", 4)
    save_file(weights, tmp_path / "bare.safetensors")
    assert load_weights(network, tmp_path / "bare.safetensors").normalization is None
    assert_loaded(network, weights)
    write_safetensors(network, tmp_path / "ours.safetensors", {"normalization": '{"channel_order": "bgr"}'})
    report = load_weights(create_network("srtg_tiny", 4), tmp_path / "ours.safetensors")
    assert (len(report.loaded), report.normalization) == (len(weights), {"channel_order": "bgr"})


def test_every_tensor_that_was_not_loaded_is_reported(tmp_path: Path) -> None:
    plain = tiny_weights("tiny")
    network = create_network("srtg_tiny", 9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save({**plain, "extra\x1b[2J": torch.zeros(2, 3)}, tmp_path / "w.pth")
    report = load_weights(network, tmp_path / "w.pth")
    assert report.shape_mismatch == [("fc.weight", (4, 16), (9, 16)), ("fc.bias", (4,), (9,))]
    assert report.missing == [name for name in before if ".sar." in name]
    assert report.unexpected == ["extra\x1b[2J"]
    assert_loaded(network, {name: plain[name] for name in report.loaded})
    assert_loaded(network, {name: before[name] for name in ("fc.weight", "fc.bias", *report.missing)})
    first, *lines = str(report).splitlines()
    assert first.endswith(
        f"{len(plain) - 2} tensors loaded, 2 with a different shape, {len(report.missing)} not in the file, "
        "1 not in the network (format: own)"
    )
    assert lines[0] == "  fc.weight: (4, 16) in the file, (9, 16) in the network"
    assert lines[2] == f"  {report.missing[0]}: not in the file"
    assert lines[-1] == "  extra?[2J: not in the network"
    assert len(lines) == 3 + len(report.missing)


def test_the_normalization_is_that_of_the_checkpoint_or_of_the_format(tmp_path: Path) -> None:
    weights, path = tiny_weights("tiny"), tmp_path / "w.pth"
    recorded = {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0], "channel_order": "rgb"}
    torch.save({"state_dict": weights, "normalization": recorded}, path)
    report = load_weights(create_network("tiny", 4), path)
    assert (report.format, report.normalization) == ("own", recorded)
    theirs = {name.replace(".0.0.weight", ".0.weight"): value for name, value in weights.items()}
    torch.save(theirs, path)
    network = create_network("tiny", 4)
    report = load_weights(network, path)
    assert_loaded(network, weights)
    assert (report.format, report.normalization["channel_order"]) == ("torchvision", "rgb")
    assert len(load_weights(network, path, "own").missing) == 8


@pytest.mark.parametrize(
    ("theirs", "options", "ours", "hint"),
    [
        ("tiny", {}, "srtg_tiny", "this is a plain tiny: --network tiny"),
        ("srtg_tiny", {}, "tiny", None),
        ("tiny", {}, "tiny", None),
        ("srtg_tiny", {}, "srtg_tiny", None),
        ("srtg_tiny", {"place": "skip"}, "srtg_tiny", None),  # some blocks have recursion
    ],
)
def test_a_file_without_recursion_is_named(
    theirs: str, options: dict[str, str], ours: str, hint: str | None, tmp_path: Path
) -> None:
    """Scripts of the original named their files srtg_, and always trained the plain network."""
    torch.save(create_network(theirs, 7, **options).state_dict(), tmp_path / "w.pth")
    report = load_weights(create_network(ours, 4), tmp_path / "w.pth")
    assert report.check(ours) == (hint and f"{tmp_path / 'w.pth'}: {hint}")


def test_few_tensors_are_a_warning_and_fewer_an_error(tmp_path: Path) -> None:
    """Of 74."""
    path = tmp_path / "w.pth"
    weights = tiny_weights("tiny")

    def check(count: int, **options: bool) -> str | None:
        torch.save(dict(list(weights.items())[:count]), path)
        return load_weights(create_network("tiny", 4), path).check("tiny", **options)

    assert len(weights) == 74
    assert check(37) is None
    numbers = "{}: {} of tiny's 74 tensors were loaded: "
    assert check(36).startswith(numbers.format(path, 36))
    assert check(8).startswith(numbers.format(path, 8))
    for count in (7, 1):
        message = rf"^{numbers.format(path, count)}.*; --allow-partial starts from it"
        with pytest.raises(ValueError, match=message):
            check(count)
        assert check(count, allow_partial=True).startswith(numbers.format(path, count))


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "x")  # no time, which would be in the names of tests
    return buffer.getvalue()


PAGE = "a web page, not a file of weights: open its address in a browser"
ARCHIVE = "a zip archive of other files, not a file of weights: unpack it first"
TEXT = "a text file, not a file of weights: download it again"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", PAGE),
        (b"\xef\xbb\xbf\r\n  <html lang=en>", PAGE),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', PAGE),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a Git LFS pointer, not a file of weights: git lfs pull",
        ),
        (b"", "an empty file, not a file of weights: download it again"),
        (bytes(4000), "an empty file, not a file of weights: download it again"),
        (zip_of("a/b.txt", "a/c.txt"), ARCHIVE),
        (zip_of("word/document.xml"), ARCHIVE),
        (zip_of("weights.pth")[:60], ARCHIVE),
        (zip_of(), ARCHIVE),
        (b'{"error": {"message": "quota exceeded"}}', TEXT),
        (b"404: Not Found", TEXT),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_failed_download_is_named(content: bytes, message: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\A.*w\.\w+: this is ") as caught:
        read_tensors_file(path)
    assert f": this is {message}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_weights_are_no_failed_download(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.randn(999)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(
        ValueError, match=r"w\.pth: holds more than tensors and plain values, or is damaged: \w"
    ):
        read_tensors_file(path)


class Code:
    """An object whose pickle runs code."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_with_code_is_rejected_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own message advises to load the file with its code."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}, "x": Code()}, "w.pth")
    Path("raw.pth").write_bytes(pickle.dumps(Code(), protocol=2))
    for name in ("w.pth", "raw.pth"):
        with pytest.raises(ValueError, match=f"^{name}: holds more than tensors and plain values") as caught:
            read_tensors_file(Path(name))
        assert "Unsupported global: GLOBAL getattr" in str(caught.value)
        assert "safe_globals" not in str(caught.value)
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02.", b"\x80\x02X\xff\xff\xff\x7fa"])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "in_zip.pth"])
def test_a_damaged_file_is_one_line_that_names_it(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "in_zip.pth":
        torch.save({}, tmp_path / "whole.pth")
        with zipfile.ZipFile(tmp_path / "whole.pth") as old, zipfile.ZipFile(path, "w") as new:
            for record in old.namelist():
                new.writestr(record, content if record.endswith("data.pkl") else old.read(record))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: ") as caught:
        load_weights(create_network("tiny", 4), path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"other.weight": torch.zeros(3), "more": torch.zeros(2)},
            "none of its 2 tensors has a name and shape",
        ),
        ([1, 2], "holds no weights, neither at the top level nor under 'state_dict'"),
        ({"state_dict": {"fc.bias": 1}}, "holds no weights"),
        ({"fc.bias": torch.zeros(4).to_sparse()}, "fc.bias"),
        ({"fc.bias": torch.zeros(4, device="meta")}, "fc.bias"),
    ],
)
def test_weights_that_cannot_be_loaded_are_an_error(content: Any, message: str, tmp_path: Path) -> None:
    """The original warned, and trained from random weights."""
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth: .*{message}"):
        load_weights(create_network("tiny", 4), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}: there is no such checkpoint"):
        load_weights(create_network("tiny", 4), tmp_path / name)
