"""python -m train.evaluate: its numbers are those of a slow, obvious computation, on one process or several."""

import csv
import multiprocessing
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed import TCPStore

from data.augmentation import scale_short_side
from data.frame_store import FrameStore, write_frame_store
from data.video_sampler import uniform_clips
from tests.commands import main_of
from tests.synthetic_frames import painted_jpegs
from tests.train.checkpoints import make_checkpoint
from train.evaluate.scores import Scores, summarize
from train.inference import load_inference_model
from train.options import Options

labels_main = main_of("data.labels")
main = main_of("train.evaluate")

OPTIONS = Options(network="ir_csn_50", clip_length=4, clip_size=32, short_side=36, batch_size=5, flip=False)
# of each class two videos are for validation: of many frames and of fewer than a clip has
LENGTHS = {"a": [12, 2, 30], "b": [8, 9, 3], "c": [7, 4, 5]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for label, (name, lengths) in enumerate(LENGTHS.items()):
        for number, n_frames in enumerate(lengths):
            jpegs = painted_jpegs(n_frames, label + 3 * number)
            write_frame_store(root / "jpg" / name / f"{name}{number}", jpegs)
    labels_main(["folders", str(root), "--val", "0.67"])
    return root


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return [make_checkpoint(folder / f"net{seed}.pth", OPTIONS, seed=seed) for seed in (1, 2)]


def videos_of(dataset: Path, split: str = "val") -> list[tuple[str, str]]:
    with (dataset / "labels" / f"{split}.csv").open() as file:
        return [(row["label"], row["id"]) for row in csv.DictReader(file)]


def evaluate(*words: str | Path) -> int:
    return main([*map(str, words), "--workers", "0", "--gpus", "0"])


def obvious(checkpoint: Path, dataset: Path, clips: int) -> dict[str, tuple[np.ndarray, int, int]]:
    """Probabilities of each video, how many views it has and how many of them are right: one clip after the other."""
    trained = load_inference_model(checkpoint, torch.device("cpu"))
    found = {}
    for name, video in videos_of(dataset):
        store = FrameStore(dataset / "jpg" / name / video)
        views = []
        for indices in uniform_clips(store.n_frames, 4, 2, clips):
            frames = scale_short_side(store.read(indices), 36)
            for left in (0, 2, 4):
                clip = torch.from_numpy(frames[None, :, 2:34, left : left + 32].copy())
                views.append(trained.logits(clip)[0].softmax(dim=0).numpy())
        right = sum(int(view.argmax()) == trained.classes.index(name) for view in views)
        found[f"{name}/{video}"] = (np.mean(views, axis=0), len(views), right)
    return found


def test_label_files_are_those_that_training_was_given(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those in the data set's own folder were taken, which may have had videos that training had seen."""
    fold = tmp_path / "fold"
    shutil.copytree(dataset / "labels", fold)
    rows = (fold / "val.csv").read_text().splitlines(keepends=True)
    (fold / "val.csv").write_text("".join(rows[:4]))  # three videos
    options = replace(OPTIONS, labels=fold)
    checkpoint = make_checkpoint(tmp_path / "net.pth", options, seed=1)
    words = [checkpoint, "--dataset", dataset, "--clips", "1", "--crops", "1", "--output"]
    assert evaluate(*words, tmp_path / "out") == 0
    assert ", 3 videos of " in capsys.readouterr().out
    assert evaluate(*words, tmp_path / "other", "--labels", dataset / "labels") == 0
    assert ", 6 videos of 3 classes" in capsys.readouterr().out


def test_numbers_are_those_of_a_slow_computation(
    dataset: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Square frames: of those that are wide or tall tests/data/test_multiview.py says the same."""
    words = ("--dataset", dataset, "--clips", "3", "--output", tmp_path / "out")
    assert evaluate(checkpoints[0], *words) == 0
    scores = Scores.load(tmp_path / "out" / "scores.npz")
    expected = obvious(checkpoints[0], dataset, clips=3)
    assert sorted(scores.videos) == sorted(expected)
    assert len(scores.videos) == 6
    for video, own, (views, right, _) in zip(scores.videos, scores.probabilities, scores.clips, strict=True):
        probabilities, n_views, n_right = expected[video]
        np.testing.assert_allclose(own, probabilities, rtol=1e-4, atol=1e-6)
        assert (views, right) == (n_views, n_right)
    labels = [video[0] for video in expected]
    top1 = np.mean(
        ["abc"[p.argmax()] == label for (p, _, _), label in zip(expected.values(), labels, strict=True)]
    )
    clip = sum(right for _, _, right in expected.values()) / sum(views for _, views, _ in expected.values())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{checkpoints[0]}: ir_csn_50 after epoch 3, 6 videos of 3 classes"
    printed = {name.strip(): value for name, value in (line.rsplit(maxsplit=1) for line in lines[1:6])}
    assert printed["clip@1"] == f"{clip:.4f}"
    assert printed["video@1 (3x3)"] == f"{top1:.4f}"
    assert printed["clip@5"] == printed["video@5 (3x3)"] == "1.0000"
    assert float(printed["mean class accuracy"]) == pytest.approx(top1, abs=1e-4)  # two videos of each class
    assert lines[6] == f"written to {tmp_path / 'out'}: scores.npz, classes.csv, confusion.csv, confusion.png"


def test_tables_and_picture(dataset: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    copy = shutil.copy(checkpoints[0], tmp_path / "net.pth")
    assert evaluate(copy, "--dataset", dataset, "--clips", "2", "--crops", "1", "--split", "train") == 0
    folder = tmp_path / "net_train_2x1"
    scores = Scores.load(folder / "scores.npz")
    assert {tuple(video.split("/")) for video in scores.videos} == set(videos_of(dataset, "train"))
    with (folder / "confusion.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["Class", "a", "b", "c"]
    assert [row[0] for row in rows] == ["a", "b", "c"]
    taken = {
        (s.split("/")[0], "abc"[p.argmax()]) for s, p in zip(scores.videos, scores.probabilities, strict=True)
    }
    assert {(row[0], header[i]) for row in rows for i in (1, 2, 3) if row[i] == "1"} == taken
    with (folder / "classes.csv").open() as file:
        of_classes = list(csv.DictReader(file))
    assert [row["Class"] for row in of_classes] == ["a", "b", "c"]
    assert {(row["Class"], row["TakenFor"] or row["Class"]) for row in of_classes} == taken
    assert np.asarray(Image.open(folder / "confusion.png")).std() > 10


def test_checkpoints_and_files_of_scores_are_averaged(
    dataset: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dataset", dataset, "--clips", "2", "--crops", "1", "--output", tmp_path / "both")
    assert evaluate(*checkpoints, *words) == 0
    printed = capsys.readouterr().out
    singles = [tmp_path / "both" / f"{number}_net{number}.npz" for number in (1, 2)]
    both = Scores.load(tmp_path / "both" / "scores.npz")
    mean = sum(Scores.load(path).probabilities for path in singles) / 2
    np.testing.assert_allclose(both.probabilities, mean, rtol=1e-5)
    assert printed.count("clip@1") == 2  # that of an average of networks is not defined
    last = printed[printed.index("average of 2") :]
    assert f"video@1 (2x1)        {summarize(both).video[0]:.4f}" in last
    assert evaluate(*singles, "--output", tmp_path / "again") == 0
    again = Scores.load(tmp_path / "again" / "scores.npz")
    np.testing.assert_array_equal(again.probabilities, both.probabilities)
    assert last.splitlines()[1:4] == capsys.readouterr().out.partition("average of 2")[2].splitlines()[1:4]


def _process(rank: int, port: int, log: Path, words: list[str]) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
    os._exit(status)


def evaluate_together(tmp_path: Path, *words: str | Path) -> list[tuple[int, str]]:
    """Exit status and output of two processes, started as torchrun does."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    fork = multiprocessing.get_context("fork")  # torch is imported already
    logs = [tmp_path / f"{rank}.log" for rank in (0, 1)]
    arguments = [*map(str, words), "--workers", "0"]
    processes = [
        fork.Process(target=_process, args=(rank, store.port, log, arguments))
        for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    return [(process.exitcode, log.read_text()) for process, log in zip(processes, logs, strict=True)]


def test_two_processes_share_the_videos(dataset: Path, checkpoints: list[Path], tmp_path: Path) -> None:
    """Five videos and two batches of unequal views; each video once."""
    labels = tmp_path / "labels"
    shutil.copytree(dataset / "labels", labels)
    rows = (labels / "val.csv").read_text().splitlines()
    (labels / "val.csv").write_text("\n".join(rows[:6]) + "\n")
    words = (checkpoints[0], "--dataset", dataset, "--labels", labels, "--clips", "3", "--crops", "1")
    assert evaluate(*words, "--output", tmp_path / "one") == 0
    (first, said), (second, nothing) = evaluate_together(tmp_path, *words, "--output", tmp_path / "two")
    assert (first, second) == (0, 0), (said, nothing)
    assert "5 videos of 3 classes" in said
    assert nothing == ""
    one, two = (Scores.load(tmp_path / name / "scores.npz") for name in ("one", "two"))
    assert (one.videos, one.classes) == (two.videos, two.classes)
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.clips, two.clips)
    np.testing.assert_allclose(one.probabilities, two.probabilities, rtol=1e-4)


def test_two_processes_end_together_where_one_cannot_go_on(
    dataset: Path, checkpoints: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "set"
    shutil.copytree(dataset, broken)
    name, video = videos_of(dataset)[1]  # the second process's
    database = broken / "jpg" / name / video / "frames.db"
    database.write_bytes(database.read_bytes()[:5000])
    words = (
        checkpoints[0],
        "--dataset",
        broken,
        "--clips",
        "1",
        "--crops",
        "1",
        "--output",
        tmp_path / "out",
    )
    results = evaluate_together(tmp_path, *words)
    assert all(status not in (0, None) for status, _ in results), results
    assert f"{database}: " in results[1][1]
    assert "--skip-bad-samples" in results[1][1]
    assert "stopped, because process 1 of 2 failed" in results[0][1]


def test_videos_that_cannot_be_read(
    dataset: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "set"
    shutil.copytree(dataset, broken)
    name, video = videos_of(dataset)[0]
    (broken / "jpg" / name / video / "frames.db").write_bytes(b"nothing")
    words = (
        checkpoints[0],
        "--dataset",
        broken,
        "--clips",
        "2",
        "--crops",
        "1",
        "--output",
        tmp_path / "out",
    )
    with pytest.raises(SystemExit) as ended:
        evaluate(*words)
    assert ended.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{video}/frames.db" in line
    assert line.endswith("--skip-bad-samples goes on without such videos")
    assert evaluate(*words, "--skip-bad-samples") == 0
    captured = capsys.readouterr()
    assert "ir_csn_50 after epoch 3, 1 of 6 videos left out, 5 videos of 3 classes" in captured.out
    assert f"left out: {broken}" in captured.err
    for database in broken.glob("jpg/*/*/frames.db"):
        database.write_bytes(b"nothing")
    with pytest.raises(SystemExit):
        evaluate(*words, "--skip-bad-samples")
    assert "none of 6 videos could be read: " in capsys.readouterr().err


def test_bad_input_is_one_line(
    dataset: Path, checkpoints: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nameless = tmp_path / "nameless.pth"
    content = torch.load(checkpoints[0], weights_only=True)
    torch.save({**content, "dataset": {}}, nameless)
    torch.save(
        {**content, "state_dict": {k: v * float("nan") for k, v in content["state_dict"].items()}},
        tmp_path / "nan.pth",
    )
    make_checkpoint(tmp_path / "other.pth", OPTIONS, classes=["a", "b"])
    net, place = checkpoints[0], ("--dataset", dataset, "--output", tmp_path / "out")
    some_gone = tmp_path / "labels"
    some_gone.mkdir()
    (some_gone / "val.csv").write_text((dataset / "labels" / "val.csv").read_text() + "a,gone\n")
    gone = (*place, "--labels", some_gone, "--clips", "1", "--crops", "1")
    assert evaluate(net, *gone, "--max-missing", "0.5") == 0
    cases = {
        "the following arguments are required: --dataset": (net,),
        "gone.pth: there is no such checkpoint": (tmp_path / "gone.pth", *place),
        "gone.npz: there is no such file of scores": (tmp_path / "gone.npz",),
        "nameless.pth: does not say which data set it was trained on": (nameless, *place),
        "val.csv: class 'c' is not one of the 2 that": (tmp_path / "other.pth", *place),
        "more than --max-missing 0.1 allows": (net, *gone, "--max-missing", "0.1"),
        "label file val.csv: not found in": (net, *place, "--labels", tmp_path),
        "nan.pth: gives no numbers in fp32": (tmp_path / "nan.pth", *place, "--clips", "1"),
        "--crops 10: has mirrored views, but": (net, *place, "--crops", "10"),
        "argument --crops: invalid choice: 5": (net, *place, "--crops", "5"),
        "argument --clips: '0' is not a whole number of at least 1": (net, *place, "--clips", "0"),
    }
    for message, words in cases.items():
        with pytest.raises(SystemExit) as ended:
            evaluate(*words)
        assert ended.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("python -m train.evaluate: error: ")
        assert message in line
