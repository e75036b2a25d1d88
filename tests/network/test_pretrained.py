"""Weights from files: whose names they have, what was loaded and what was not, and files that are refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from network import create_network
from network.pretrained import IncompatibleKeys, load_weights
from network.pretrained_formats import CHECKPOINT_FORMATS

TORCHVISION = {
    "means": [0.43216, 0.394666, 0.37645],
    "deviations": [0.22803, 0.22145, 0.216989],
    "channel_order": "rgb",
}


def same(one: dict[str, Tensor], other: dict[str, Tensor], names: list[str]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.fixture(scope="module")
def source() -> dict[str, Tensor]:
    torch.manual_seed(5)
    return create_network("srtg_ir_csn_50", 4).state_dict()


@pytest.mark.parametrize(
    "content",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
    ],
    ids=["bare", "wrapped", "of DataParallel"],
)
def test_the_forms_of_published_weights(
    content: Callable[[dict], dict], source: dict, tmp_path: Path
) -> None:
    """With the prefix the original loaded nothing, silently."""
    torch.save(content(source), tmp_path / "w.pth")
    network = create_network("srtg_ir_csn_50", 4)
    report = load_weights(network, tmp_path / "w.pth")
    assert sorted(report.loaded) == sorted(source)
    assert [*report.shape_mismatch, *report.missing, *report.unexpected] == []
    assert same(network.state_dict(), source, list(source))
    assert (report.layout, report.normalization) == ("own", None)


def test_safetensors(source: dict, tmp_path: Path) -> None:
    save_file(source, tmp_path / "w.safetensors")
    network = create_network("srtg_ir_csn_50", 4)
    assert len(load_weights(network, tmp_path / "w.safetensors").loaded) == len(source)
    assert same(network.state_dict(), source, list(source))


def test_another_class_count_and_the_account(source: dict, tmp_path: Path) -> None:
    plain = {name: value for name, value in source.items() if ".sar." not in name}
    torch.save({**plain, "extra.weight": torch.zeros(2, 3)}, tmp_path / "w.pth")
    network = create_network("srtg_ir_csn_50", 9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = load_weights(network, tmp_path / "w.pth")
    assert report.shape_mismatch == [("fc.weight", (4, 512), (9, 512)), ("fc.bias", (4,), (9,))]
    assert [row.name for row in report.missing] == [name for name in source if ".sar." in name]
    assert report.unexpected == [("extra.weight", (2, 3), None)]
    assert len(report.loaded) == len(plain) - 2
    after = network.state_dict()
    assert same(after, source, list(report.loaded))
    assert same(after, before, [row.name for row in (*report.shape_mismatch, *report.missing)])
    lines = str(report).splitlines()
    assert lines[0].endswith(
        f"{len(plain) - 2} tensors loaded, 2 of another shape, {len(source) - len(plain)} not in the file, "
        "1 not in the network (layout: own)"
    )
    assert lines[1].split() == ["not", "loaded", "in", "the", "file", "in", "the", "network"]
    assert lines[2].split() == ["fc.weight", "4x512", "9x512"]
    assert lines[-1].split() == ["extra.weight", "2x3", "-"]
    assert len(lines) == 2 + len(report.shape_mismatch) + len(report.missing) + len(report.unexpected)


def torchvision_names(network: str) -> list[str]:
    """What torchvision's r3d_18 or r2plus1d_18 calls its tensors, from its structure."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    factorised = network == "r2plus1d_18"
    names = ["stem.0.weight", *(f"stem.1.{what}" for what in norm)]
    if factorised:
        names += ["stem.3.weight", *(f"stem.4.{what}" for what in norm)]
    for stage in range(1, 5):
        for block in range(2):
            place = f"layer{stage}.{block}"
            for conv in ("conv1", "conv2"):
                if factorised:
                    names += [f"{place}.{conv}.0.{part}.weight" for part in (0, 3)]
                    names += [f"{place}.{conv}.0.1.{what}" for what in norm]
                else:
                    names.append(f"{place}.{conv}.0.weight")
                names += [f"{place}.{conv}.1.{what}" for what in norm]
            if block == 0 and stage > 1:
                names.append(f"{place}.downsample.0.weight")
                names += [f"{place}.downsample.1.{what}" for what in norm]
    return [*names, "fc.weight", "fc.bias"]


def as_torchvision(network: str) -> dict[str, Tensor]:
    """Weights of torchvision's network, with its names."""
    ours = create_network(network, 400).state_dict()
    by_theirs = {
        name.replace(".0.0.weight", ".0.weight") if network == "r3d_18" else name: name for name in ours
    }
    assert sorted(by_theirs) == sorted(torchvision_names(network))
    return {theirs: torch.randn_like(ours[name].float()) for theirs, name in by_theirs.items()}


@pytest.mark.parametrize("network", ["r3d_18", "r2plus1d_18"])
@pytest.mark.parametrize("prefix", ["", "srtg_"])
def test_torchvision(network: str, prefix: str, tmp_path: Path) -> None:
    theirs = as_torchvision(network)
    torch.save(theirs, tmp_path / "w.pth")
    target = create_network(prefix + network, 400)
    report = load_weights(target, tmp_path / "w.pth")
    assert report.layout == "torchvision"
    assert report.normalization == TORCHVISION
    assert len(report.loaded) == len(theirs)
    assert not report.unexpected
    assert all(".sar." in row.name for row in report.missing)
    kernel = "layer2.1.conv1.0.0.weight"
    assert torch.equal(
        target.state_dict()[kernel], theirs[kernel if kernel in theirs else "layer2.1.conv1.0.weight"]
    )


