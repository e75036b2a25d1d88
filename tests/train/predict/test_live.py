"""Live video, read frame by frame: standard input and streams, and what is shown while a video is read."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.ffmpeg.video_files import LiveVideo, VideoFile, open_videos
from tests.commands import REPOSITORY, error_of, main_of
from tests.data.helpers import run_ffmpeg
from tests.data.http_server import CUT, Script, serve
from tests.train.toy_task import save_brightness_network, write_video
from train.inference import load_inference_model
from train.predict.predictor import VideoPredictor

main = main_of("train.predict")
COMMAND = "import sys, tests.tiny_network; from train.predict.__main__ import main; sys.exit(main())"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_brightness_network(tmp_path_factory.mktemp("trained") / "net.pth")


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames that differ."""
    frames = np.random.default_rng(0).integers(0, 256, (60, 9, 11)).repeat(10, axis=1).repeat(10, axis=2)
    return write_video(tmp_path_factory.mktemp("videos") / "noise.mp4", frames)


def start(*words: object) -> "subprocess.Popen[bytes]":
    """Start a prediction that reads from a pipe."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", COMMAND, *map(str, words)], cwd=REPOSITORY, **streams)  # type: ignore[call-overload]


def compare(live: dict[str, Any], file: dict[str, Any]) -> None:
    for windows in zip(live["windows"], file["windows"], strict=True):
        probabilities = [sorted(s.pop("topk"), key=lambda score: score["class"]) for s in map(dict, windows)]
        for ours, theirs in zip(*probabilities, strict=True):
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=2e-6)
        for name in ("first_frame", "last_frame", "start", "end"):
            assert windows[0][name] == windows[1][name]


def test_windows_of_a_stream_are_those_of_the_file(checkpoint: Path, noise: Path, tmp_path: Path) -> None:
    """Piped in, and from a server."""
    words = [checkpoint, "--stride", 4, "--json"]
    with serve(noise.read_bytes()) as server:
        url = server.url.format(id="noise")
        for name, source in (("file", noise), ("http", url)):
            assert main([*map(str, (*words, tmp_path / name, source))]) == 0
    process = start(*words, tmp_path / "pipe", "-")
    out, _ = process.communicate(noise.read_bytes())
    assert out.decode().splitlines()[0].startswith("00:00:00.000 - 00:00:00.280  ")
    (file,), (http,), (pipe,) = (
        json.loads((tmp_path / name).read_text()) for name in ("file", "http", "pipe")
    )
    assert (file["num_frames"], http["video"], pipe["video"]) == (60, url, "-")
    assert file["decode_error"] == http["decode_error"] == pipe["decode_error"] == ""
    compare(http, file)
    compare(pipe, file)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stream_without_an_end_is_predicted_as_it_comes_and_ends_with_ctrl_c(
    checkpoint: Path, noise: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run_ffmpeg("-i", noise, "-c", "copy", tmp_path / "noise.mkv")  # can be read before its end
    files = ["--json", tmp_path / "p.json", "--csv", tmp_path / "p.csv", "--srt", tmp_path / "p.srt"]
    process = start(checkpoint, "-", *files)
    assert process.stdin
    assert process.stdout
    process.stdin.write((tmp_path / "noise.mkv").read_bytes())
    process.stdin.flush()
    lines = [process.stdout.readline().decode() for _ in range(2)]
    assert [line[:27] for line in lines] == ["00:00:00.000 - 00:00:00.280", "00:00:00.280 - 00:00:00.560"]
    assert (tmp_path / "p.csv").read_text().count(",window,") >= 4  # at once
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    (video,) = json.loads((tmp_path / "p.json").read_text())
    assert f"-: {video['num_frames']} frames, {len(video['windows'])} windows" in out.decode()
    assert video["windows"][-1]["last_frame"] == video["num_frames"] - 1
    assert (tmp_path / "p.csv").read_text().count(",video,0.000,") == 2
    assert (tmp_path / "p.srt").read_text().startswith("1\n00:00:00,000 --> ")


def test_windows_are_kept_only_where_they_are_needed(checkpoint: Path, noise: Path) -> None:
    predictor = VideoPredictor(load_inference_model(checkpoint, torch.device("cpu")), 4, 4)
    whole = predictor.predict(VideoFile(noise))
    last = predictor.predict(VideoFile(noise), keep_windows=False)
    assert (len(last.frames), last.num_windows, len(whole.frames)) == (1, 15, 15)
    np.testing.assert_array_equal(last.mean, whole.mean)


def test_a_progress_bar_knows_the_number_of_frames(
    checkpoint: Path, noise: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main([str(checkpoint), str(noise)]) == 0
    assert "0/60" in capsys.readouterr().err


def test_a_broken_stream_is_predicted_up_to_there(
    checkpoint: Path, noise: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with serve(noise.read_bytes(), {"v": Script(whole=[CUT], ranges=[CUT])}) as server:
        url = server.url.format(id="v")
        assert main([str(checkpoint), url]) == 0
    assert f"{url}: 16 frames, 3 windows" in capsys.readouterr().out
    assert f"{url}: decoding stopped early: 16 frames, Stream ends prematurely" in caplog.text


def test_sources(
    checkpoint: Path,
    noise: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A password is not shown; a file comes before a camera of the same name."""
    monkeypatch.chdir(tmp_path)
    address = "http://me:secret@127.0.0.1:1/x.mp4"
    assert main([str(checkpoint), address, "0"]) == 1
    shown = [record.getMessage() for record in caplog.records]
    assert shown[0].startswith("http://127.0.0.1:1/x.mp4: no frame could be decoded, ")
    assert shown[1].startswith("0: no frame could be decoded, ")
    assert "secret" not in caplog.text
    assert "record live video first" in error_of(main, checkpoint, address, "--overlay", "o.mp4")
    Path("0").write_bytes(noise.read_bytes())
    assert [type(video) for video in open_videos(["0", "1"])] == [VideoFile, LiveVideo]
