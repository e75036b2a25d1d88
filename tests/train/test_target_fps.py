"""--target-fps: an interval means the same seconds in every video, in all that reads clips.

Frames are painted with their time in milliseconds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data.batch_sampler import ClipSpec
from data.datasets import CUSTOM
from data.ffmpeg.encoding import video_writer
from data.ffmpeg.video_files import StoredVideo, VideoFile
from data.multiview import MultiViewDataset
from data.store_writer import write_frame_store
from data.video_iterator import TrainDataset, ValDataset
from data.video_list import VideoIndex, load_dataset
from data.video_sampler import center_clip, clip_span, random_clip, uniform_clips
from tests.commands import main_of
from tests.synthetic_frames import indices_of, paint, painted_jpegs
from tests.train.checkpoints import make_checkpoint
from tests.train.helpers import NAME, folder, train
from train.evaluate.multiview import evaluate
from train.export import make_metadata
from train.inference import InferenceModel, load_inference_model
from train.options import Options
from train.parallel.distributed import DistContext
from train.predict.predictor import VideoPredictor

FPS, SECONDS = 25, 2
LENGTH, INTERVAL, SIZE = 6, 2, 50
TIMES = {  # of the frames of each video; the last frame lasts 0.05 s in the last one
    **{f"at{rate}": np.arange(SECONDS * rate) / rate for rate in (15, 30, 60)},
    "variable": np.cumsum([0, 0.017, 0.05, 0.033, *[0.02, 0.1, 0.04, 0.08] * 7, 0.06, 0.05, 0.06]),
}
OPTIONS = Options(
    network=NAME,
    clip_length=LENGTH,
    clip_size=SIZE,
    short_side=SIZE,
    val_frame_interval=INTERVAL,
    target_fps=FPS,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset converted from one scene at several rates."""
    root = tmp_path_factory.mktemp("rates")
    for name, times in TIMES.items():
        with video_writer(root / "videos" / name / "v.mp4", 60, 60) as writer:
            for seconds in times:
                writer.write(paint(round(1000 * seconds), size=60), seconds)
    assert (
        main_of("data.convert")([str(root / "videos"), str(root), "--short-side", "60", "--half-level"]) == 0
    )
    write_labels(root, TIMES)
    return root


def write_labels(root: Path, classes: Iterable[str]) -> None:
    (root / "labels").mkdir()
    for split in ("train", "val"):
        rows = [f"{name},v\n" for name in classes]
        (root / "labels" / f"{split}.csv").write_text("label,id\n" + "".join(rows))


def videos_of(root: Path) -> VideoIndex:
    return load_dataset(root, CUSTOM, "", labels=None, num_classes=None, max_missing=0).train


def train_dataset(videos: VideoIndex, target_fps: float | None) -> TrainDataset:
    settings = {"clip_size": SIZE, "short_side": SIZE, "augment": "none", "flip": False}
    return TrainDataset(videos, intervals=[INTERVAL], base_length=LENGTH, target_fps=target_fps, **settings)


def seconds_of(clip: torch.Tensor) -> list[float]:
    return [milliseconds / 1000 for milliseconds in indices_of(clip.numpy())]


def show(clips: Sequence[torch.Tensor], virtual: Sequence[Sequence[int]], name: str) -> bool:
    """Return whether clips show the frames of a video that are nearest to these of FPS."""
    shown, wanted = np.array([seconds_of(clip) for clip in clips]), np.array(virtual) / FPS
    nearest = np.abs(TIMES[name] - wanted[..., None]).min(axis=-1)  # at most half a frame
    return bool((np.abs(shown - wanted) <= nearest + 1.1e-3).all())


