"""The six scripts: each trains an epoch on a small dataset in its own layout, and has the papers' defaults."""

import csv
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from data.datasets import DIVING48, HACS, HMDB51, KINETICS, MIT, UCF101, DatasetSpec
from network import registry
from tests.commands import run_command
from tests.synthetic_frames import make_stores
from tests.tiny_network import tiny_builders  # registers `tiny`

# flags of the original's README, some in its spelling
FLAGS = shlex.split(
    "--network tiny --clip-length 4 --clip-size 32 --batch-size 4 --end-epoch 1 --lr-base 0.01 --lr-steps [40,60,75] "
    "--lr-factor 0.1 --save-frequency 1 --random-seed 3 --gpus 0 --num-classes 2 --workers 1 --precision fp32 "
    "--train-frame-interval 1 2 --val-frame-interval 2 --task-name try --log-file run.log"
)

CASES = [
    ("train_hacs.py", HACS, "", [], "HACS"),
    ("train_kinetics.py", KINETICS, "400", ["--variant", "400"], "KINETICS-400"),
    ("train_kinetics.py", KINETICS, "700", [], "KINETICS-700"),
    ("train_mit.py", MIT, "", [], "MIT"),
    ("train_ucf101.py", UCF101, "1", [], "UCF101"),
    ("train_hmdb51.py", HMDB51, "3", ["--split", "3"], "HMDB51"),
    ("train_diving48.py", DIVING48, "", [], "DIVING48"),
]
TIMES = ((0, 10), (7, 17), (120, 130))


def make_dataset(root: Path, spec: DatasetSpec, variant: str) -> Path:
    """Write `<root>/data/X_videos/jpg/...` and `<root>/labels`, time-sliced if the dataset is."""
    dataset = root / "data" / "X_videos"
    header = ["label", "youtube_id", *(["time_start", "time_end"] if spec.timed_ids else []), "split"]
    stores: dict[str, list[str]] = {"brush hair": [], "dive #2": []}
    tables: dict[str, list[list[object]]] = {"train": [header], "val": [header]}
    for label, ids in stores.items():
        for number, (start, end) in enumerate(TIMES * 2):
            video = f"-{label[0]}%{number}"
            split = "val" if number > 3 else "train"
            ids.append(f"{video}_{start:06d}_{end:06d}" if spec.timed_ids else video)
            tables[split].append([label, video, *([start, end] if spec.timed_ids else []), split])
    make_stores(dataset, stores, n_frames=6)
    (root / "labels").mkdir()
    for split, name in (("train", spec.train_csv), ("val", spec.val_csv)):
        with (root / "labels" / name.format(variant=variant)).open("w", newline="") as file:
            csv.writer(file).writerows(tables[split])
    return dataset


def assert_one_epoch(results: Path) -> None:
    output = results / "tiny_gates_False_try"
    assert (output / "tiny_ep-0001.pth").exists()
    for split in ("train", "val"):
        with (output / f"{split}_results_s0001.csv").open() as file:
            (row,) = csv.DictReader(file)
        assert row["Epoch"] == "1"
        assert 0 <= float(row["Top1"]) <= float(row["Top5"]) == 1


@pytest.mark.parametrize(
    ("script", "spec", "variant", "flags", "results"), CASES, ids=lambda value: str(value)[:24]
)
def test_a_script_trains_an_epoch(
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    spec: DatasetSpec,
    variant: str,
    flags: list[str],
    results: str,
) -> None:
    dataset = make_dataset(tmp_path / "a train folder", spec, variant)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "--dataset", str(dataset), *flags, *FLAGS])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(repository / script), run_name="__main__")
    assert ended.value.code == 0
    assert_one_epoch(tmp_path / "results" / results)
    assert "epoch 1/1 val" in (tmp_path / "run.log").read_text()


