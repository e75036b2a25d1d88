"""python -m train.report: what its page says, and that it works in a browser."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from data.datasets import CUSTOM
from tests.commands import error_of, main_of
from tests.synthetic_frames import make_stores
from tests.train.test_plot import make_run
from tools.docs.browser import find_browser, look
from train.cli import parse_options
from train.history import read_history
from train.options import Options
from train.report.charts import draw_charts
from train.report.results import list_options, read_results
from train.report.videos import collect_videos
from train.run_record import write_run_json
from train.scores import Scores

main = main_of("train.report")

CLASSES = ("jump", "run & <hide>", "wave")
VIDEOS = tuple(f"{name}/{name[0]}{number}" for name in CLASSES for number in range(2))
LABELS = np.array([0, 0, 1, 1, 2, 2])
# wrong: j1 taken for wave (surely), w0 for jump (barely); r1 is the least sure hit
ROWS = [[0.8, 0.1, 0.1], [0.04, 0.06, 0.9], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4], [0, 0.1, 0.9]]
PROBABILITIES = np.array(ROWS, np.float32)
ALL_RIGHT = np.eye(3, dtype=np.float32)[LABELS]


def save_scores(folder: Path, rows: np.ndarray, classes: tuple[str, ...] = CLASSES) -> None:
    Scores(classes, VIDEOS, LABELS, rows, "10x3").save(folder / "scores.npz")


def make_results(folder: Path, dataset: Path, *flags: str) -> Path:
    """Write what a run of three epochs leaves."""
    make_run(folder, 1, 3, ["layer1.0", "layer2.0"])
    options = parse_options(CUSTOM, Options(), ["--dataset", str(dataset), *flags], "train")
    counts = {name: {"videos": 6, "missing": 0} for name in ("train", "val")}
    write_run_json(folder, options, {**counts, "classes": 3, "fingerprint": "0123456789abcdef"})
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "somebody" / "set"
    make_stores(root, {name: [f"{name[0]}{number}" for number in range(2)] for name in CLASSES}, n_frames=5)
    return root


@pytest.fixture
def runs(tmp_path: Path, dataset: Path) -> list[Path]:
    """Two evaluated runs, the first one wrong for j1 and w0."""
    folders = [tmp_path / "results" / name for name in ("first", "second")]
    for folder, rows, lr in zip(folders, (PROBABILITIES, ALL_RIGHT), ("0.1", "0.2"), strict=True):
        make_results(folder, dataset, "--lr-base", lr, "--gates", "soft")
        save_scores(folder / "srtg_r3d_34_best_val_10x3", rows)
    return folders


def make_report(tmp_path: Path, *words: str | Path) -> str:
    path = tmp_path / "report.html"
    assert main([*map(str, words), "-o", str(path)]) == 0
    return path.read_text("utf-8")


def text_of(page: str) -> str:
    """Return what a page shows, without JavaScript."""
    body = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_mistakes_come_first_the_worst_at_the_beginning() -> None:
    scores = Scores(CLASSES, VIDEOS, LABELS, PROBABILITIES, "10x3")
    videos = collect_videos([(0, scores)])
    assert [video.name.rpartition("/")[2] for video in videos] == ["j1", "w0", "r1", "j0", "r0", "w1"]
    assert [round(video.margin, 2) for video in videos[:3]] == [-0.86, -0.1, 0.1]
    assert videos[0].predictions[0].classes[0] == ("wave", pytest.approx(0.9), False)


def test_page_without_a_browser(tmp_path: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """It has all that it says it has, refers to nothing outside, and names no folder above the data set's own."""
    page = make_report(tmp_path, *runs)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"report: .*report\.html \(0\.\d MB, 6 videos, 6 with a clip\)\n", printed)
    text = text_of(page)
    for shown in (
        *("0123456789abcdef", "video@1 (10x3) 0.6667 1.0000", "--lr-base 0.1 0.2", "--gates soft soft"),
        *("gate values layer1 layer2", "throughput (clips/s) data forward backward", "run & <hide>"),
        "jump j1 first wave 90 % run & <hide> 6 % jump 4 %",
        "wrong right 2",  # videos that only the second run gets right
    ):
        assert shown in text
    assert page.count("data:image/webp;base64,") == 6
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"https?:|@import|url\(", page)
    assert "somebody" not in page
    assert str(tmp_path) not in page


