"""python -m train.evaluate: its scores are those of a simple computation, on one rank or several."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import torch
from PIL import Image

from data.frame_store import FrameStore
from data.fused_engine import scale_short_side
from data.store_writer import write_frame_store
from data.video_sampler import uniform_clips
from tests import commands
from tests.commands import main_of
from tests.data.labels.test_labels import write
from tests.synthetic_frames import make_stores, painted_jpegs
from tests.train.checkpoints import make_checkpoint
from tests.train.ranks import run_ranks
from train.inference import load_inference_model
from train.options import Options
from train.scores import Scores, summarize

labels_main = main_of("data.labels")
main = main_of("train.evaluate")

OPTIONS = Options(network="srtg_tiny", clip_length=4, clip_size=32, batch_size=5, flip=False)
# frames of each video, one of each class for training: longer and shorter than a clip
LENGTHS = {"a": [12, 2, 30], "b": [8, 9, 3], "c": [7, 4, 5]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for label, (name, lengths) in enumerate(LENGTHS.items()):
        for number, num_frames in enumerate(lengths):
            jpegs = painted_jpegs(num_frames, label + 3 * number)
            write_frame_store(root / "jpg" / name / f"{name}{number}", jpegs)
    labels_main(["folders", str(root), "--val", "0.67"])
    return root


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return [make_checkpoint(folder / f"net{seed}.pth", OPTIONS, seed=seed) for seed in (1, 2)]


def videos_of(dataset: Path, split: str = "val") -> list[str]:
    with (dataset / "labels" / f"{split}.csv").open() as file:
        return [f"{row['label']}/{row['id']}" for row in csv.DictReader(file)]


def evaluate(*words: str | Path) -> int:
    return main([*map(str, words), "--workers", "0", "--gpus", "0"])


def error_of(*words: str | Path) -> str:
    return commands.error_of(main, *words, "--workers", "0", "--gpus", "0")


def score_one_by_one(checkpoint: Path, folder: Path, clips: int) -> np.ndarray:
    """Return the probabilities `(V, C)` of the views of a video with square frames, 3 crops each."""
    model = load_inference_model(checkpoint, torch.device("cpu"))
    store = FrameStore(folder)
    views = []
    for indices in uniform_clips(store.n_frames, 4, 2, clips):
        frames = scale_short_side(store.read(indices), 37)  # 32 is 256/294 of it
        for left in (0, 2, 5):
            clip = torch.from_numpy(frames[None, :, 2:34, left : left + 32].copy())
            views.append(model.logits(clip)[0].softmax(dim=0).numpy())
    return np.array(views)


def test_scores_equal_those_of_single_views(
    dataset: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (checkpoints[0], "--dataset", dataset, "--clips", "3", "--output", tmp_path / "out")
    assert evaluate(*words) == 0
    scores = Scores.load(tmp_path / "out" / "scores.npz")
    assert list(scores.videos) == videos_of(dataset)
    assert len(scores.videos) == 6
    for index, video in enumerate(scores.videos):
        views = score_one_by_one(checkpoints[0], dataset / "jpg" / video, clips=3)
        np.testing.assert_allclose(scores.probabilities[index], views.mean(axis=0), rtol=1e-4, atol=1e-6)
        num_correct = (views.argmax(axis=1) == "abc".index(video[0])).sum()
        assert scores.clip_counts[index].tolist() == [len(views), num_correct, len(views)]
    views, top1, _ = scores.clip_counts.sum(axis=0)
    video_top1 = (scores.probabilities.argmax(axis=1) == scores.labels).mean()
    assert capsys.readouterr().out.splitlines() == [
        f"{checkpoints[0]}: srtg_tiny after epoch 3, 6 videos of 3 classes",
        f"  clip@1                   {top1 / views:.4f}",
        "  clip@5                   1.0000",
        f"  video@1 (3x3)            {video_top1:.4f}",
        "  video@5 (3x3)            1.0000",
        f"  mean per-class accuracy  {video_top1:.4f}",  # each class has two videos
        f"results: {tmp_path / 'out'}",
    ]


def test_result_files(dataset: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    copy = shutil.copy(checkpoints[0], tmp_path / "net.pth")
    assert evaluate(copy, "--dataset", dataset, "--clips", "2", "--crops", "1", "--split", "train") == 0
    folder = tmp_path / "net_train_2x1"
    scores = Scores.load(folder / "scores.npz")
    assert list(scores.videos) == videos_of(dataset, "train")  # one of each class
    predicted = ["abc"[index] for index in scores.probabilities.argmax(axis=1)]
    with (folder / "confusion.csv").open() as file:
        matrix = [[str(int(column == name)) for column in "abc"] for name in predicted]
        assert list(csv.reader(file)) == [
            ["Class", "a", "b", "c"],
            *([name, *counts] for name, counts in zip("abc", matrix, strict=True)),
        ]
    with (folder / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["Class", "Videos", "Top1", "Top5", "ConfusedWith", "Count"]
    assert [row["ConfusedWith"] or row["Class"] for row in rows] == predicted
    assert np.asarray(Image.open(folder / "confusion.png")).std() > 10


def test_label_files_are_by_default_those_of_training(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = tmp_path / "fold"
    shutil.copytree(dataset / "labels", fold)
    lines = (fold / "val.csv").read_text().splitlines(keepends=True)
    (fold / "val.csv").write_text("".join(lines[:4]))  # three videos
    checkpoint = make_checkpoint(tmp_path / "net.pth", replace(OPTIONS, labels=fold), seed=1)
    words = [checkpoint, "--dataset", dataset, "--clips", "1", "--crops", "1", "--output", tmp_path / "out"]
    assert evaluate(*words) == 0
    assert ", 3 videos of " in capsys.readouterr().out
    assert evaluate(*words, "--labels", dataset / "labels") == 0
    assert ", 6 videos of 3 classes" in capsys.readouterr().out


def test_checkpoints_and_scores_files_are_averaged(
    dataset: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "both"
    words = ("--dataset", dataset, "--clips", "2", "--crops", "1", "--output", out)
    assert evaluate(*checkpoints, *words) == 0
    printed = capsys.readouterr().out
    singles = [out / f"{number}_net{number}.npz" for number in (1, 2)]
    both = Scores.load(out / "scores.npz")
    mean = sum(Scores.load(path).probabilities for path in singles) / 2
    np.testing.assert_allclose(both.probabilities, mean, rtol=1e-5)
    assert printed.count("clip@1") == 2  # not defined for an average
    summary = printed.partition("average of 2\n")[2].splitlines()[:3]
    assert summary[0] == f"  video@1 (2x1)            {summarize(both)['video@1 (2x1)']:.4f}"
    assert evaluate(*singles) == 0
    again = Scores.load(out / "average" / "scores.npz")
    np.testing.assert_array_equal(again.probabilities, both.probabilities)
    assert capsys.readouterr().out.partition("average of 2\n")[2].splitlines()[:3] == summary


def evaluate_on_two_ranks(tmp_path: Path, *words: str | Path) -> list[tuple[int | None, str]]:
    """Return exit code and output of each rank."""
    return run_ranks(2, tmp_path, lambda rank: main([*map(str, words), "--workers", "0"]))


def test_two_ranks_share_the_videos(dataset: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    """Five videos with different numbers of views."""
    labels = tmp_path / "labels"
    shutil.copytree(dataset / "labels", labels)
    lines = (labels / "val.csv").read_text().splitlines()
    (labels / "val.csv").write_text("\n".join(lines[:6]) + "\n")
    words = (checkpoints[0], "--dataset", dataset, "--labels", labels, "--clips", "3", "--crops", "1")
    assert evaluate(*words, "--output", tmp_path / "one") == 0
    (first, output), (second, silent) = evaluate_on_two_ranks(tmp_path, *words, "--output", tmp_path / "two")
    assert (first, second) == (0, 0), (output, silent)
    assert "5 videos of 3 classes" in output
    assert silent == ""
    one, two = (Scores.load(tmp_path / name / "scores.npz") for name in ("one", "two"))
    assert (one.videos, one.classes) == (two.videos, two.classes)
    np.testing.assert_array_equal(one.clip_counts, two.clip_counts)
    np.testing.assert_allclose(one.probabilities, two.probabilities, rtol=1e-4)


@pytest.fixture
def corrupt(dataset: Path, tmp_path: Path) -> tuple[Path, str]:
    """A dataset with a corrupt video, the second one, and that video."""
    copy = tmp_path / "set"
    shutil.copytree(dataset, copy)
    video = videos_of(dataset)[1]
    (copy / "jpg" / video / "frames.db").write_bytes(b"corrupt")
    return copy, video


def test_an_error_of_one_rank_ends_both(
    corrupt: tuple[Path, str], checkpoints: list[Path], tmp_path: Path
) -> None:
    dataset, video = corrupt
    words = (checkpoints[0], "--dataset", dataset, "--clips", "1", "--crops", "1", "--output", tmp_path)
    (first, output), (second, error) = evaluate_on_two_ranks(tmp_path, *words)
    assert (first, second) == (2, 2), (output, error)
    assert f"{video}/frames.db" in error
    assert "--skip-bad-samples" in error
    assert "stopped: another rank failed" in output


def test_corrupt_videos(
    corrupt: tuple[Path, str],
    checkpoints: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dataset, video = corrupt
    words = (checkpoints[0], "--dataset", dataset, "--clips", "2", "--crops", "1", "--output", tmp_path / "o")
    assert f"{video}/frames.db" in error_of(*words)
    assert evaluate(*words, "--skip-bad-samples") == 0
    captured = capsys.readouterr()
    assert "srtg_tiny after epoch 3, 1 of 6 videos skipped, 5 videos of 3 classes" in captured.out
    assert f"corrupt video skipped: {dataset}" in captured.err
    for database in dataset.glob("jpg/*/*/frames.db"):
        database.write_bytes(b"corrupt")
    assert "all 6 videos are corrupt: " in error_of(*words, "--skip-bad-samples")


def test_names_in_another_unicode_form_and_overlapping_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint of before names were composed, and folders that macOS has unzipped."""
    nfd = normalize("NFD", "café")
    make_stores(tmp_path, {nfd: ["1", "2"], "push": ["3", "4"]}, n_frames=4)
    for split, rows in (("train", "café,1\npush,3\n"), ("val", "café,2\npush ,3\npush,3\n")):
        write(tmp_path / "labels" / f"{split}.csv", "label,id\n" + normalize("NFC", rows))
    net = make_checkpoint(tmp_path / "net.pth", OPTIONS, classes=[f"{nfd} ", "push", "fly"])
    assert (
        evaluate(net, "--dataset", tmp_path, "--clips", "1", "--crops", "1", "--output", tmp_path / "out")
        == 0
    )
    error = capsys.readouterr().err
    assert (
        f"WARNING 1 of 3 rows repeat a video, used once, such as push/3 in {tmp_path}/labels/val.csv, line 4"
        in error
    )
    assert "1 videos in both, such as push/3" in error
    assert "val.csv: no videos of 1 of 3 classes: ['fly']" in error
    scores = Scores.load(tmp_path / "out" / "scores.npz")
    assert (scores.classes[0], scores.videos) == (
        normalize("NFC", nfd),
        (normalize("NFC", f"{nfd}/2"), "push/3"),
    )
    assert scores.labels.tolist() == [0, 1]