def test_a_script_runs_from_any_folder(tmp_path: Path, repository: Path) -> None:
    dataset = make_dataset(tmp_path / "a train folder", HACS, "")
    command = [sys.executable, str(repository / "train_hacs.py"), "--dataset", str(dataset), *FLAGS]
    command += ["--network", "mtnet_xs", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"network": "mtnet_xs"' in done.stdout


PAPERS = {
    "train_hacs.py": (284, 48, 0.1, (40, 60, 75, 90), 120, (1, 2), 2, True),
    "train_kinetics.py": (284, 32, 0.05, (40, 70, 95), 130, (4, 5, 6), 5, True),
    "train_mit.py": (284, 48, 0.1, (25, 50, 70), 110, (3, 4), 3, True),
    "train_ucf101.py": (256, 32, 0.1, (15, 30, 40), 100, (2,), 2, False),
    "train_hmdb51.py": (256, 32, 0.1, (15, 30, 40), 100, (2,), 2, False),
    "train_diving48.py": (256, 32, 0.1, (15, 30, 40), 100, (2,), 2, False),
}


@pytest.mark.parametrize("script", PAPERS)
def test_the_defaults_are_those_of_the_papers(repository: Path, script: str) -> None:
    options = runpy.run_path(str(repository / script))["DEFAULTS"]
    size, batch, lr, steps, epochs, train_interval, val_interval, cycles = PAPERS[script]
    assert (options.clip_length, options.clip_size, options.batch_size) == (16, size, batch)
    assert (options.lr_base, options.lr_steps, options.lr_factor, options.end_epoch) == (
        lr,
        steps,
        0.1,
        epochs,
    )
    assert (options.train_frame_interval, options.val_frame_interval) == (train_interval, val_interval)
    assert (options.long_cycles, options.short_cycles) == (cycles, cycles)
    assert options.network == "srtg_r3d_34"


# of the original's README, but for the folder of `data`
FROM_SCRATCH = (
    "train_hacs.py --network srtg_r3d_34 --dataset data/HACS_videos/ --clip-size 324 --gpus 4 --lr-base 0.1 "
    "--batch-size 48"
)
RESUMED = (
    "train_hacs.py --network srtg_r3d_50 --dataset data/HACS_videos/ --clip-size 256 --gpus 4 --pretrained_3d "
    "results/HACS/srtg_r3d_50_gates_False/srtg_r3d_50_ep-0020.pth --resume-epoch 21 --lr-base 0.1 --batch-size 32"
)
TRANSFERRED = (
    "train_kinetics.py --network srtg_r3d_34 --dataset data/Kinetics_videos/ --variant 700 --clip-size 224 --gpus 4 "
    "--pretrained_3d results/HACS/srtg_r3d_34_gates_False/srtg_r3d_34_ep-0080.pth --fine-tune True --lr-base 0.1 "
    "--batch-size 48"
)


def run_example(folder: Path, command: str, flags: str) -> str:
    """Run a command in `folder` without GPUs, and return its output."""
    exit_code, output = run_command(*shlex.split(f"{command} --gpus 0 --workers 0 {flags}"), cwd=folder)
    assert exit_code == 0, output
    return output


def test_the_examples_of_the_original_readme(tmp_path: Path) -> None:
    """Training from scratch, resuming from a file, and fine-tuning on another dataset, on videos of two classes."""
    make_dataset(tmp_path, HACS, "")
    (tmp_path / "data/X_videos").rename(tmp_path / "data/HACS_videos")
    (tmp_path / "labels").rename(tmp_path / "data/HACS_videos/labels")
    make_dataset(tmp_path, KINETICS, "700")
    (tmp_path / "data/X_videos").rename(tmp_path / "data/Kinetics_videos")
    results = tmp_path / "results/HACS"
    with mock.patch.dict(registry._BUILDERS, tiny_builders()):
        run_example(tmp_path, FROM_SCRATCH, "--num-classes 2 --end-epoch 1")
        checkpoint = results / "srtg_r3d_34_gates_False/srtg_r3d_34_ep-0001.pth"
        shutil.copy(checkpoint, checkpoint.with_name("srtg_r3d_34_ep-0080.pth"))

        started = RESUMED.partition(" --pretrained_3d")[0]
        run_example(tmp_path, started, "--num-classes 2 --end-epoch 20 --save-frequency 20 --clip-length 2")
        output = run_example(tmp_path, RESUMED, "--num-classes 2 --end-epoch 21 --clip-length 2")
        assert "srtg_r3d_50_ep-0020.pth: resuming from epoch 21, step 1" in output
        assert (results / "srtg_r3d_50_gates_False/srtg_r3d_50_ep-0021.pth").exists()

        output = run_example(tmp_path, TRANSFERRED, "--num-classes 2 --end-epoch 1")
    assert "tensors loaded, 0 with a different shape, 0 not in the file" in output
    assert (tmp_path / "results/KINETICS-700/srtg_r3d_34_gates_False/srtg_r3d_34_ep-0001.pth").exists()
