"""Pretrained weights: formats, what is loaded and what is reported, and files that are rejected."""

import pickle
import re
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
from network.pretrained_formats import CHECKPOINT_FORMATS, detect_format, from_imagenet
from tests import tiny_network  # noqa: F401 - registers tiny and srtg_tiny

Weights = dict[str, Tensor]


def tiny_weights(name: str = "srtg_tiny", num_classes: int = 4) -> Weights:
    return create_network(name, num_classes).state_dict()


def meta_weights(name: str, num_classes: int = 400) -> Weights:
    with torch.device("meta"):
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


def torchvision_names(network: str) -> list[str]:
    """The names of tensors in torchvision's r3d_18 or r2plus1d_18."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    r2plus1d = network == "r2plus1d_18"
    names = ["stem.0.weight", *(f"stem.1.{key}" for key in norm)]
    names += ["stem.3.weight", *(f"stem.4.{key}" for key in norm)] if r2plus1d else []
    for block in (f"layer{stage}.{number}" for stage in range(1, 5) for number in range(2)):
        for conv in (f"{block}.conv1", f"{block}.conv2"):
            factorized = [f"{conv}.0.0.weight", *(f"{conv}.0.1.{key}" for key in norm), f"{conv}.0.3.weight"]
            names += factorized if r2plus1d else [f"{conv}.0.weight"]
            names += [f"{conv}.1.{key}" for key in norm]
        if block in ("layer2.0", "layer3.0", "layer4.0"):
            names += [f"{block}.downsample.0.weight", *(f"{block}.downsample.1.{key}" for key in norm)]
    return [*names, "fc.weight", "fc.bias"]


def same_shapes(weights: Weights, own: Weights) -> bool:
    plain = {name: value for name, value in own.items() if ".sar." not in name}
    return {n: v.shape for n, v in weights.items()} == {n: v.shape for n, v in plain.items()}


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_torchvision(name: str) -> None:
    ours = meta_weights(name)
    theirs = {key.replace(".0.0.weight", ".0.weight") if name == "r3d_18" else key: ours[key] for key in ours}
    assert sorted(theirs) == sorted(torchvision_names(name))
    assert detect_format(theirs, bare=True) == "torchvision"
    for own in (ours, meta_weights(f"srtg_{name}")):
        assert same_shapes(CHECKPOINT_FORMATS["torchvision"].convert(theirs, own), own)


def test_weights_with_the_names_of_torchvision_may_be_ours() -> None:
    """The names of r2plus1d_18 are the same; our checkpoints hold more than weights."""
    assert detect_format(meta_weights("r2plus1d_18"), bare=False) == "own"
    assert detect_format(meta_weights("r2plus1d_18", 7), bare=True) == "own"
    assert detect_format(meta_weights("srtg_r2plus1d_18"), bare=True) == "own"
    assert detect_format(meta_weights("r2plus1d_34"), bare=True) == "own"


def imagenet_weights(name: str) -> Weights:
    """Weights with the names and shapes of torchvision's ResNet-18 or -34 for images."""
    weights = {}
    for ours, value in meta_weights(name, 1000).items():
        key = ours.replace("stem.0", "conv1").replace("stem.1", "bn1").replace(".0.0.weight", ".weight")
        key = re.sub(r"conv(\d)\.1\.", r"bn\1.", key)
        shape = (*value.shape[:2], *value.shape[3:]) if value.dim() == 5 else value.shape
        weights[key] = torch.randn(shape)
    return weights


@pytest.mark.parametrize(("name", "tensors"), [("r3d_18", 122), ("r3d_34", 218)])
def test_imagenet(name: str, tensors: int) -> None:
    theirs = imagenet_weights(name)
    assert len(theirs) == tensors  # as torchvision has
    known = {
        "conv1.weight",
        "bn1.bias",
        "layer2.0.conv1.weight",
        "layer2.0.bn2.bias",
        "layer2.0.downsample.1.bias",
    }
    assert known < set(theirs)
    assert detect_format(theirs, bare=True) == "imagenet"
    for own in (meta_weights(name, 1000), meta_weights(f"srtg_{name}", 1000)):
        inflated = from_imagenet(theirs, own)
        assert same_shapes(inflated, own)
    kernel = inflated["stem.0.weight"]  # a clip of equal frames has the features of the frame
    torch.testing.assert_close(kernel.sum(dim=2), theirs["conv1.weight"])
    assert torch.equal(kernel[:, :, 0], kernel[:, :, 2])
    assert from_imagenet(theirs, meta_weights("mtnet_xs"))["stem.0.weight"].shape == (64, 3, 3, 7, 7)


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