def test_a_checkpoint_of_ours_says_what_it_was_trained_with(tmp_path: Path) -> None:
    """Names do not tell our r2plus1d_18 from torchvision's; what is wrapped is ours."""
    weights = create_network("r2plus1d_18", 400).state_dict()
    kept = {"means": [0.1, 0.2, 0.3], "deviations": [1.0, 1.0, 1.0], "channel_order": "rgb"}
    torch.save({"state_dict": weights, "normalization": kept}, tmp_path / "ours.pth")
    report = load_weights(create_network("r2plus1d_18", 400), tmp_path / "ours.pth")
    assert (report.layout, report.normalization) == ("own", kept)
    torch.save(weights, tmp_path / "bare.pth")
    for layout, expected in (("auto", "torchvision"), ("own", "own"), ("torchvision", "torchvision")):
        report = load_weights(create_network("r2plus1d_18", 400), tmp_path / "bare.pth", layout)
        assert report.layout == expected
    torch.save(create_network("r2plus1d_18", 7).state_dict(), tmp_path / "seven.pth")
    assert load_weights(create_network("r2plus1d_18", 7), tmp_path / "seven.pth").layout == "own"


class Image2D(nn.Module):
    """ResNet-18 or -34 for images, written out, to hold inflated features against."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        before = 64
        for stage, depth in enumerate(depths, start=1):
            channels = 32 * 2**stage
            blocks = nn.Sequential()
            for number in range(depth):
                block = nn.Module()
                stride = 2 if number == 0 and stage > 1 else 1
                block.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
                block.bn1 = nn.BatchNorm2d(channels)
                block.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
                block.bn2 = nn.BatchNorm2d(channels)
                if stride == 2:
                    block.downsample = nn.Sequential(
                        nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
                    )
                before = channels
                blocks.append(block)
            self.add_module(f"layer{stage}", blocks)
        self.fc = nn.Linear(512, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                out = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
                x = (out + (block.downsample(x) if hasattr(block, "downsample") else x)).relu()
        return self.fc(x.mean(dim=(2, 3)))


@pytest.mark.parametrize(("name", "depths"), [("r3d_18", (2, 2, 2, 2)), ("srtg_r3d_34", (3, 4, 6, 3))])
def test_a_2d_resnet_inflated(name: str, depths: tuple[int, ...], tmp_path: Path) -> None:
    torch.save(Image2D(depths).state_dict(), tmp_path / "w.pth")
    report = load_weights(create_network(name, 1000), tmp_path / "w.pth")
    assert report.layout == "imagenet"
    assert report.normalization["channel_order"] == "rgb"
    assert [*report.shape_mismatch, *report.unexpected] == []
    assert all(".sar." in row.name for row in report.missing)


def test_an_inflated_network_sees_a_still_as_the_2d_one_does(tmp_path: Path) -> None:
    """In the middle of a long clip of equal frames, where zero padding in time does not reach."""
    image_network = Image2D((2, 2, 2, 2)).eval()
    torch.save(image_network.state_dict(), tmp_path / "w.pth")
    network = create_network("r3d_18", 1000).eval()
    load_weights(network, tmp_path / "w.pth")
    image = torch.randn(1, 3, 64, 64)
    clip = image.unsqueeze(2).expand(-1, -1, 24, -1, -1)
    with torch.no_grad():
        video = network.pool(network.stem(clip))
        still = torch.max_pool2d(image_network.bn1(image_network.conv1(image)).relu(), 3, 2, 1)
    torch.testing.assert_close(video[:, :, 6], still, rtol=1e-4, atol=1e-4)


def test_2d_weights_load_what_fits_elsewhere(tmp_path: Path) -> None:
    torch.save(Image2D((2, 2, 2, 2)).state_dict(), tmp_path / "w.pth")
    report = load_weights(create_network("mtnet_xs", 5), tmp_path / "w.pth")
    assert "stem.0.weight" in report.loaded
    assert len(report.unexpected) > 50


class Code:
    """What a pickle must not be able to run."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_needs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}, "x": Code()}, "w.pth")
    with pytest.raises(
        ValueError, match=r"w\.pth: holds more than tensors and plain values.* not loaded\. .+"
    ):
        load_weights(create_network("r3d_18", 4), Path("w.pth"))
    Path("raw.pth").write_bytes(pickle.dumps(Code()))
    with pytest.raises(ValueError, match=r"raw\.pth: "):
        load_weights(create_network("r3d_18", 4), Path("raw.pth"))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"no checkpoint", "holds more than tensors and plain values, or is damaged"),
        ("w.safetensors", b"no checkpoint", "is damaged or not a checkpoint"),
        ("w.safetensors", b"", "is damaged or not a checkpoint"),
        ("w.pth", b"", "is damaged or not a checkpoint"),
    ],
)
def test_damaged_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        load_weights(create_network("r3d_18", 4), tmp_path / name)


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}: there is no such checkpoint"):
        load_weights(create_network("r3d_18", 4), tmp_path / name)


def test_nothing_that_fits_is_an_error(tmp_path: Path) -> None:
    """The original warned, and trained from random weights."""
    torch.save({"other.weight": torch.zeros(3), "another": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"none of its 2 tensors has a name and shape of this network's"):
        load_weights(create_network("r3d_18", 4), tmp_path / "w.pth")
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no weights, neither by itself nor under 'state_dict'"):
        load_weights(create_network("r3d_18", 4), tmp_path / "w.pth")


def test_layouts_are_known_by_name() -> None:
    assert list(CHECKPOINT_FORMATS) == ["own", "torchvision", "imagenet"]
    assert IncompatibleKeys._fields[2:6] == ("loaded", "shape_mismatch", "missing", "unexpected")
