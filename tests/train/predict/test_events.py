"""Events of a video, and the files that have them: JSON, CSV and subtitles."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands import error_of, main_of
from tests.data.helpers import run_ffmpeg
from tests.train.toy_task import save_brightness_network, write_video
from train.predict.events import find_events
from train.predict.predictor import WindowPrediction

main = main_of("train.predict")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_brightness_network(tmp_path_factory.mktemp("trained") / "net.pth")


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3.6 s at 25 frames per second: dark, bright from 1.12 s to 2.24 s, dark."""
    frames = np.full((90, 64, 80), 20)
    frames[28:56] = 255
    return write_video(tmp_path_factory.mktemp("videos") / "day.mp4", frames)


def windows(*rows: tuple[float, float, float]) -> list[WindowPrediction]:
    """Return windows with these starts, ends, and probabilities of the first of two classes."""
    none = np.zeros(0)
    return [
        WindowPrediction(none, np.array([start, end]), np.array([p, 1 - p]), none) for start, end, p in rows
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 1, 0.9), (1, 2, 0.7), (2, 3, 0.1)], [(0, 2, "a", 0.8), (2, 3, "b", 0.9)]),
        ([(0, 1, 0.9), (1, 2, 0.55), (2, 3, 0.9)], [(0, 1, "a", 0.9), (2, 3, "a", 0.9)]),  # less than 0.6
        ([(0, 2, 0.9), (1, 3, 0.9), (2, 4, 0.3)], [(0, 2.5, "a", 0.9), (2.5, 4, "b", 0.7)]),  # overlapping
        ([(0, 1, 0.9), (3, 4, 0.9), (6, 7, 0.3)], [(0, 4, "a", 0.9), (6, 7, "b", 0.7)]),  # with gaps
        ([(0, 1, 0.5)], []),
    ],
)
def test_events_are_consecutive_windows_of_one_class(
    rows: list[tuple[float, float, float]], expected: list[tuple[float, float, str, float]]
) -> None:
    events = [
        (start, end, label, pytest.approx(p))
        for start, end, (label, p) in find_events(windows(*rows), "ab", 0.6)
    ]
    assert events == expected


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


EVENTS = [("dark", 0, 1.12), ("bright", 1.12, 2.24), ("dark", 2.24, 3.6)]


def test_events_are_printed_and_written(
    checkpoint: Path, day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [checkpoint, day, "--events", 0.6, "--top", 1]
    files = ["--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv", "--srt", tmp_path / "day.srt"]
    assert main([*map(str, (*words, *files))]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  00:00:00.000 - 00:00:01.120  dark 0.982",
        "  00:00:01.120 - 00:00:02.240  bright 1.000",
        "  00:00:02.240 - 00:00:03.600  dark 0.982",
    ]
    (video,) = json.loads((tmp_path / "e.json").read_text())
    assert [(event["class"], event["start"], event["end"]) for event in video["events"]] == EVENTS
    *rows, whole = read_table(tmp_path / "e.csv")
    assert [(row["class"], float(row["start"]), float(row["end"])) for row in rows] == EVENTS
    assert {(row["video"], row["part"]) for row in rows} == {(str(day), "event")}
    assert (whole["part"], whole["start"], whole["end"], whole["class"]) == (
        "video",
        "0.000",
        "3.600",
        "dark",
    )
    run_ffmpeg("-i", tmp_path / "day.srt", tmp_path / "day.vtt")  # is read as subtitles
    assert (tmp_path / "day.vtt").read_text().split("\n\n")[1:3] == [
        "00:00.000 --> 00:01.120\ndark 0.98",
        "00:01.120 --> 00:02.240\nbright 1.00",
    ]


def test_a_table_of_windows_and_videos(checkpoint: Path, day: Path, tmp_path: Path) -> None:
    """Without --events; subtitles then have the most probable class of any time."""
    out = tmp_path / "new"
    assert main([*map(str, (checkpoint, day, day, "--csv", out / "p.csv", "--srt", out))]) == 0
    rows = read_table(out / "p.csv")
    first, *_, last = (row for row in rows if row["part"] == "window")
    assert (first["start"], first["end"], first["class"], first["probability"][:5]) == (
        "0.000",
        "0.280",
        "dark",
        "0.982",
    )
    assert (last["start"], last["end"]) == ("3.320", "3.600")  # the last window ends with the video
    assert [row["class"] for row in rows if row["part"] == "video"] == ["dark", "bright"] * 2
    assert [path.read_text()[:2] for path in sorted(out.glob("*.srt"))] == ["1\n"]


def test_a_table_on_standard_output(
    checkpoint: Path, day: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It has nothing else, and no file is named `-`, which would hide standard input."""
    assert main([str(checkpoint), str(day), "--csv", str(tmp_path / "p.csv")]) == 0
    capfd.readouterr()
    assert main([str(checkpoint), str(day), "--csv", "-"]) == 0
    assert capfd.readouterr().out == (tmp_path / "p.csv").read_text()
    assert not Path("-").exists()


def test_errors(checkpoint: Path, day: Path, tmp_path: Path) -> None:
    assert "argument --events: '60' is not a number from 0 to 1" in error_of(
        main, checkpoint, day, "--events", 60
    )
    assert "only one of --json and --csv" in error_of(main, checkpoint, day, "--json", "-", "--csv", "-")
    for split in ("train", "val"):
        (tmp_path / split / "day").mkdir(parents=True)
        (tmp_path / split / "day/1.mp4").symlink_to(day)
    both = (tmp_path / "train", tmp_path / "val", "--srt", tmp_path / "srt")
    assert "day_1.srt: would be written for several videos" in error_of(main, checkpoint, *both)
    assert "must be an .srt file, for a single" in error_of(
        main, checkpoint, day, "--srt", tmp_path / "x.txt"
    )
