"""Weights of other codebases: names and shapes, which of them load, and what they compute."""

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from network import create_network
from network.pretrained import load_weights
from network.pretrained_formats import CHECKPOINT_FORMATS, detect_format, from_imagenet

Weights = dict[str, Tensor]


def meta_weights(name: str, num_classes: int = 400) -> Weights:
    with torch.device("meta"):
        return create_network(name, num_classes).state_dict()


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
