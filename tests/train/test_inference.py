"""What training saved, loaded to be asked: the weights, clips and numbers of its own validation."""

from pathlib import Path

import pytest
import torch

from data.batch_sampler import BatchShape, ValBatchSampler
from data.datasets import CUSTOM
from data.video_iterator import ValDataset, make_loader
from data.video_list import load_dataset
from tests.train.helpers import NAME, folder, rows, train
from train.checkpointing.checkpoint import load_checkpoint
from train.inference import InferenceModel, load_inference_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def results(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a few epochs with averaged weights and other choices than the defaults."""
    results = tmp_path_factory.mktemp("results")
    words = ["--end-epoch", "2", "--save-frequency", "2", "--lr-base", "0.001", "--ema-decay", "0.9"]
    words += ["--channel-order", "rgb", "--pool", "soft"]
    assert train(stores, results, *words) == 0
    return results


@pytest.fixture(scope="module")
def trained(results: Path) -> InferenceModel:
    return load_inference_model(folder(results) / f"{NAME}_ep-0002.pth", CPU)


def test_it_gives_what_validation_gave(results: Path, stores: Path, trained: InferenceModel) -> None:
    """So it normalises likewise, and has the averaged weights, which are not those that training goes on with."""
    options = trained.options
    dataset = load_dataset(stores, CUSTOM, "", labels=None, num_classes=None, max_missing=0)
    clips = ValDataset(dataset.val, interval=options.val_frame_interval, short_side=options.short_side)
    shape = BatchShape(len(clips), options.clip_length, options.clip_size)
    (batch,) = make_loader(clips, ValBatchSampler(len(clips), shape), workers=0)
    logits = trained.logits(batch.clips)
    assert logits.dtype == torch.float32
    _, top1, _, loss = rows(results, "val")[-1]
    assert (logits.argmax(dim=1) == batch.labels).double().mean().item() == pytest.approx(
        float(top1), abs=1e-6
    )
    assert torch.nn.functional.cross_entropy(logits, batch.labels).item() == pytest.approx(
        float(loss), rel=1e-4
    )
    one_by_one = torch.cat([trained.logits(clip[None]) for clip in batch.clips])
    torch.testing.assert_close(one_by_one, logits, rtol=1e-4, atol=1e-5)


def test_it_knows_its_run(trained: InferenceModel) -> None:
    assert (trained.classes, trained.epoch, trained.precision) == (("a", "b", "c"), 2, "fp32")
    assert (trained.options.clip_length, trained.options.clip_size, trained.options.short_side) == (4, 32, 36)
    assert trained.options.train_frame_interval == (2,)
    assert isinstance(trained.options.dataset, Path)
    assert trained.normalization.channel_order == "rgb"
    assert not trained.network.training


def test_half_precision_is_close(trained: InferenceModel, results: Path) -> None:
    half = load_inference_model(folder(results) / f"{NAME}_ep-0002.pth", CPU, "bf16")
    clips = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    logits = half.logits(clips)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, trained.logits(clips))
    torch.testing.assert_close(logits, trained.logits(clips), rtol=0.1, atol=0.1)


def test_what_is_no_checkpoint_of_a_run_says_so(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "some.pth"
    with pytest.raises(FileNotFoundError, match="some.pth: there is no such checkpoint"):
        load_inference_model(path, CPU)
    content = load_checkpoint(folder(results) / f"{NAME}_ep-0002.pth")
    cases = {
        "not a checkpoint of a training run, has no epoch, options, classes": {
            "state_dict": content["state_dict"]
        },
        "not a checkpoint of a training run, has no state_dict": [1, 2],
        "does not fit this version, unknown network 'r3d_19'": {"options": {"network": "r3d_19"}},
        "does not fit this version, has options that are unknown here: color": {"options": {"color": "red"}},
        "does not fit this version, Error\\(s\\) in loading state_dict": {"classes": ["a"]},
        "does not fit this version, its normalization is not three means": {"normalization": {}},
    }
    for message, change in cases.items():
        whole = "classes" in change or "options" in change or "normalization" in change
        torch.save({**content, **change} if whole else change, path)
        with pytest.raises(ValueError, match=f"some.pth: is .*{message}") as raised:
            load_inference_model(path, CPU)
        assert "\n" not in str(raised.value)
    path.write_text("nothing")
    with pytest.raises(ValueError, match=r"some\.pth: .*"):
        load_inference_model(path, CPU)
