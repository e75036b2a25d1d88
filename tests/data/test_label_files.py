"""Label files and class indexes."""

import json
import re
from pathlib import Path

import pytest

from data.datasets import HACS
from data.label_files import (
    Annotation,
    class_index_path,
    find_label_folder,
    read_annotations,
    read_classes,
    read_label_csv,
    read_or_write_classes,
    write_label_csv,
)
from tests.data.labels.test_labels import write

TIMED = "label,youtube_id,time_start,time_end"


@pytest.mark.parametrize("id_column", ["youtube_id", "id"])
def test_folder_of_a_clip_has_its_times_in_whole_seconds(tmp_path: Path, id_column: str) -> None:
    text = f"label,{id_column},time_start,time_end,split\na b,-x_1,3.7,13.0,train\na b,y,,,train\n"
    path = write(tmp_path / "x.csv", text)
    rows = read_label_csv(path, timed_ids=True)
    assert rows == [Annotation("a b", "-x_1", "3.7", "13.0"), Annotation("a b", "y")]
    assert [row.folder for row in rows] == ["a b/-x_1_000003_000013", "a b/y"]
    assert [row.seconds for row in rows] == [(3.7, 13.0), None]
    assert [row.video_id for row in read_label_csv(path, timed_ids=False)] == ["-x_1", "y"]


def test_csv_as_excel_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbflabel,id\r\n"a, ""b""",x\r\npetting animal (not cat),y\r\n')
    rows = [Annotation('a, "b"', "x"), Annotation("petting animal (not cat)", "y")]
    assert read_label_csv(path, timed_ids=False) == rows


@pytest.mark.parametrize("times", [(), ("1.50", "2.5")])
def test_written_label_file_is_read_back(tmp_path: Path, times: tuple[str, ...]) -> None:
    rows = [Annotation('a, "b"', "x,y", *times), Annotation("ü 日本", "#1?", *times)]
    write_label_csv(tmp_path / "new" / "x.csv", rows, "train")
    assert read_label_csv(tmp_path / "new" / "x.csv", timed_ids=True) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,name\nrun,a\n", "x.csv, line 2: needs youtube_id or id; columns are ['label', 'name']"),
        ("name,id\nrun,a\n", "x.csv, line 2: needs label; columns are ['name', 'id']"),
        ("", "x.csv: has no rows"),
        ("label,id\n", "x.csv: has no rows"),
        ("label,id\nrun,a\n../../etc,b\n", "x.csv, line 3: '../../etc' is outside the dataset folder"),
        ("label,id\nrun,/etc/passwd\n", "x.csv, line 2: '/etc/passwd' is outside"),
        ("label,id\nrun,..\n", "x.csv, line 2: '..' is outside"),
        ("label,id\na/b,x\n", "x.csv, line 2: class 'a/b' contains a slash"),
        ("label,id\n,a\n", "x.csv, line 2: label or ID is empty"),
        (f"{TIMED}\nrun,a,5,\n", "x.csv, line 2: times '5' to '' must be seconds"),
        (f"{TIMED}\nrun,a,9,5\n", "x.csv, line 2: times '9' to '5' must be seconds, 0 <= start <= end"),
        (f"{TIMED}\nrun,a,nan,5\n", "x.csv, line 2: times 'nan' to '5'"),
        ('label,id\na,x\na,"y\na,z\n', "x.csv: not a CSV in UTF-8, unexpected end of data"),
    ],
)
def test_invalid_label_file_is_an_error_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_label_csv(write(tmp_path / "x.csv", text), timed_ids=True)


def test_binary_label_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="x.csv: not a CSV in UTF-8"):
        read_label_csv(tmp_path / "x.csv", timed_ids=False)


def test_clips_in_the_same_whole_seconds_are_read_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = write(tmp_path / "train.csv", f"{TIMED}\na,x,1.2,3.4\na,x,1.9,3.1\nb,x,1.9,3.1\nc,y,,\n")
    val = write(tmp_path / "val.csv", f"{TIMED}\na,x,1.2,3.4\na,x,1.5,3.1\n")
    assert read_annotations([train, val]) == [
        Annotation("a", "x", "1.2", "3.4"),
        Annotation("b", "x", "1.9", "3.1"),
        Annotation("c", "y"),
    ]
    assert "dropped 2 rows in the same whole seconds as another one" in caplog.text
    empty = write(tmp_path / "empty.csv", f"{TIMED}\na,x,2.5,2.5\n")
    with pytest.raises(ValueError, match=r"empty.csv, line 2: x_000002_000002 has no time between"):
        read_annotations([empty])


def test_classes_are_numbered_by_first_appearance_and_keep_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "label,id\nzebra,a\nape,b\nzebra,c\n")
    assert read_or_write_classes(path, read_label_csv(path, False)) == ["zebra", "ape"]
    assert json.loads((tmp_path / "dictionary.json").read_text()) == {"zebra": 0, "ape": 1}
    write(path, "label,id\nape,b\nzebra,a\n")
    assert read_or_write_classes(path, read_label_csv(path, False)) == ["zebra", "ape"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "{}",
        '{"a": 1}',
        '{"a": 0, "b": 0}',
        '{"a": "0"}',
        '{"a": true}',
        '{"a": 0.9}',
    ],
)
def test_invalid_class_index_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="dictionary.json: "):
        read_classes(write(tmp_path / "dictionary.json", text))


def test_class_index_is_beside_its_label_file() -> None:
    """The original cut the whole path at the first "train": /data/train_ssd/... shared one dictionary."""
    path = Path("/data/train_ssd/val_labels/HACS_clips_v1.1_train.csv")
    assert class_index_path(path) == Path("/data/train_ssd/val_labels/HACS_clips_v1.1_dictionary.json")


def test_search_order_of_label_folders(tmp_path: Path) -> None:
    root = tmp_path / "data" / "HACS_videos"
    root.mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"HACS_videos/labels and .*/labels; --labels names its folder"
    ):
        find_label_folder(root, HACS.train_csv, None)
    for folder in (tmp_path / "labels", root / "labels"):
        write(folder / HACS.train_csv, "x")
        assert find_label_folder(root, HACS.train_csv, None) == folder
    write(tmp_path / "mine" / HACS.train_csv, "x")
    assert find_label_folder(root, HACS.train_csv, tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_label_folder(root, HACS.train_csv, tmp_path / "nowhere")
