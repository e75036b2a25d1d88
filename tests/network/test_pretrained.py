"""Pretrained weights: formats, what is loaded and what is reported, and files that are rejected."""

import io
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


HALVES = {
    "0.0": "conv{}_s",
    "0.1": "bn{}_s",
    "0.3": "conv{}_t",
    "1": "bn{}_t",
    "3": "conv{}_t",
    "4": "bn{}_t",
}
WHOLE = {"0.0": "conv{}", "0": "conv{}", "1": "bn{}"}


def resnets_3d_weights(name: str, stem_length: int = 7) -> Weights:
    """Weights with the names of 3D-ResNets-PyTorch and the shapes of ours, but for the stem, and 700 classes."""
    weights = {}
    for ours, value in meta_weights(name, 700).items():
        shape = list(value.shape)
        if match := re.fullmatch(r"(?:stem|(layer\d\.\d\.)conv(\d))\.(0\.\d|\d)\.(\w+)", ours):
            block, number, place, tensor = match.groups()
            names = HALVES if "r2plus1d" in name else WHOLE
            if block is None and "r2plus1d" in name:
                place = {"0": "0.0", "1": "0.1"}.get(place, place)
            key = f"{block or ''}{names[place].format(number or 1)}.{tensor}"
            if key == "conv1.weight":
                shape[2] = stem_length
        else:
            key = ours
        weights[key] = torch.randn(shape)
    return weights


@pytest.mark.parametrize(("name", "tensors"), [("r3d_18", 122), ("r3d_34", 218), ("r2plus1d_18", 224)])
def test_3d_resnets(name: str, tensors: int, tmp_path: Path) -> None:
    """As its training script saves them, `r3d18_K_200ep.pth` and its kind."""
    theirs = resnets_3d_weights(name)
    assert len(theirs) == tensors
    network, layer = create_network(f"srtg_{name}", 9), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    content = {"epoch": 200, "arch": "resnet-18", "optimizer": optimizer.state_dict()}
    content["state_dict"] = {f"module.{key}": value for key, value in theirs.items()}
    torch.save({**content, "scheduler": scheduler.state_dict()}, tmp_path / "w.pth")
    report = load_weights(network, tmp_path / "w.pth")
    assert report.format == "3d-resnets"
    assert [key for key, *_ in report.shape_mismatch] == ["fc.weight", "fc.bias"]
    assert (len(report.loaded), report.unexpected) == (tensors - 2, [])
    assert all(".sar." in key for key in report.missing)
    assert report.normalization["channel_order"] == "rgb"
    assert report.normalization["mean"] == [0.4345, 0.4051, 0.3775]
    assert report.check(f"srtg_{name}") is None
    half = "_s" if name == "r2plus1d_18" else ""
    assert torch.equal(network.layer2[0].conv2[0][0].weight, theirs[f"layer2.0.conv2{half}.weight"])
    assert torch.equal(network.stem[1].bias, theirs[f"bn1{half}.bias"])


def test_the_stem_of_3d_resnets_sees_equal_frames_as_before(tmp_path: Path) -> None:
    theirs = resnets_3d_weights("r3d_18")
    torch.save(theirs, tmp_path / "w.pth")
    network = create_network("r3d_18", 9)
    load_weights(network, tmp_path / "w.pth")
    clip = torch.randn(1, 3, 1, 16, 16).expand(-1, -1, 9, -1, -1)
    expected = nn.functional.conv3d(clip, theirs["conv1.weight"], stride=(1, 2, 2), padding=(3, 3, 3))
    torch.testing.assert_close(network.stem[0](clip)[:, :, 4], expected[:, :, 4], rtol=1e-4, atol=1e-4)
    torch.save(resnets_3d_weights("r3d_18", stem_length=3), tmp_path / "w.pth")
    assert len(load_weights(network, tmp_path / "w.pth").loaded) == 120


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


def torchvision_logits(weights: Weights, clips: Tensor) -> Tensor:
    """The video ResNets of torchvision, written out: no pooling after the stem."""

    def norm(x: Tensor, name: str) -> Tensor:
        moments = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return nn.functional.batch_norm(x, *moments, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.weight"]
        strides = [stride if size > 1 else 1 for size in kernel.shape[2:]]
        return nn.functional.conv3d(
            x, kernel, stride=strides, padding=[size // 2 for size in kernel.shape[2:]]
        )

    def block_conv(x: Tensor, name: str, stride: int) -> Tensor:
        if f"{name}.0.3.weight" in weights:
            half = norm(conv(x, f"{name}.0.0", stride), f"{name}.0.1").relu()
            return norm(conv(half, f"{name}.0.3", stride), f"{name}.1")
        return norm(conv(x, f"{name}.0", stride), f"{name}.1")

    def stem(x: Tensor, name: str, stride: tuple[int, int, int]) -> Tensor:
        kernel = weights[f"{name}.weight"]
        x = nn.functional.conv3d(x, kernel, stride=stride, padding=[size // 2 for size in kernel.shape[2:]])
        return norm(x, name.replace("0", "1").replace("3", "4")).relu()

    x = stem(clips, "stem.0", (1, 2, 2))
    x = stem(x, "stem.3", (1, 1, 1)) if "stem.3.weight" in weights else x
    for stage in range(1, 5):
        for number in range(2):
            block, stride = f"layer{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            out = block_conv(block_conv(x, f"{block}.conv1", stride).relu(), f"{block}.conv2", 1)
            if f"{block}.downsample.0.weight" in weights:
                kernel = weights[f"{block}.downsample.0.weight"]
                x = norm(nn.functional.conv3d(x, kernel, stride=stride), f"{block}.downsample.1")
            x = (out + x).relu()
    return nn.functional.linear(x.mean(dim=(2, 3, 4)), weights["fc.weight"], weights["fc.bias"])


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18"])
def test_without_pooling_the_networks_are_torchvisions(name: str, tmp_path: Path) -> None:
    network = create_network(name, 400, stem_pool=False).double()
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64)
    network(clips)  # running statistics
    theirs = {
        key.replace(".0.0.weight", ".0.weight") if name == "r3d_18" else key: value
        for key, value in network.state_dict().items()
    }
    torch.save(theirs, tmp_path / "w.pth")
    loaded = create_network(name, 400, stem_pool=False).double().eval()
    assert load_weights(loaded, tmp_path / "w.pth").format == "torchvision"
    with torch.no_grad():
        torch.testing.assert_close(loaded(clips), torchvision_logits(theirs, clips))


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
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
