"""Checkpoints loaded for inference: the weights, preprocessing and logits of the run's own validation."""

from pathlib import Path

import pytest
import torch

from data.batch_sampler import BatchShape, ValBatchSampler
from data.clip_loader import ClipLoader
from data.datasets import CUSTOM
from data.video_iterator import ValDataset
from data.video_list import load_dataset
from tests.train.checkpoints import make_checkpoint
from tests.train.helpers import NAME, folder, rows, train
from train.inference import load_inference_model
from train.options import Options

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def results(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an EMA and other options than the defaults."""
    results = tmp_path_factory.mktemp("results")
    flags = "--end-epoch 2 --save-frequency 2 --lr-base 0.001 --ema-decay 0.9 --channel-order rgb --pool soft"
    assert train(stores, results, flags) == 0
    return results


def test_logits_are_those_of_validation(results: Path, stores: Path) -> None:
    """So the clips are normalized as in training, and the weights are those of the EMA."""
    model = load_inference_model(folder(results) / f"{NAME}_ep-0002.pth", CPU)
    assert (model.classes, model.epoch, model.precision) == (("a", "b", "c"), 2, "fp32")
    assert (model.options.clip_length, model.options.clip_size, model.short_side) == (4, 32, 36)
    assert model.normalization.channel_order == "rgb"
    assert not model.network.training
    options = model.options
    dataset = load_dataset(stores, CUSTOM, "", labels=None, num_classes=None, max_missing=0)
    clips = ValDataset(dataset.val, interval=options.val_frame_interval, short_side=options.short_side)
    shape = BatchShape(len(clips), options.clip_length, options.clip_size)
    (batch,) = ClipLoader(clips, ValBatchSampler(len(clips), shape), workers=0)
    logits = model.logits(batch.clips)
    _, top1, _, loss = map(float, rows(results, "val")[-1])
    assert (logits.argmax(dim=1) == batch.labels).double().mean().item() == pytest.approx(top1, abs=1e-6)
    assert torch.nn.functional.cross_entropy(logits, batch.labels).item() == pytest.approx(loss, rel=1e-4)
    one_by_one = torch.cat([model.logits(clip[None]) for clip in batch.clips])
    torch.testing.assert_close(one_by_one, logits, rtol=1e-4, atol=1e-5)


def test_half_precision_is_close(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "net.pth", Options(network="srtg_tiny", short_side=36))
    clips = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    full, half = (load_inference_model(checkpoint, CPU, name).logits(clips) for name in ("fp32", "bf16"))
    assert half.dtype == full.dtype == torch.float32
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.3)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("incompatible checkpoint: unknown network 'r3d_19'", {"options": {"network": "r3d_19"}}),
        ("incompatible checkpoint: .*color", {"options": {"color": "red"}}),
        ("incompatible checkpoint: .*loading state_dict", {"classes": ["a"]}),
        ("not a checkpoint of a training run: KeyError", {"normalization": {}}),
        ("not a checkpoint of a training run: TypeError", {"classes": None}),
    ],
)
def test_incompatible_checkpoints(message: str, changes: dict[str, object], tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "some.pth", Options(network="tiny"))
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    with pytest.raises(ValueError, match=f"some.pth: {message}"):
        load_inference_model(path, CPU)


def test_other_files_are_not_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    with pytest.raises(FileNotFoundError, match=r"some\.pth"):
        load_inference_model(path, CPU)
    for content in ([1, 2], {"state_dict": {}}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"some\.pth: not a checkpoint of a training run"):
            load_inference_model(path, CPU)