def test_errors(dataset: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    no_dataset = make_checkpoint(tmp_path / "no_dataset.pth", OPTIONS, dataset={})
    other_classes = make_checkpoint(tmp_path / "other.pth", OPTIONS, classes=["a", "b"])
    weights = torch.load(checkpoints[0], weights_only=True)["state_dict"]
    nan = make_checkpoint(
        tmp_path / "nan.pth", OPTIONS, state_dict={k: v * float("nan") for k, v in weights.items()}
    )
    net, words = checkpoints[0], ("--dataset", dataset, "--output", tmp_path / "out")
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "val.csv").write_text((dataset / "labels" / "val.csv").read_text() + "a,missing,val\n")
    missing = (*words, "--labels", labels, "--clips", "1", "--crops", "1")
    assert evaluate(net, *missing, "--max-missing", "0.5") == 0
    for message, arguments in {
        "the following arguments are required: --dataset": (net,),
        "gone.pth: ": (tmp_path / "gone.pth", *words),
        "gone.npz": (tmp_path / "gone.npz",),
        "no_dataset.pth: the checkpoint does not name its dataset": (no_dataset, *words),
        "class 'c' is not one of the 2 classes of ": (other_classes, *words),
        "--max-missing 0.1": (net, *missing, "--max-missing", "0.1"),
        "val.csv": (net, *words, "--labels", tmp_path),
        "nan.pth: probabilities contain NaN or Inf in fp32": (nan, *words, "--clips", "1"),
        "--crops 10: includes flipped crops": (net, *words, "--crops", "10"),
        "argument --crops: invalid choice: 5": (net, *words, "--crops", "5"),
    }.items():
        assert message in error_of(*arguments)