@pytest.mark.parametrize("name", TIMES)
def test_clips_have_the_same_seconds_at_any_rate(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    videos, count = videos_of(root), SECONDS * FPS
    index = list(TIMES).index(name)
    specs = [ClipSpec(index, LENGTH, SIZE, seed) for seed in range(20)]
    drawn = [random_clip(count, LENGTH, [INTERVAL], np.random.default_rng(seed)) for seed in range(20)]
    timed, untimed = (train_dataset(videos, fps) for fps in (FPS, None))
    assert show([timed[spec].clip for spec in specs], drawn, name)
    assert not show([untimed[spec].clip for spec in specs], drawn, name)

    middle = ValDataset(videos, interval=INTERVAL, target_fps=FPS)[specs[0]].clip
    assert show([middle], [center_clip(count, LENGTH, INTERVAL)], name)

    seen: list[torch.Tensor] = []
    logits = InferenceModel.logits
    monkeypatch.setattr(
        InferenceModel, "logits", lambda self, clips: (seen.extend(clips), logits(self, clips))[1]
    )
    model = load_inference_model(make_checkpoint(tmp_path / "net.pth", OPTIONS, list(TIMES)), CPU)
    settings = {"clips": 4, "crops": 1, "batch_size": 1, "workers": 0, "skip_bad_samples": False}
    evaluate(model, videos, DistContext(), **settings)
    assert show(seen[4 * index : 4 * index + 4], uniform_clips(count, LENGTH, INTERVAL, 4), name)

    span = clip_span(LENGTH, INTERVAL)
    starts = [*range(0, count - span + 1, span), count - span]
    for video in (StoredVideo(videos.folder(index)), VideoFile(root / "videos" / name / "v.mp4")):
        seen.clear()
        prediction = VideoPredictor(model, stride=span, batch_size=3).predict(video)
        assert show(seen, [range(start, start + span, INTERVAL) for start in starts], name)
        assert prediction.num_frames == len(TIMES[name])
        ends = [(clip[0], clip[-1]) for clip in map(seconds_of, seen)]
        np.testing.assert_allclose(TIMES[name][prediction.frames], ends, atol=6e-4)  # frames of the source


def test_without_times_intervals_are_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_frame_store(tmp_path / "jpg/a/v", painted_jpegs(40))
    write_labels(tmp_path, ["a"])
    videos, spec = videos_of(tmp_path), ClipSpec(0, LENGTH, SIZE, 1)
    for clips in (
        [train_dataset(videos, fps) for fps in (None, FPS)],
        [ValDataset(videos, interval=INTERVAL, target_fps=fps) for fps in (None, FPS)],
        [
            MultiViewDataset(videos, interval=INTERVAL, target_fps=fps, clips=3, crops=1)
            for fps in (None, FPS)
        ],
    ):
        assert torch.equal(*(dataset[spec].clip for dataset in clips))
    frames = []
    for fps in (None, FPS):
        options = replace(OPTIONS, target_fps=fps)
        model = load_inference_model(make_checkpoint(tmp_path / "net.pth", options), CPU)
        prediction = VideoPredictor(model, 3, 4).predict(StoredVideo(videos.folder(0)))
        frames.append(prediction.frames.tolist())
    assert frames[0] == frames[1]
    assert (
        train(tmp_path, tmp_path / "out", f"--target-fps {FPS} --end-epoch 1 --batch-size 1 --clip-size 64")
        == 0
    )
    text = f"--target-fps: {videos.folder(0)} and maybe others lack times; intervals are frames"
    assert text in caplog.text


def test_a_run_says_which_seconds_it_sees(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And its checkpoint remembers the option; one from before it has none."""
    validated: set[float | None] = set()
    read = ValDataset.read
    monkeypatch.setattr(
        ValDataset, "read", lambda self, *words: (validated.add(self.target_fps), read(self, *words))[1]
    )
    caplog.set_level("DEBUG")
    flags = f"--clip-length {LENGTH} --end-epoch 1 --debug-mode --train-frame-interval {INTERVAL}"
    assert train(root, tmp_path / "out", flags, f"--target-fps {FPS}") == 0
    assert "lack times" not in caplog.text
    assert validated == {FPS}
    shown = re.findall(r"rates\d*/jpg/(\w+)/v .*?, ([\d.]+) to ([\d.]+) s;", caplog.text)
    assert {name for name, _, _ in shown} == TIMES.keys()
    for name, first, last in shown:
        error = np.diff(TIMES[name]).max() + 0.01  # half a frame at both ends, and rounding
        assert float(last) - float(first) == pytest.approx(INTERVAL * (LENGTH - 1) / FPS, abs=error)
    checkpoint = folder(tmp_path / "out") / f"{NAME}_ep-0001.pth"
    model = load_inference_model(checkpoint, CPU)
    assert (model.options.target_fps, make_metadata(model, "")["target_fps"]) == (FPS, "25.0")
    content = torch.load(checkpoint, weights_only=True)
    del content["options"]["target_fps"]
    torch.save(content, tmp_path / "old.pth")
    model = load_inference_model(tmp_path / "old.pth", CPU)
    assert (model.options.target_fps, make_metadata(model, "")["target_fps"]) == (None, "null")