def test_page_in_a_browser(tmp_path: Path, runs: list[Path]) -> None:
    """Its images are shown, its links lead somewhere, a phone's width is enough, and clicks show videos and sort."""
    browser = find_browser()
    if browser is None:
        pytest.skip("needs Chromium or Chrome on the PATH")
    path = tmp_path / "report.html"
    path.write_text(make_report(tmp_path, *runs).replace(' loading="lazy"', ""), "utf-8")
    script = """
        const texts = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent.trim());
        const shown = (selector) => { click(selector); return texts("dialog[open] figure small"); };
        const accuracies = () => { click("#classes th:nth-child(3)"); return texts("#classes td:nth-child(3)"); };
        ({
          images: [...document.images].map((image) => image.naturalWidth),
          links: [...document.links].map((a) => document.querySelector(a.getAttribute("href")) !== null),
          width: document.documentElement.scrollWidth,
          before: texts("dialog[open] figure small"),
          cell: shown('g[data-show="0:0-2"]'),
          agreement: (dialog.close(), shown('td[data-show="01"]')),
          closed: shown("dialog button"),
          sorted: [accuracies(), accuracies()],
        })"""
    assert look(browser, path, script, size=(390, 800)) == {
        "images": [50] * 6,
        "links": [True] * 7,
        "width": 390,
        "before": [],
        "cell": ["j1"],
        "agreement": ["j1", "w0"],
        "closed": [],
        "sorted": [["100 %", "50 %", "50 %"], ["50 %", "50 %", "100 %"]],
    }


def test_clips_end_before_the_page_is_too_large(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The videos that come later are shown without."""
    limit = len(make_report(tmp_path, runs[0]).encode()) - 1000
    monkeypatch.setitem(main.__globals__, "MAX_BYTES", limit)
    page = make_report(tmp_path, runs[0])
    assert len(page.encode()) <= limit
    clips = page.count("data:image/webp")
    assert clips in (4, 5)
    assert page.count("no clip") == 6 - clips
    assert page.count("<figure data-in") == 6
    assert make_report(tmp_path, runs[0], "--all").count("data:image/webp") == 6


def test_the_best_checkpoint_is_shown(tmp_path: Path, runs: list[Path]) -> None:
    save_scores(runs[0] / "srtg_r3d_34_ep-0003_val_10x3", ALL_RIGHT)
    assert "srtg_r3d_34_best_val_10x3" in text_of(make_report(tmp_path, runs[0]))
    assert "srtg_r3d_34_ep-0003_val_10x3" in text_of(
        make_report(tmp_path, runs[0] / "srtg_r3d_34_ep-0003_val_10x3")
    )


def test_an_evaluation_without_a_run_changes_no_option(tmp_path: Path, runs: list[Path]) -> None:
    save_scores(tmp_path / "average", ALL_RIGHT)
    changed = list_options(read_results([runs[0], tmp_path / "average"]))[0]
    assert [name for name, _ in changed] == ["--dataset", "--gates"]


def test_what_is_missing_is_said_and_the_rest_is_shown(
    tmp_path: Path, dataset: Path, runs: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    new = make_results(tmp_path / "results" / "new", dataset, "--network", "mtnet_s")
    assert "Curves" in text_of(make_report(tmp_path, new))
    assert "new: not evaluated; python -m train.evaluate mtnet_s_best.pth --dataset DIR" in caplog.text
    (dataset / "jpg/jump/j1/frames.db").write_bytes(b"damaged" * 1000)
    assert text_of(make_report(tmp_path, runs[0])).count("no clip") == 1
    assert "videos without a clip: 1, such as " in caplog.text
    moved = dataset.rename(tmp_path / "moved")
    assert text_of(make_report(tmp_path, runs[0])).count("no clip") == 6
    assert "no clips: the dataset is not where it was in training; --dataset names its folder" in caplog.text
    assert text_of(make_report(tmp_path, runs[0], "--dataset", moved)).count("no clip") == 1


def test_errors(tmp_path: Path, runs: list[Path]) -> None:
    assert "it has no run.json and no scores.npz" in error_of(main, tmp_path)
    assert "must be a folder with jpg/" in error_of(main, runs[0], "--dataset", tmp_path)
    save_scores(tmp_path / "other", PROBABILITIES, classes=("jump", "walk", "wave"))
    error = error_of(main, runs[0], tmp_path / "other", "-o", tmp_path / "report.html")
    assert "classes differ: number 1 is 'run & <hide>' in first, 'walk' in other" in error
    (runs[0] / "run.json").write_text("{}")
    assert "run.json: not the run.json of a training run" in error_of(main, runs[0])


def test_curves_have_gaps_and_dots(tmp_path: Path) -> None:
    """Nothing is drawn where a value is not known, or 0 or infinite on a logarithmic scale."""
    make_run(tmp_path, 1, 4)
    for split, changed in (("train", {3: "", 4: "0.0"}), ("val", {3: "inf"})):
        path = tmp_path / f"{split}_results_s0001.csv"
        lines = path.read_text().splitlines(keepends=True)
        row = lines[2].split(",")
        for column, text in changed.items():  # loss and learning rate of epoch 2
            row[column] = text
        path.write_text("".join([*lines[:2], ",".join(row), *lines[3:]]))
    charts = {chart.title: chart for chart in draw_charts([(0, "run", read_history(tmp_path))])}
    for title, number in (("loss", 0), ("loss", 1), ("learning rate", 0)):
        assert re.sub(r"[\d. ]", "", charts[title].curves[number][0]) == "MhMhL", title
