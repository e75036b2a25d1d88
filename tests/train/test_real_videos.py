"""From real files to a network that tells scenes apart: convert, labels, training, on segments it has not seen."""

import csv
import subprocess
from pathlib import Path

from data.datasets import CUSTOM
from data.ffmpeg import ffmpeg_binary
from tests.commands import main_of
from train.main import main as train
from train.options import Options

convert = main_of("data.convert")
labels = main_of("data.labels")

CLIPS = ("apply_eye_makeup.avi", "arm_wrestling.mp4", "cleaning_pool.mp4", "flipping_a_pancake.mkv")


def cut(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", str(source), "-vf", "scale=-2:96", "-an"]
    command += ["-f", "segment", "-segment_time", "0.6", "-force_key_frames", "expr:gte(t,n_forced*0.6)"]
    subprocess.run([*command, str(folder / "%02d.mp4")], check=True)


def test_scenes_are_told_apart_on_held_out_segments(tmp_path: Path, real_videos: Path) -> None:
    for name in CLIPS:
        cut(real_videos / name, tmp_path / "videos" / Path(name).stem)
    assert convert([str(tmp_path / "videos"), str(tmp_path / "set")]) == 0
    assert labels(["folders", str(tmp_path / "set"), "--val", "0.3"]) == 0
    words = [
        "--dataset",
        str(tmp_path / "set"),
        "--model-dir",
        str(tmp_path / "results"),
        "--network",
        "r3dxt34_32d",
    ]
    words += [
        "--clip-length",
        "4",
        "--clip-size",
        "32",
        "--short-side",
        "40",
        "--batch-size",
        "8",
        "--workers",
        "0",
    ]
    words += ["--lr-base", "0.1", "--lr-schedule", "cosine", "--warmup-epochs", "1", "--clip-grad-norm", "5"]
    words += ["--augment", "none", "--end-epoch", "8", "--save-frequency", "8", "--gpus", "0"]
    assert train(CUSTOM, Options(), words) == 0
    with (tmp_path / "results" / "r3dxt34_32d_gates_False" / "val_results_s0001.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["Top1"]) >= 0.75
