"""Predictions whose answers are known: of a network that sees nothing but brightness."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.ffmpeg import VideoFile
from tests.commands import main_of
from tests.train.toy_task import CLASSES, save_bright, write_video
from train.inference import load_inference_model
from train.predict.__main__ import output_paths
from train.predict.predictor import ClassScore, Prediction, VideoPredictor, topk_classes

convert = main_of("data.convert")
main = main_of("train.predict")

SPAN = 7  # frames of a window: 4 at interval 2
N_FRAMES = 30
DAWN = 14  # the first bright frame


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bright(tmp_path_factory.mktemp("trained") / "bright_best.pth")


@pytest.fixture(scope="module")
def dawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 x 121 pixels, dark, then bright in its lower right corner."""
    frames = np.full((N_FRAMES, 90, 121), 20)
    frames[DAWN:, 45:, 60:] = 255
    return write_video(tmp_path_factory.mktemp("videos") / "dawn.mp4", frames)


def one_colour(path: Path, value: int, n_frames: int = 10, size: tuple[int, int] = (64, 80)) -> Path:
    return write_video(path, np.full((n_frames, *size), value))


def fails(capsys: pytest.CaptureFixture[str], message: str, *words: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, words)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"python -m train.predict: error: {message}" in error


def test_known_answers(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = [one_colour(tmp_path / f"{value}.mp4", value) for value in (0, 255)]
    assert main([str(checkpoint), *map(str, videos)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{videos[0]}: 10 frames, 2 windows"
    assert lines[1] == "  dark    0.982  ████████████████████"  # 4 against 0
    assert lines[2] == "  bright  0.018"
    assert lines[3] == f"{videos[1]}: 10 frames, 2 windows"
    assert lines[4].startswith("  bright  1.000")


def test_frames_of_a_video_shorter_than_a_window_are_all_counted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip of 4 frames from its middle was taken for its end: 5 frames of 6."""
    assert main([str(checkpoint), str(one_colour(tmp_path / "short.mp4", 255, n_frames=6))]) == 0
    assert "short.mp4: 6 frames, 1 window\n" in capsys.readouterr().out


def test_windows_and_their_answers_as_json(
    checkpoint: Path, dawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(checkpoint), str(dawn), "--top", "1", "--stride", "5", "--batch-size", "3"]
    assert main([*words, "--json", "-"]) == 0
    (video,) = json.loads(capsys.readouterr().out)
    assert (video["video"], video["frames"], video["complaint"]) == (str(dawn), N_FRAMES, "")
    spans = [(window["first"], window["last"]) for window in video["windows"]]
    assert spans == [(0, 6), (5, 11), (10, 16), (15, 21), (20, 26), (23, 29)]
    labels = [window["top"][0]["class"] for window in video["windows"]]
    assert labels == ["dark", "dark", labels[2], "bright", "bright", "bright"]
    assert len(video["top"]) == 1
    assert main([*words, "--json", str(tmp_path / "answers.json")]) == 0
    assert json.loads((tmp_path / "answers.json").read_text()) == [video]
    assert f"{dawn}: 30 frames, 6 windows" in capsys.readouterr().out


def test_probabilities_of_a_video_are_the_mean_of_its_windows(checkpoint: Path, dawn: Path) -> None:
    trained = load_inference_model(checkpoint, torch.device("cpu"))
    prediction, other = (VideoPredictor(trained, SPAN, batch).predict(VideoFile(dawn)) for batch in (1, 100))
    np.testing.assert_allclose(prediction.probabilities, other.probabilities, rtol=1e-4)
    assert prediction.frames.tolist() == [[0, 6], [7, 13], [14, 20], [21, 27], [23, 29]]
    np.testing.assert_allclose(prediction.overall(), np.mean(list(prediction.probabilities), axis=0))
    weights = trained.network.fc.weight.numpy()
    logits = prediction.features @ weights.T + trained.network.fc.bias.numpy()
    np.testing.assert_allclose(
        prediction.probabilities, torch.tensor(logits).softmax(dim=1).numpy(), rtol=1e-4, atol=1e-6
    )


def test_a_frame_has_the_answer_of_the_window_around_it() -> None:
    probabilities = np.eye(3)
    prediction = Prediction(16, np.array([[0, 6], [7, 13], [9, 15]]), probabilities, np.zeros((3, 1)))
    assert [int(prediction.at(frame).argmax()) for frame in (0, 6, 7, 10, 12, 15)] == [0, 0, 1, 1, 2, 2]
    assert topk_classes(np.array([0.2, 0.5, 0.3]), ["a", "b", "c"], 2) == [
        ClassScore("b", 0.5),
        ClassScore("c", 0.3),
    ]


def test_drawings_have_the_frames_and_size_of_the_video(checkpoint: Path, dawn: Path, tmp_path: Path) -> None:
    overlay, attention = tmp_path / "new" / "overlay.mp4", tmp_path / "attention.mp4"
    words = ["--overlay", str(overlay), "--gradcam", str(attention)]
    assert main([str(checkpoint), str(dawn), *words]) == 0
    source, drawn, heat = (
        np.stack(list(VideoFile(path).frames())).astype(int) for path in (dawn, overlay, attention)
    )
    assert drawn.shape == heat.shape == source.shape == (N_FRAMES, 90, 121, 3)
    assert VideoFile(overlay).rate == VideoFile(dawn).rate == 25
    assert abs(drawn - source)[:, :50].mean() < 4  # the strip is below
    assert abs(drawn - source)[:, 75:].mean() > 20
    # the middle square of 90 pixels was seen; the corner is bright from DAWN on
    change = abs(heat - source)[:, :70].mean(axis=3)
    quarters = {name: change[DAWN + 6 :, rows, columns].mean() for name, rows, columns in (
        ("upper left", slice(2, 20), slice(20, 40)), ("lower right", slice(55, 70), slice(80, 104)),
    )}  # fmt: skip
    assert quarters["lower right"] > 40
    assert quarters["upper left"] < 10
    assert change[: DAWN - 8].mean() < 5


def test_several_videos_are_drawn_into_a_folder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one/a.mp4", "two/a.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True)
        one_colour(tmp_path / "videos" / name, 255, n_frames=3)
    assert main([str(checkpoint), str(tmp_path / "videos"), "--overlay", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one_a.mp4", "two_a.mp4"]
    single, folder = tmp_path / "videos" / "one" / "a.mp4", tmp_path / "out"
    words = [checkpoint, single]
    fails(capsys, f"{folder}.mp4: 3 videos need", *words, tmp_path / "videos", "--overlay", f"{folder}.mp4")
    for name in ("seen.avi", "seen.WMV"):
        fails(capsys, f"{name}: must end with .mp4, or be a folder", *words, "--gradcam", name)
    assert main([str(checkpoint), str(single), "--overlay", str(tmp_path / "SEEN.MP4")]) == 0
    assert (tmp_path / "SEEN.MP4").is_file()  # once a folder of that name
    fails(capsys, f"{folder / 'one_a.mp4.mp4'}: two of the videos", *words, single, "--overlay", folder)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.mp4", "b/y.avi"], ["x", "y"]),
        (["a/x.mp4", "b/x.avi"], ["a_x", "b_x"]),
        (["a/x.mp4", "a/x.avi"], ["a_x.mp4", "a_x.avi"]),
    ],
)
def test_drawings_are_named_after_their_videos(paths: list[str], names: list[str]) -> None:
    found = output_paths(Path("out"), [VideoFile(Path(path)) for path in paths])
    assert found == [Path("out") / f"{name}.mp4" for name in names]


def test_features_have_a_row_a_window(checkpoint: Path, dawn: Path, tmp_path: Path) -> None:
    short = one_colour(tmp_path / "short.mp4", 255, n_frames=2)
    path = tmp_path / "new" / "features.npz"
    assert main([str(checkpoint), str(dawn), str(short), "--features", str(path)]) == 0
    with np.load(path) as content:
        assert content["features"].shape == (6, 512)
        assert content["probabilities"].shape == (6, 2)
        assert content["videos"].tolist() == [str(dawn)] * 5 + [str(short)]
        assert content["frames"].tolist()[-2:] == [[23, 29], [0, 1]]
        assert content["classes"].tolist() == list(CLASSES)
        assert content["features"][-1].mean() > 1 > content["features"][0].mean()
    assert [entry.name for entry in path.parent.iterdir()] == ["features.npz"]


def test_store_says_what_its_video_says(
    checkpoint: Path, dawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a").symlink_to(dawn.parent)
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set"), "--short-side", "64"]) == 0
    capsys.readouterr()
    answers = []
    for path in (dawn, tmp_path / "set" / "jpg" / "a" / "dawn"):
        assert main([str(checkpoint), str(path), "--json", "-"]) == 0
        answers.append(json.loads(capsys.readouterr().out)[0])
    assert answers[0]["windows"] == answers[1]["windows"]
    overlay = tmp_path / "overlay.mp4"
    assert main([str(checkpoint), str(tmp_path / "set"), "--overlay", str(overlay)]) == 0
    assert len(list(VideoFile(overlay).frames())) == N_FRAMES


def test_one_video_that_cannot_be_read_does_not_stop_the_others(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    good = one_colour(tmp_path / "good.mp4", 0)
    assert main([str(checkpoint), str(bad), str(good)]) == 1
    assert f"{good}: 10 frames" in capsys.readouterr().out
    assert f"{bad}: no frame could be decoded" in caplog.text


def test_what_is_stopped_leaves_nothing_half_drawn(
    checkpoint: Path, dawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("train.predict.__main__.draw_predictions", interrupt)
    words = ["--overlay", str(tmp_path / "o.mp4"), "--json", str(tmp_path / "a.json")]
    assert main([str(checkpoint), str(dawn), *words]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]  # what had been said


def test_answers_from_before_a_failure_are_written(
    checkpoint: Path, dawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were lost, after hours perhaps."""
    other = one_colour(tmp_path / "other.mp4", 255)
    predict = VideoPredictor.predict

    def stopped_at_the_second(self: VideoPredictor, video: VideoFile) -> Prediction:
        if video.path == other:
            raise KeyboardInterrupt
        return predict(self, video)

    monkeypatch.setattr(VideoPredictor, "predict", stopped_at_the_second)
    answers, features = tmp_path / "new" / "a.json", tmp_path / "f.npz"
    words = ["--json", str(answers), "--features", str(features)]
    assert main([str(checkpoint), str(dawn), str(other), *words]) == 130
    assert [Path(video["video"]) for video in json.loads(answers.read_text())] == [dawn]
    with np.load(features) as content:
        assert set(content["videos"]) == {str(dawn)}


def test_no_video_is_drawn_over(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--overlay` with the folder of the videos replaced each by its drawing."""
    for name in "xy":
        one_colour(tmp_path / "clips" / f"{name}.mp4", 255)
    clips, one = tmp_path / "clips", tmp_path / "clips" / "x.mp4"
    before = {path: path.read_bytes() for path in clips.iterdir()}
    fails(capsys, f"{one}: is one of the videos", checkpoint, clips, "--overlay", clips)
    detour = clips / ".." / "clips" / "x.mp4"
    fails(capsys, f"{detour}: is one of the videos", checkpoint, one, "--gradcam", detour)
    both = tmp_path / "both"
    fails(capsys, f"{both / 'x.mp4'}: --overlay and --gradcam need", checkpoint, clips, "--overlay", both,
          "--gradcam", both)  # fmt: skip
    assert {path: path.read_bytes() for path in clips.iterdir()} == before


def test_one_video_is_drawn_into_a_folder_too(checkpoint: Path, tmp_path: Path) -> None:
    """Scripts that go over folders stopped at one of a single video."""
    one_colour(tmp_path / "clips" / "x.mp4", 255)
    assert main([str(checkpoint), str(tmp_path / "clips"), "--overlay", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x.mp4"]


def test_a_terminal_without_the_letters_of_a_bar(checkpoint: Path, dawn: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train.predict", str(checkpoint), str(dawn)],
        cwd=repository,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"5 windows\n  bright" in done.stdout


def test_bad_input_is_named(
    checkpoint: Path, dawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, f"{tmp_path / 'no.pth'}: there is no such checkpoint", tmp_path / "no.pth", dawn)
    fails(capsys, f"{tmp_path / 'no.mp4'}: there is no such video", checkpoint, tmp_path / "no.mp4")
    fails(capsys, "argument --top: '0' is not a whole number of at least 1", checkpoint, dawn, "--top", "0")
    fails(capsys, "argument --stride: '0' is not", checkpoint, dawn, "--stride", "0")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    fails(capsys, "", checkpoint, dawn, "--overlay", in_the_way / "o.mp4")
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["fc.bias"][:] = float("nan")
    torch.save(content, tmp_path / "diverged.pth")
    fails(capsys, f"{tmp_path / 'diverged.pth'}: its network's answers for {dawn} are not numbers",
          tmp_path / "diverged.pth", dawn)  # fmt: skip


def test_real_videos(
    checkpoint: Path,
    real_videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The damaged one, the one turned by its metadata, which is shorter than a clip, ten bits a color."""
    names = ["corrupted.mp4", "video_90.mov", "h265_10bits.mp4"]
    words = [str(checkpoint), *(str(real_videos / name) for name in names), "--overlay", str(tmp_path)]
    assert main([*words, "--json", "-"]) == 0
    answers = {Path(video["video"]).name: video for video in json.loads(capsys.readouterr().out)}
    assert "corrupted.mp4: watched as far as it decodes, " in caplog.text
    assert answers["corrupted.mp4"]["complaint"]
    assert answers["corrupted.mp4"]["frames"] >= 28
    assert [answers[name]["frames"] for name in names[1:]] == [3, 30]
    for name in names:
        capture = cv2.VideoCapture(str(tmp_path / f"{Path(name).stem}.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == answers[name]["frames"]
    assert next(VideoFile(tmp_path / "video_90.mp4").frames()).shape == (568, 320, 3)
