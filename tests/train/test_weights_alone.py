"""Weights without a checkpoint, by file or by name, in training, evaluation and prediction."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from data.label_files import write_classes
from tests.commands import error_of, main_of
from tests.network.zoo_helpers import publish, save_as_the_original
from tests.train.checkpoints import make_checkpoint
from tests.train.helpers import train
from tests.train.toy_task import write_video
from train.inference import WeightsInfo
from train.options import Options
from train.scores import Scores

evaluate, predict, export = main_of("train.evaluate"), main_of("train.predict"), main_of("train.export")
QUICK = ["--workers", "0", "--gpus", "0", "--clips", "1", "--crops", "1", "--batch-size", "4"]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the original's layout, which is also `zoo:srtg_tiny`."""
    publish(monkeypatch, tmp_path, "w.pth")
    return save_as_the_original(tmp_path / "w.pth")


@pytest.fixture
def dataset(stores: Path, tmp_path: Path) -> Path:
    """The dataset with a class index, in another order than its label files."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "jpg").symlink_to(stores / "jpg")
    shutil.copytree(stores / "labels", root / "labels")
    write_classes(root / "labels/dictionary.json", ["c", "a", "b"])
    return root


def test_weights_are_evaluated_as_their_checkpoint(weights: Path, dataset: Path, tmp_path: Path) -> None:
    """As a file, as safetensors and by name. Their classes are those of the class index, or of a text file."""
    checkpoint = make_checkpoint(
        tmp_path / "full.pth", Options(network="srtg_tiny", clip_size=32), ("c", "a", "b")
    )
    content = torch.load(checkpoint, weights_only=True)
    original = torch.load(weights, weights_only=True)["state_dict"]
    content["state_dict"] = {name.removeprefix("module."): value for name, value in original.items()}
    torch.save(content, checkpoint)
    assert export([str(checkpoint), "-o", str(tmp_path / "w.safetensors")]) == 0
    names = tmp_path / "names.txt"
    names.write_text("c\na\nb\n")
    described = ["--network", "srtg_tiny", "--data-spec", "custom", "--clip-size", "32"]
    results = []
    for number, words in enumerate(
        (
            [checkpoint],
            [weights, *described],
            [tmp_path / "w.safetensors", *described, "--class-names", names],
            ["zoo:srtg_tiny"],
        )
    ):
        output = tmp_path / str(number)
        where = ["--dataset", str(dataset), "--output", str(output)]
        assert evaluate([*map(str, words), *where, *QUICK]) == 0
        results.append(Scores.load(output / "scores.npz"))
    assert {result.classes for result in results} == {("c", "a", "b")}
    for result in results[1:]:
        np.testing.assert_array_equal(result.probabilities, results[0].probabilities)
        np.testing.assert_array_equal(result.labels, results[0].labels)


def test_prediction_by_name(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "v.mp4", np.full((40, 64, 80), 90))
    words = ["zoo:srtg_tiny", str(video), "--gpus", "0"]
    error = error_of(predict, *words)
    assert error.endswith(
        "its classes have no names; --class-names FILE has them in the order of its outputs"
    )
    write_classes(tmp_path / "names.json", ["run", "jump", "fly"])
    assert predict([*words, "--class-names", str(tmp_path / "names.json")]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"run", "jump", "fly"}


def test_training_starts_from_weights_by_name(
    weights: Path, stores: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flags = "--network srtg_tiny --pretrained-3d zoo:srtg_tiny --end-epoch 1"
    assert train(stores, tmp_path / "results", flags) == 0
    assert "home/hub/checkpoints/srtg_tiny_custom.pth: " in caplog.text
    assert " tensors loaded, 0 with a different shape, 0 not in the file, 0 not in the network" in caplog.text


@pytest.mark.parametrize(
    ("spec", "num_classes", "variant", "clip_size", "interval", "short_side"),
    [("hacs", 200, "", 284, 2, 384), ("kinetics", 400, "400", 284, 5, 384), ("custom", 7, "", 224, 2, 294)],
)
def test_a_dataset_decides_clips_and_label_files(
    spec: str, num_classes: int, variant: str, clip_size: int, interval: int, short_side: int, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(num_classes)))
    content = {"fc.weight": torch.zeros(num_classes, 8)}
    made = WeightsInfo("mtnet_s", spec, names).to_checkpoint(content, Path("w.pth"))
    options = Options.from_dict(made["options"])
    assert (options.variant, options.clip_length, options.clip_size) == (variant, 16, clip_size)
    assert (options.val_frame_interval, options.short_side) == (interval, short_side)
    assert (made["normalization"]["channel_order"], made["classes"][-1]) == (
        "bgr",
        f"class {num_classes - 1}",
    )


def test_messages(weights: Path, stores: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    video = str(write_video(tmp_path / "v.mp4", np.full((4, 64, 80), 90)))
    checkpoint = make_checkpoint(tmp_path / "full.pth", Options(network="srtg_tiny"))
    described = ("--network", "srtg_tiny", "--data-spec", "custom")
    for words, message in [
        (
            (weights,),
            f"{weights}: not a checkpoint of a run; weights alone need --network and --data-spec",
        ),
        ((weights, *described, "--class-names", names), f"{names}: names 2 classes, {weights} has 3"),
        (
            (weights, *described, "--class-names", "no.json"),
            f"{weights}: there is no no.json; --class-names FILE",
        ),
        (
            (checkpoint, "--clip-size", 32),
            f"{checkpoint}: a checkpoint of a run; --network and so on describe weights",
        ),
        (("zoo:nothing",), "zoo:nothing: no weights of this name are published; there are srtg_r3d_34, "),
    ]:
        assert message in error_of(predict, words[0], video, *words[1:], "--gpus", "0")
    names.write_text("a\nb\nc\n")
    headless = tmp_path / "headless.pth"
    torch.save({"layer1.weight": torch.zeros(1)}, headless)
    error = error_of(predict, headless, video, *described, "--gpus", "0")
    assert f"{headless}: no weights of a network of this code: fc.weight is missing" in error
    words = (
        weights,
        video,
        "--network",
        "tiny",
        "--data-spec",
        "custom",
        "--class-names",
        names,
        "--gpus",
        "0",
    )
    assert f"{weights}: incompatible checkpoint: " in error_of(predict, *words)


def test_weights_are_exported(weights: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\n")
    flags = [
        "--network",
        "srtg_tiny",
        "--data-spec",
        "custom",
        "--clip-size",
        "32",
        "--class-names",
        str(names),
    ]
    assert export([str(weights), *flags, "-o", str(tmp_path / "w.safetensors")]) == 0
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert (file.metadata()["classes"], file.metadata()["clip_size"]) == ('["a", "b", "c"]', "32")


def test_an_unknown_name_stops_training(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(stores, tmp_path, "--pretrained-3d zoo:nothing") == 2
    assert "train: error: zoo:nothing: no weights of this name are published" in capsys.readouterr().err
