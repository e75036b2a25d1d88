"""Label files of custom datasets, and links that sort videos into class folders."""

import shutil
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest

from data.label_files import Annotation, read_label_csv
from data.labels.splits import list_videos, split_by_list
from tests.commands import error_of, main_of
from tests.data.helpers import make_video, transcode
from tests.synthetic_frames import make_stores

main = main_of("data.labels")

IDS = {"run": ["a", "b", "c", "d"], "jump": ["e", "f", "g", "h"], "fall": ["i", "j", "k", "l"]}


def write(path: Path, text: str) -> Path:
    """Write a text file, creating its folder; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    make_stores(root, IDS, n_frames=2)
    return root


def test_folders_splits_each_class_at_random(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folders", str(stores), "--val", "0.25"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "             train      val",
        "fall             3        1",
        "jump             3        1",
        "run              3        1",
        "3 classes        9        3",
        f"{stores}/labels/train.csv",
        f"{stores}/labels/val.csv",
    ]
    train, val = (read_label_csv(stores / "labels" / f"{split}.csv", True) for split in ("train", "val"))
    all_rows = {Annotation(label, video) for label, ids in IDS.items() for video in ids}
    assert len(train) + len(val) == len({*train, *val}) == len(all_rows)
    assert {*train, *val} == all_rows
    assert sorted(row.label for row in val) == ["fall", "jump", "run"]

    before = (stores / "labels" / "val.csv").read_text()
    assert "train.csv exists; --overwrite replaces it" in error_of(main, "folders", stores)
    for seed, same in (("1", True), ("2", False)):
        main(["folders", str(stores), "--val", "0.25", "--overwrite", "--seed", seed])
        assert ((stores / "labels" / "val.csv").read_text() == before) == same


def test_folders_with_a_list_of_validation_videos(stores: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "val.txt", "run/a\n\njump/h.mp4\nrun/d.avi\n")
    assert main(["folders", str(stores), "--val-list", str(path), "--overwrite"]) == 0
    rows = [Annotation("run", "a"), Annotation("jump", "h"), Annotation("run", "d")]
    assert read_label_csv(stores / "labels" / "val.csv", True) == rows
    assert len(read_label_csv(stores / "labels" / "train.csv", True)) == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run/a\nrun/z\n", "val.txt, line 2: 'run/z' is a duplicate or not a store"),
        ("a\n", "val.txt, line 1: 'a' is a duplicate or not a store"),
        ("run/a\nrun/a.avi\n", "val.txt, line 2: 'run/a.avi' is a duplicate or not"),
        ("\ufeff\n\n", "val.txt: has no rows"),
        ("run/a\nrun/b\nrun/c\nrun/d\n", "val.txt: leaves no training videos of class 'run'"),
        ("run/café\n".encode("latin-1"), "val.txt: not text in UTF-8"),
    ],
)
def test_invalid_list_of_validation_videos(
    stores: Path, tmp_path: Path, text: str | bytes, message: str
) -> None:
    (tmp_path / "val.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        split_by_list(list_videos(stores / "jpg"), tmp_path / "val.txt")


@pytest.mark.parametrize("of_list", ["NFC", "NFD"])
def test_a_list_of_validation_videos_in_another_unicode_form(
    tmp_path: Path, of_list: Literal["NFC", "NFD"]
) -> None:
    """Blanks around a line do not count. Label files have the composed form, whatever the disk has."""
    make_stores(
        tmp_path, {normalize("NFD", "café"): ["1", normalize("NFC", "né")], "run ": ["2", "3"]}, n_frames=2
    )
    path = write(tmp_path / "val.txt", normalize(of_list, "café/né.mp4 \nrun/2\u00a0\n"))
    assert main(["folders", str(tmp_path), "--val-list", str(path)]) == 0
    composed = normalize("NFC", "label,id,split\ncafé,né,val\nrun,2,val\n")
    assert (tmp_path / "labels" / "val.csv").read_text("utf-8") == composed


def test_invalid_fraction(stores: Path) -> None:
    assert "argument --val: '1' is not between 0 and 1" in error_of(main, "folders", stores, "--val", "1")


def test_link_sorts_videos_into_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Videos are found at any depth and below links to folders. Links to videos that were moved are replaced."""
    labels = write(
        tmp_path / "x.csv", "label,youtube_id,time_start,time_end\na b,#1,3,13\nc,x,,\nc,gone,0,2\nc,y,,\n"
    )
    write(tmp_path / "flat" / "deep" / "#1_000003_000013.mp4", "one")
    write(tmp_path / "flat" / "x.WEBM", "two")
    write(tmp_path / "disk" / "y.mpeg", "three")
    (tmp_path / "flat" / "part").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "flat")
    for name in ("x.txt", "x.wav", "other.one", "other.two"):
        write(tmp_path / "flat" / name, "not a video of a row")
    videos = tmp_path / "flat" / "videos"  # links below the source are not taken for videos
    assert main(["link", str(tmp_path / "flat"), str(videos), str(labels)]) == 0
    texts = {str(path.relative_to(videos)): path.read_text() for path in videos.rglob("*.*")}
    assert texts == {"a b/#1_000003_000013.mp4": "one", "c/x.WEBM": "two", "c/y.mpeg": "three"}
    assert main(["link", str(tmp_path / "flat"), str(videos), str(labels)]) == 0
    (tmp_path / "flat" / "deep").rename(tmp_path / "flat" / "moved")
    assert main(["link", str(tmp_path / "flat"), str(videos), str(labels)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "linked 3, present 0, missing 1",
        "linked 0, present 3, missing 1",
        "linked 1, present 2, missing 1",
    ]


def test_link_replaces_corrupted_videos_and_leaves_out_doubtful_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Copies of Kinetics have train/, val/ and replacement/replacement_for_corrupted_k400/ side by side."""
    flat, ids = tmp_path / "replacements/flat", ("replaced", "beside", "two", "only")
    rows = "".join(f"c,{name},1,11\n" for name in ids)
    labels = write(tmp_path / "x.csv", f"label,youtube_id,time_start,time_end\n{rows}")
    names = {name: f"{name}_000001_000011" for name in ids}
    video = make_video(tmp_path / "video.mp4", size=60)
    new = flat / "replacement/replacement_for_corrupted_k400"
    write(flat / f"train/{names['replaced']}.mp4", "corrupted")
    shutil.copy(video, flat / f"train/{names['beside']}.mp4")
    write(flat / f"train/{names['beside']}.unheard", "no video")
    arguments = ["link", str(flat), str(flat / "a_videos"), str(labels)]  # the links are below the source
    assert main(arguments) == 0
    for path in (
        new / f"{names['replaced']}.mp4",
        new / f"{names['only']}.mp4",
        flat / f"{names['two']}.mp4",
    ):
        write(path, "")
        shutil.copy(video, path)
    transcode(video, flat / f"{names['two']}.webm", "-t", "0.1")
    assert main(arguments) == 1
    links = {path.stem: path.resolve() for path in (flat / "a_videos/c").iterdir()}
    assert links == {
        names["replaced"]: new / f"{names['replaced']}.mp4",
        names["only"]: new / f"{names['only']}.mp4",
        names["beside"]: flat / f"train/{names['beside']}.mp4",
    }
    assert f"{names['two']}.webm are the same video: delete or rename one of the two" in caplog.text
    assert main(arguments) == 1
    assert capsys.readouterr().out.splitlines() == [
        "linked 2, present 0, missing 2",
        "linked 2, present 1, missing 0, replaced 1, failed 1",
        "linked 0, present 3, missing 0, replaced 1, failed 1",
    ]
