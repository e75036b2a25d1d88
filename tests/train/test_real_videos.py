"""Real videos, converted, labeled and trained on: the network classifies segments that it has not seen."""

import csv
import shlex
import subprocess
from pathlib import Path

import tests.tiny_network  # noqa: F401  registers tiny
from data.datasets import CUSTOM
from data.ffmpeg.binary import ffmpeg_binary
from tests.commands import main_of
from train.main import main as train
from train.options import Options

VIDEOS = ("apply_eye_makeup.avi", "arm_wrestling.mp4", "cleaning_pool.mp4", "flipping_a_pancake.mkv")
FLAGS = (
    "--network tiny --clip-length 4 --clip-size 32 --short-side 40 --batch-size 8 --workers 0 --gpus 0 "
    "--lr-base 0.1 --lr-schedule cosine --warmup-epochs 1 --clip-grad-norm 5 "
    "--augment none --end-epoch 8 --save-frequency 8"
)


def cut_into_segments(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", str(source), "-vf", "scale=-2:96", "-an"]
    command += ["-f", "segment", "-segment_time", "0.6", "-force_key_frames", "expr:gte(t,n_forced*0.6)"]
    subprocess.run([*command, str(folder / "%02d.mp4")], check=True)


def test_held_out_segments_are_classified(tmp_path: Path, real_videos: Path) -> None:
    for name in VIDEOS:
        cut_into_segments(real_videos / name, tmp_path / "videos" / Path(name).stem)
    dataset, results = tmp_path / "set", tmp_path / "results"
    assert main_of("data.convert")([str(tmp_path / "videos"), str(dataset)]) == 0
    assert main_of("data.labels")(["folders", str(dataset), "--val", "0.3"]) == 0
    words = ["--dataset", str(dataset), "--model-dir", str(results), *shlex.split(FLAGS)]
    assert train(CUSTOM, Options(), words) == 0
    (path,) = results.glob("*/val_results_s0001.csv")
    with path.open() as file:
        assert float(list(csv.DictReader(file))[-1]["Top1"]) >= 0.75
