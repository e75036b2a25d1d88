"""python -m train.export: exported files return the network's logits and describe themselves."""

import json
from pathlib import Path

import pytest
import torch
from onnxruntime import InferenceSession
from safetensors import safe_open

from network import create_network
from network.pretrained import load_weights
from tests.commands import error_of, main_of
from tests.train.checkpoints import make_checkpoint
from train import export
from train.export import largest_difference
from train.inference import InferenceModel, load_inference_model
from train.input_norm import ClipNormalizer
from train.options import Options

main = main_of("train.export")

SMALL = {"clip_length": 4, "clip_size": 32, "short_side": 96}


def load(checkpoint: Path) -> InferenceModel:
    return load_inference_model(checkpoint, torch.device("cpu"))


def export_to(path: Path, options: Options) -> InferenceModel:
    """Export an untrained network to a path; return the network."""
    rgb = ClipNormalizer(channel_order="rgb").to_dict()
    checkpoint = make_checkpoint(path.with_suffix(".pth"), options, normalization=rgb)
    assert main([str(checkpoint), "-o", str(path)]) == 0
    assert sorted(path.parent.iterdir()) == sorted([path, checkpoint])
    return load(checkpoint)


def random_clips(batch: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 4, 32, 32, 3), dtype=torch.uint8)


def assert_same_logits(logits: torch.Tensor, model: InferenceModel, clips: torch.Tensor) -> None:
    expected = model.logits(clips)
    assert expected.std(dim=0).min() > 1e-2  # so that other clips or channel orders would show
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def assert_metadata(metadata: dict[str, str], model: InferenceModel) -> None:
    assert metadata["network"] == model.options.network
    assert json.loads(metadata["classes"]) == ["a", "b", "c"]
    assert ClipNormalizer.from_dict(json.loads(metadata["normalization"])) == model.normalization
    names = ("clip_length", "clip_size", "frame_interval", "short_side")
    assert [metadata[name] for name in names] == ["4", "32", "2", "37"]  # 32 is 256/294 of 37


def test_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    model = export_to(path, Options(network="srtg_tiny", gates=True, **SMALL))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}: srtg_tiny, 3 classes, clips of 4x32x32, ")
    assert second.startswith("matches the network for batch sizes 1, 2, 5: largest difference of logits ")
    session = InferenceSession(path)
    clips = random_clips(7)
    (logits,) = session.run(["logits"], {"clips": clips.numpy()})
    assert_same_logits(torch.from_numpy(logits), model, clips)
    metadata = session.get_modelmeta().custom_metadata_map
    assert_metadata(metadata, model)
    assert metadata["input"].startswith("clips, uint8 (batch, frames, height, width, 3): BGR")
    assert json.loads(metadata["network_options"]) == {"gates": True}


def test_pytorch_program(tmp_path: Path) -> None:
    model = export_to(tmp_path / "model.pt2", Options(network="tiny", **SMALL))
    metadata = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=metadata).module()
    clips = random_clips(7)
    assert_same_logits(program(clips), model, clips)
    assert_metadata(json.loads(metadata["metadata.json"]), model)


def test_safetensors(tmp_path: Path) -> None:
    """The file also has the normalization, for training from these weights."""
    path = tmp_path / "model.safetensors"
    model = export_to(path, Options(network="srtg_tiny", gates="soft", **SMALL))
    with safe_open(path, framework="pt") as file:
        assert_metadata(file.metadata(), model)
        assert json.loads(file.metadata()["network_options"]) == {"gates": "soft"}
    network = create_network("srtg_tiny", 3, gates="soft").eval()
    report = load_weights(network, path)
    assert ClipNormalizer.from_dict(report.normalization) == model.normalization
    clips = random_clips(2)
    with torch.no_grad():
        assert_same_logits(network(model.normalization(clips)), model, clips)


def test_a_file_with_other_logits_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make_checkpoint(tmp_path / "net.pth", Options(network="tiny", **SMALL))

    def read_wrongly(model: InferenceModel, _: Path) -> export.LogitsFunction:
        return lambda clips: model.logits(clips) + 0.01 * (len(clips) == export.TEST_BATCHES[-1])

    exporter = export.EXPORTERS[".safetensors"]._replace(read=read_wrongly)
    monkeypatch.setitem(export.EXPORTERS, ".safetensors", exporter)
    error = error_of(main, checkpoint, "-o", tmp_path / "model.safetensors")
    assert "model.safetensors: not saved, logits differ from the network's by " in error
    assert list(tmp_path.iterdir()) == [checkpoint]
    model = load(checkpoint)
    assert not largest_difference(model, lambda clips: model.logits(clips) * float("nan")) <= export.TOLERANCE


def test_errors(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "net.pth", Options(network="tiny", **SMALL))
    error = error_of(main, checkpoint, "-o", tmp_path / "model.pb")
    assert error.startswith("python -m train.export: error: ")
    assert "model.pb: must end with one of .onnx, .pt2, .safetensors" in error
    assert "none.pth: " in error_of(main, tmp_path / "none.pth", "-o", tmp_path / "model.pt2")
