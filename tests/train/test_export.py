"""python -m train.export: files that give the network's logits, and say what they are."""

import json
from pathlib import Path

import pytest
import torch
from onnxruntime import InferenceSession
from safetensors import safe_open

from network import create_network, registry, srtg_resnet
from network.blocks import BasicBlock
from network.layers import DepthwiseConv3D
from network.pretrained import load_weights
from tests.commands import main_of
from tests.train.checkpoints import make_checkpoint
from train import export
from train.export import notes_of
from train.inference import InferenceModel, load_inference_model
from train.input_norm import ClipNormalizer
from train.options import Options

main = main_of("train.export")

SMALL = {"clip_length": 4, "clip_size": 32, "short_side": 36}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a block a stage: exporting takes time by the operation. MTNet's blocks: tests/network/test_mtnet.py."""
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))
    srtg_resnet.define("tiny", BasicBlock, (1, 1, 1, 1), DepthwiseConv3D)


def export_to(path: Path, options: Options, channel_order: str = "bgr") -> InferenceModel:
    """What was exported."""
    checkpoint = make_checkpoint(path.with_suffix(".pth"), options)
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "normalization": ClipNormalizer(channel_order=channel_order).plain()}, checkpoint)
    assert main([str(checkpoint), "-o", str(path)]) == 0
    assert sorted(found.name for found in path.parent.iterdir()) == sorted([path.name, checkpoint.name])
    return load_inference_model(checkpoint, CPU)


def clips(batch: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 4, 32, 32, 3), dtype=torch.uint8)


def assert_agree(logits: torch.Tensor, trained: InferenceModel, batch: torch.Tensor) -> None:
    expected = trained.logits(batch)
    assert expected.std(dim=0).min() > 1e-2  # so that another clip, or order of channels, would show
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def assert_notes(notes: dict[str, str], trained: InferenceModel) -> None:
    assert notes["network"] == trained.options.network
    assert json.loads(notes["classes"]) == ["a", "b", "c"]
    assert ClipNormalizer.of(json.loads(notes["normalization"])) == trained.normalization
    assert (notes["clip_length"], notes["clip_size"], notes["frame_interval"]) == ("4", "32", "2")


def test_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(network="srtg_tiny", gates=True, **SMALL)
    trained = export_to(tmp_path / "model.onnx", options, "rgb")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"{tmp_path / 'model.onnx'}: srtg_tiny, 3 classes, clips of 4x32x32, ")
    assert printed[1].startswith(
        "agrees with the network on batches of 1, 2, 5 random clips: largest difference "
    )
    session = InferenceSession(tmp_path / "model.onnx")
    batch = clips(7)
    (logits,) = session.run(["logits"], {"clips": batch.numpy()})
    assert_agree(torch.from_numpy(logits), trained, batch)
    notes = session.get_modelmeta().custom_metadata_map
    assert_notes(notes, trained)
    assert notes["input"].startswith("clips, uint8 (batch, frames, height, width, 3): BGR")
    assert json.loads(notes["network_options"]) == {"gates": True}


def test_notes_say_how_training_scales_frames(tmp_path: Path) -> None:
    """A clip larger than `short_side`, by default 294, could not be cut from frames of the size that they said."""
    options = Options(network="srtg_tiny", clip_length=4, clip_size=48, short_side=36)
    trained = load_inference_model(make_checkpoint(tmp_path / "net.pth", options), CPU)
    assert notes_of(trained, "clips")["short_side"] == "48"


def test_a_program_of_torch(tmp_path: Path) -> None:
    trained = export_to(tmp_path / "model.pt2", Options(network="tiny", **SMALL))
    notes = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=notes).module()
    batch = clips(7)
    assert_agree(program(batch), trained, batch)
    assert_notes(json.loads(notes["metadata.json"]), trained)


def test_weights_alone(tmp_path: Path) -> None:
    """They are a start for training, too, which takes over the order of channels."""
    path = tmp_path / "model.safetensors"
    options = Options(network="srtg_tiny", gates="soft", place="top", **SMALL)
    trained = export_to(path, options, "rgb")
    with safe_open(path, framework="pt") as file:
        assert_notes(file.metadata(), trained)
        assert json.loads(file.metadata()["network_options"]) == {"gates": "soft", "place": "top"}
    network = create_network("srtg_tiny", 3, gates="soft", place="top").eval()
    report = load_weights(network, path)
    assert (report.missing, report.unexpected, report.shape_mismatch) == ([], [], [])
    assert ClipNormalizer.of(report.normalization) == trained.normalization
    batch = clips(2)
    with torch.no_grad():
        assert_agree(network(trained.normalization(batch)), trained, batch)


def test_what_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "net.pth", Options(network="tiny", **SMALL))

    def reads_something_else(trained: InferenceModel, path: Path) -> export.Ask:
        return lambda batch: trained.logits(batch) + 0.01 * (len(batch) == export.BATCHES[-1])

    changed = export.FORMATS[".safetensors"]._replace(read=reads_something_else)
    monkeypatch.setitem(export.FORMATS, ".safetensors", changed)
    with pytest.raises(SystemExit) as ended:
        main([str(checkpoint), "-o", str(tmp_path / "model.safetensors")])
    assert ended.value.code == 2
    assert (
        "model.safetensors: not written, its logits differ from the network's by 0.0"
        in capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_logits_that_are_no_numbers_do_not_agree(tmp_path: Path) -> None:
    trained = load_inference_model(
        make_checkpoint(tmp_path / "net.pth", Options(network="tiny", **SMALL)), CPU
    )
    difference = export.largest_difference(trained, lambda batch: trained.logits(batch) * float("nan"))
    assert not difference <= export.TOLERANCE


def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "model.pb: must end with one of .onnx, .pt2, .safetensors": "model.pb",
        "none.pth: there is no such checkpoint": "model.pt2",
        "model.onnx: needs the packages onnx onnxruntime: pip install onnx onnxruntime": "model.onnx",
    }
    found = export.find_spec
    monkeypatch.setattr(
        export, "find_spec", lambda name: (name not in ("onnx", "onnxruntime") and found(name)) or None
    )
    for message, name in cases.items():
        with pytest.raises(SystemExit) as ended:
            main([str(tmp_path / "none.pth"), "-o", str(tmp_path / name)])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("python -m train.export: error: ")
        assert message in line
