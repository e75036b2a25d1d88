"""python -m train.predict with a network whose predictions are known: it classifies clips by their brightness."""

import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

from data.ffmpeg.encoding import VideoWriter, video_writer
from data.ffmpeg.video_files import VideoFile
from data.store_writer import write_frame_store
from tests.commands import error_of, main_of
from tests.data.helpers import packets, run_ffmpeg, transcode
from tests.synthetic_frames import painted_jpegs
from tests.train.checkpoints import save_network
from tests.train.toy_task import CLASSES, OPTIONS, brightness_network, save_brightness_network, write_video
from train.inference import load_inference_model
from train.predict.predictor import ClassScore, Prediction, VideoPredictor, topk_classes

convert = main_of("data.convert")
main = main_of("train.predict")

SPAN = 7  # frames of a window: 4 at interval 2
NUM_FRAMES = 30
SUNRISE = 14  # the first bright frame
MILLISECONDS = ("-fps_mode", "passthrough", "-enc_time_base", "1:1000")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_brightness_network(tmp_path_factory.mktemp("trained") / "net.pth")


@pytest.fixture(scope="module")
def sunrise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 90 x 121 pixels: dark, then bright in its lower right corner."""
    frames = np.full((NUM_FRAMES, 90, 121), 20)
    frames[SUNRISE:, 45:, 60:] = 255
    return write_video(tmp_path_factory.mktemp("videos") / "sunrise.mp4", frames)


def constant_video(path: Path, value: int = 255, num_frames: int = 10) -> Path:
    return write_video(path, np.full((num_frames, 64, 80), value))


def predict(*words: object) -> int:
    return main([*map(str, words)])


def test_printed_predictions(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dark = constant_video(tmp_path / "dark.mp4", 0)
    short = constant_video(tmp_path / "short.mp4", num_frames=6)  # shorter than a window
    assert predict(checkpoint, dark, short) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{dark}: 10 frames, 2 windows",
        "  dark    0.982  ████████████████████",  # logits 4 and 0
        "  bright  0.018",
        f"{short}: 6 frames, 1 window",
        "  bright  1.000  ████████████████████",
        "  dark    0.000",
    ]


def test_json(checkpoint: Path, sunrise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [checkpoint, sunrise, "--top", 1, "--stride", 5, "--batch-size", 3]
    assert predict(*words, "--json", "-") == 0
    (video,) = json.loads(capsys.readouterr().out)
    assert (video["video"], video["num_frames"], video["decode_error"]) == (str(sunrise), NUM_FRAMES, "")
    spans = [(window["first_frame"], window["last_frame"]) for window in video["windows"]]
    assert spans == [(0, 6), (5, 11), (10, 16), (15, 21), (20, 26), (23, 29)]
    labels = [window["topk"][0]["class"] for window in video["windows"]]
    assert labels == ["dark", "dark", labels[2], "bright", "bright", "bright"]
    assert len(video["topk"]) == 1
    assert predict(*words, "--json", tmp_path / "predictions.json") == 0
    assert json.loads((tmp_path / "predictions.json").read_text()) == [video]
    assert f"{sunrise}: 30 frames, 6 windows" in capsys.readouterr().out


def test_video_probabilities_are_the_mean_of_its_windows(checkpoint: Path, sunrise: Path) -> None:
    model = load_inference_model(checkpoint, torch.device("cpu"))
    prediction, other = (VideoPredictor(model, SPAN, size).predict(VideoFile(sunrise)) for size in (1, 100))
    np.testing.assert_allclose(prediction.probabilities, other.probabilities, rtol=1e-4)
    assert prediction.frames.tolist() == [[0, 6], [7, 13], [14, 20], [21, 27], [23, 29]]
    np.testing.assert_allclose(prediction.mean, np.mean(prediction.probabilities, axis=0), rtol=1e-6)
    logits = model.network.fc(torch.from_numpy(prediction.features))
    np.testing.assert_allclose(prediction.probabilities, logits.softmax(dim=1), rtol=1e-4, atol=1e-6)


def test_a_frame_has_the_prediction_of_the_closest_window() -> None:
    frames = np.array([[0, 6], [7, 13], [9, 15]])
    prediction = Prediction(16, 3, np.ones(3) / 3, frames, frames / 25, np.eye(3), np.zeros((3, 1)))
    assert [int(prediction.at(frame).argmax()) for frame in (0, 6, 7, 10, 12, 15)] == [0, 0, 1, 1, 2, 2]
    expected = [ClassScore("b", 0.5), ClassScore("c", 0.3)]
    assert topk_classes(np.array([0.2, 0.5, 0.3]), ["a", "b", "c"], 2) == expected


def test_drawn_videos_have_the_frames_and_size_of_the_video(
    checkpoint: Path, sunrise: Path, tmp_path: Path
) -> None:
    overlay, gradcam = tmp_path / "new" / "overlay.mp4", tmp_path / "GRADCAM.MP4"
    assert predict(checkpoint, sunrise, "--overlay", overlay, "--gradcam", gradcam) == 0
    source, drawn, heat = (
        np.stack([frame for frame, _ in VideoFile(path).frames()]).astype(int)
        for path in (sunrise, overlay, gradcam)
    )
    assert drawn.shape == heat.shape == source.shape == (NUM_FRAMES, 90, 121, 3)
    np.testing.assert_allclose(packets(overlay), [(index / 25, 0.04) for index in range(NUM_FRAMES)])
    assert abs(drawn - source)[:, :50].mean() < 4  # above the strip
    assert abs(drawn - source)[:, 75:].mean() > 20
    # the center crop of 90 pixels is bright in its lower right corner from SUNRISE on
    change = abs(heat - source)[:, :70].mean(axis=3)
    assert change[SUNRISE + 6 :, 55:70, 80:104].mean() > 40
    assert change[SUNRISE + 6 :, 2:20, 20:40].mean() < 10
    assert change[: SUNRISE - 8].mean() < 5


def recording(folder: Path, times: Sequence[float]) -> Path:
    """Return a video of variable rate, as of a browser or a phone."""
    with video_writer(folder / "recording.mp4", 64, 80) as writer:
        for index, seconds in enumerate(times):
            writer.write(np.full((64, 80, 3), 8 * index, np.uint8), seconds)
    return folder / "recording.mp4"


def webm(source: Path) -> Path:
    return transcode(source, source.with_suffix(".webm"), "-c:v", "libvpx", *MILLISECONDS)


def behind_a_cover(source: Path) -> Path:
    """Its first video stream is a picture: ffmpeg prints its rate first."""
    cover, target = source.with_name("cover.png"), source.with_suffix(".mkv")
    run_ffmpeg("-i", source, "-frames:v", 1, cover)
    run_ffmpeg(
        "-i",
        cover,
        "-i",
        source,
        "-map",
        0,
        "-map",
        1,
        "-c",
        "copy",
        "-disposition:v:0",
        "attached_pic",
        target,
    )
    return target


def behind_a_preview(source: Path) -> Path:
    """Its first video stream is smaller, and has another rate."""
    target = source.with_suffix(".mkv")
    options = [
        "-map",
        0,
        "-map",
        0,
        *MILLISECONDS,
        "-filter:v:0",
        "scale=40:32,settb=1/1000,setpts=N*7",
    ]
    run_ffmpeg("-i", source, *options, "-c:v", "libx264", target)
    return target


def as_store(source: Path) -> Path:
    dataset = source.parents[2] / "set"
    assert convert([str(source.parents[1]), str(dataset), "--short-side", "64"]) == 0
    return dataset / "jpg" / source.parent.name / source.stem


@pytest.mark.parametrize("change", [webm, behind_a_cover, behind_a_preview, as_store])
def test_drawn_videos_last_as_long_as_their_source(
    checkpoint: Path, tmp_path: Path, change: Callable[[Path], Path]
) -> None:
    times = [0, 0.033, 0.066, 0.1, 0.6, 0.64, 2.5, 2.533, 2.566, 6]
    (tmp_path / "videos" / "a").mkdir(parents=True)
    source = change(recording(tmp_path / "videos" / "a", times))
    overlay, gradcam = tmp_path / "overlay.mp4", tmp_path / "gradcam.mp4"
    assert predict(checkpoint, source, "--overlay", overlay, "--gradcam", gradcam) == 0
    for path in (overlay, gradcam):
        np.testing.assert_allclose([seconds for seconds, _ in packets(path)], times, atol=0.001)
        assert sum(packets(path)[-1]) == pytest.approx(6.034, abs=0.002)


def test_stores_without_times_are_drawn_with_25_frames_per_second(checkpoint: Path, tmp_path: Path) -> None:
    write_frame_store(tmp_path / "v", painted_jpegs(5, 0, 64))
    assert predict(checkpoint, tmp_path / "v", "--overlay", tmp_path / "o.mp4") == 0
    np.testing.assert_allclose(packets(tmp_path / "o.mp4"), [(index / 25, 0.04) for index in range(5)])


def test_names_with_a_dash_first(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As YouTube ids have it: `python -m train.predict CHECKPOINT *.mp4`."""
    names = ["--3.mp4", "-abc.mp4", "-hx.mp4", "-5"]
    for name in names:
        constant_video(tmp_path / "v.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert predict(checkpoint, *names, "--top", 1, "--overlay", "out") == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[::2]] == names
    assert sorted(path.name for path in Path("out").iterdir()) == ["--3.mp4", "-5.mp4", "-abc.mp4", "-hx.mp4"]
    assert "required: VIDEO" in error_of(main, checkpoint, "--top", 1)
    assert "unrecognized arguments: --topp=1" in error_of(main, checkpoint, "-abc.mp4", "--topp=1")


def test_any_name_survives_an_ascii_terminal(tmp_path: Path) -> None:
    """The terminal loses letters; pictures, JSON and features have them, also those that are not UTF-8."""
    net = save_network(tmp_path / "net.pth", brightness_network(), OPTIONS, ("推", "धक्का"))
    video = constant_video(tmp_path / os.fsdecode(b"caf\xe9 \xe6\x8e\xa8.mp4"))
    words = [
        net,
        video,
        "--json",
        tmp_path / "p.json",
        "--features",
        tmp_path / "f.npz",
        "--overlay",
        tmp_path / "o",
    ]
    for encoding, letters in (("ascii", "??"), ("latin-1", "??"), ("utf-8", "?推")):
        terminal = io.TextIOWrapper(io.BytesIO(), encoding)
        with redirect_stdout(terminal):
            assert predict(*words) == 0
        terminal.flush()
        printed = terminal.buffer.getvalue().decode(encoding)
        assert f"caf{letters[0]} {letters[1]}.mp4: 10 frames" in printed
        (prediction,) = json.loads((tmp_path / "p.json").read_text("utf-8"))
        assert (prediction["video"], prediction["topk"][0]["class"]) == (str(video), "धक्का")
        with np.load(tmp_path / "f.npz") as arrays:
            assert (arrays["videos"][0], arrays["classes"][0]) == (str(video), "推")
        assert len(list((tmp_path / "o").iterdir())) == 1


def test_several_videos_are_drawn_into_a_folder(checkpoint: Path, tmp_path: Path) -> None:
    """Files have the names of their videos, after that of the folder where they are not unique."""
    videos, out = tmp_path / "videos", tmp_path / "out"
    for name in ("one/a.mp4", "two/a.mp4"):
        (videos / name).parent.mkdir(parents=True)
        constant_video(videos / name, num_frames=3)
    assert predict(checkpoint, videos, "--overlay", out) == 0
    assert predict(checkpoint, videos / "one", "--overlay", out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "one_a.mp4", "two_a.mp4"]
    single = videos / "one" / "a.mp4"
    assert "x.mp4: must be an .mp4 file, for" in error_of(main, checkpoint, videos, "--overlay", "x.mp4")
    assert "x.avi: must be an .mp4 file, for" in error_of(main, checkpoint, single, "--gradcam", "x.avi")
    assert f"{out}: --overlay and" in error_of(main, checkpoint, videos, "--overlay", out, "--gradcam", out)


def test_no_input_is_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    video = constant_video(folder / "x.mp4")
    before = video.read_bytes()
    assert f"{video}: would overwrite an input" in error_of(main, checkpoint, folder, "--overlay", folder)
    detour = folder / ".." / "clips" / "x.mp4"
    assert f"{detour}: would overwrite an input" in error_of(main, checkpoint, video, "--gradcam", detour)
    assert video.read_bytes() == before


def test_features(checkpoint: Path, sunrise: Path, tmp_path: Path) -> None:
    short = constant_video(tmp_path / "short.mp4", num_frames=2)
    path = tmp_path / "new" / "features.npz"
    assert predict(checkpoint, sunrise, short, "--features", path) == 0
    with np.load(path) as arrays:
        assert arrays["features"].shape == (6, brightness_network().fc.in_features)
        assert arrays["probabilities"].shape == (6, 2)
        assert arrays["videos"].tolist() == [str(sunrise)] * 5 + [str(short)]
        assert arrays["frames"].tolist()[-2:] == [[23, 29], [0, 1]]
        assert arrays["classes"].tolist() == list(CLASSES)
        assert arrays["features"][-1].mean() > 1 > arrays["features"][0].mean()


def test_frame_store_has_the_prediction_of_its_video(
    checkpoint: Path, sunrise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a").symlink_to(sunrise.parent)
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set")]) == 0
    capsys.readouterr()
    windows = []
    for path in (sunrise, tmp_path / "set" / "jpg" / "a" / "sunrise"):
        assert predict(checkpoint, path, "--json", "-") == 0
        windows.append(json.loads(capsys.readouterr().out)[0]["windows"])
    assert windows[0] == windows[1]


def test_a_corrupt_video_does_not_stop_the_others(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    good = constant_video(tmp_path / "good.mp4")
    assert predict(checkpoint, bad, good) == 1
    assert f"{good}: 10 frames" in capsys.readouterr().out
    assert str(bad) in caplog.text


def test_predictions_from_before_an_interrupt_are_written(
    checkpoint: Path, sunrise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished drawing leaves no file."""
    other = constant_video(tmp_path / "other.mp4")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "write", interrupt)
    out = tmp_path / "out"
    words = ["--json", out / "a.json", "--features", out / "f.npz", "--overlay", out]
    with pytest.raises(SystemExit, match="^130$"):
        predict(checkpoint, sunrise, other, *words)
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "f.npz"]
    assert [video["video"] for video in json.loads((out / "a.json").read_text())] == [str(sunrise)]
    with np.load(out / "f.npz") as arrays:
        assert set(arrays["videos"]) == {str(sunrise)}


def test_errors(checkpoint: Path, sunrise: Path, tmp_path: Path) -> None:
    assert f"{tmp_path / 'no.pth'}: " in error_of(main, tmp_path / "no.pth", sunrise)
    assert f"{tmp_path / 'no.mp4'}: " in error_of(main, checkpoint, tmp_path / "no.mp4")
    assert "argument --stride: '0' is not" in error_of(main, checkpoint, sunrise, "--stride", 0)
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["fc.bias"][:] = float("nan")
    diverged = tmp_path / "diverged.pth"
    torch.save(content, diverged)
    assert f"{diverged}: probabilities for {sunrise} contain NaN or Inf" in error_of(main, diverged, sunrise)


def test_a_damaged_video_is_predicted_up_to_the_damage(
    checkpoint: Path, real_videos: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert predict(checkpoint, real_videos / "corrupted.mp4", "--json", "-") == 0
    (video,) = json.loads(capsys.readouterr().out)
    assert "corrupted.mp4: decoding stopped early: " in caplog.text
    assert video["decode_error"]
    assert video["num_frames"] >= 28
