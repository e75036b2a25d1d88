"""Checkpoints loaded for inference: the weights, preprocessing and logits of the run's own validation."""

import runpy
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from data.batch_sampler import BatchShape, ClipSpec, val_batches
from data.clip_loader import ClipLoader
from data.datasets import CUSTOM, SPECS
from data.ffmpeg.video_files import StoredVideo
from data.frame_store import FrameStore
from data.fused_engine import scale_short_side
from data.store_writer import write_frame_store
from data.video_iterator import ValDataset
from data.video_list import DatasetSplits, VideoIndex, load_dataset
from tests.train.checkpoints import make_checkpoint
from tests.train.helpers import NAME, folder, rows, train
from train.builders import make_loaders
from train.evaluate.multiview import evaluate
from train.export import make_metadata
from train.inference import InferenceModel, load_inference_model
from train.multigrid import MultigridSchedule
from train.options import Options, resolve
from train.parallel.distributed import DistContext
from train.predict.predictor import VideoPredictor

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
    assert (model.options.clip_length, model.options.clip_size, model.short_side) == (4, 32, 37)
    assert model.normalization.channel_order == "rgb"
    assert not model.network.training
    options = model.options
    dataset = load_dataset(stores, CUSTOM, "", labels=None, num_classes=None, max_missing=0)
    clips = ValDataset(dataset.val, interval=options.val_frame_interval)
    shape = BatchShape(len(clips), options.clip_length, options.clip_size)
    ((batch,),) = ClipLoader(clips, val_batches(len(clips), shape), workers=0)
    logits = model.logits(batch.clips)
    _, top1, _, loss = map(float, rows(results, "val")[-1])
    assert (logits.argmax(dim=1) == batch.labels).double().mean().item() == pytest.approx(top1, abs=1e-6)
    assert torch.nn.functional.cross_entropy(logits, batch.labels).item() == pytest.approx(loss, rel=1e-4)
    one_by_one = torch.cat([model.logits(clip[None]) for clip in batch.clips])
    torch.testing.assert_close(one_by_one, logits, rtol=1e-4, atol=1e-5)


SCRIPTS = (
    "train_hacs",
    "train_kinetics",
    "train_mit",
    "train_ucf101",
    "train_hmdb51",
    "train_diving48",
    "train",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_all_commands_see_the_same_pixels_of_any_dataset(
    script: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256/294 of the short side, whatever --short-side is. The large datasets saw 74 % of it."""
    if script == "train":
        spec, defaults = CUSTOM, Options(short_side=36)
    else:
        facts = runpy.run_path(str(repository / f"{script}.py"))
        spec, defaults = next(one for one in SPECS.values() if one in facts.values()), facts["DEFAULTS"]
    size = defaults.clip_size
    y, x = np.mgrid[0:192, 0:256]
    frames = [np.stack([x, y + i, (x + y) // 2], axis=-1).astype(np.uint8) for i in range(9)]
    folder = tmp_path / "jpg/a/v"
    write_frame_store(folder, [simplejpeg.encode_jpeg(frame, colorspace="BGR") for frame in frames])
    videos = VideoIndex(folder.parent, np.array([b"v"]), np.zeros(1, np.int64), np.zeros(1), Counter())
    options = resolve(spec, replace(defaults, network="tiny", clip_length=2, batch_size=1), gpus=0)

    splits = DatasetSplits(("a",), videos, videos, tmp_path / "dictionary.json")
    base = BatchShape(1, 2, size)
    schedule = MultigridSchedule(1, ((base,),))
    loaders = make_loaders(replace(options, workers=0), splits, base, schedule, DistContext(), 0)
    expected = loaders.val_dataset[ClipSpec(0, 2, size, seed=0)].clip[None]
    checkpoint = make_checkpoint(tmp_path / "net.pth", options, ["a"], dataset={"name": spec.name})
    model = load_inference_model(checkpoint, CPU)
    seen: list[torch.Tensor] = []
    logits = InferenceModel.logits
    monkeypatch.setattr(
        InferenceModel, "logits", lambda self, clips: (seen.append(clips), logits(self, clips))[1]
    )
    settings = {"batch_size": 1, "workers": 0, "skip_bad_samples": False}
    evaluate(model, videos, DistContext(), clips=1, crops=1, **settings)
    VideoPredictor(model, stride=99, batch_size=1).predict(StoredVideo(folder))
    assert torch.equal(seen[0], expected)

    metadata = make_metadata(model, "")  # of an exported file, used as docs/export.md says
    scaled = scale_short_side(FrameStore(folder).read(range(9)), int(metadata["short_side"]))
    top, left = ((side - int(metadata["clip_size"])) // 2 for side in scaled.shape[1:3])
    crops = torch.from_numpy(scaled[:, top : top + size, left : left + size])
    interval = int(metadata["frame_interval"])
    windows = [crops[[first, first + interval]] for first in range(9 - interval)]
    assert [sum(torch.equal(window, clip[0]) for window in windows) for clip in (expected, *seen)] == [1] * (
        1 + len(seen)
    )
    assert len(seen) >= 3

    width = int(expected[0, 0, size // 2, -1, 0]) - int(expected[0, 0, size // 2, 0, 0])
    assert width == pytest.approx(192 * 256 / 294, abs=3)


def test_half_precision_is_close(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "net.pth", Options(network="srtg_tiny"))
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
        with pytest.raises(ValueError, match=r"some\.pth: (not a checkpoint of a run|holds no weights)"):
            load_inference_model(path, CPU)
