"""Label files and class indexes."""

import json
import re
from pathlib import Path
from unicodedata import normalize

import pytest

from data.datasets import HACS
from data.label_files import (
    Annotation,
    class_index_path,
    describe_difference,
    find_label_folder,
    read_annotations,
    read_classes,
    read_label_csv,
    read_splits,
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


@pytest.mark.parametrize(
    "text",
    [
        ",label,id\n0,push,x\n1,pull,y\n",  # pandas numbers the rows
        "\ufefflabel , id\rpush ,x\r\rpull,\u00a0y\r",  # line ends of old Macs
        "label,id,,\npush\u00a0,x,,\n,,,\n \t,\npull,y,,\n",  # empty columns and rows of spreadsheets
        '"label\u2003", "id"\n"\u3000push", "x"\n"pull", "y"\n',
        "label,id\npush,x,\npull,y,,\n",  # a comma at the end of each row
        "\n\nid,label,note\nx,push,\ny,pull\u2003,sent twice\n",
    ],
)
def test_blanks_around_values_and_names_of_columns_do_not_count(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text, "utf-8", newline="")
    assert read_label_csv(tmp_path / "x.csv", False) == [Annotation("push", "x"), Annotation("pull", "y")]


def test_names_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    """An e with an accent is one character or two; macOS unzips names with two."""
    rows = [
        read_label_csv(write(tmp_path / f"{form}.csv", f"label,id\n{normalize(form, 'éclair,ñ')}\n"), False)
        for form in ("NFC", "NFD")
    ]
    assert rows[0] == rows[1] == [Annotation(normalize("NFC", "éclair"), normalize("NFC", "ñ"))]
    index = write(tmp_path / "dictionary.json", json.dumps({normalize("NFD", "éclair"): 1, "push ": 0}))
    assert read_classes(index) == ["push", rows[0][0].label]


def test_repeated_rows_are_used_once_and_what_two_splits_share_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same set: the splits of UCF-101 share videos by design."""
    train = write(tmp_path / "x1_train.csv", "label,id,group\na,1,g1\na,2,g2\na,1 ,g1\nb,1,g3\n")
    val = write(tmp_path / "x1_val.csv", "label,id,group\na,2,g2\nb,9,g1\n")
    other = write(tmp_path / "x2_val.csv", "label,id\na,1\n")
    splits = read_splits(dict.fromkeys((train, val, other), False))
    assert [row.folder for row in splits[train]] == ["a/1", "a/2", "b/1"]
    assert caplog.messages == [
        f"1 of 4 rows repeat a video, used once, such as a/1 in {train}, line 4",
        f"{train} and {val}: 1 videos in both, such as a/2",
        f"{train} and {val}: 2 groups in both, such as g1",
    ]
    caplog.clear()
    clips = [
        write(tmp_path / f"{split}.csv", f"{TIMED}\na,x,{start},{start + 2}\n")
        for split, start in (("train", 0), ("val", 7))
    ]
    read_splits(dict.fromkeys(clips, True))  # other seconds of the same video
    assert [line.partition(": ")[2] for line in caplog.messages] == ["1 videos in both, such as a/x"]


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (["a", "b"], ["a", "b", "c"], "number 2 is None in here, 'c' in there"),
        (["push ", "b"], ["push", "b"], "number 0 is 'push ' in here, 'push' in there"),
        (["a", "b", "c"], ["a", "c", "b"], "number 1 is 'b' in here, 'c' in there"),
    ],
)
def test_how_classes_differ(one: list[str], other: list[str], difference: str) -> None:
    assert describe_difference(one, other, ("here", "there")) == difference


@pytest.mark.parametrize("times", [(), ("1.50", "2.5")])
def test_written_label_file_is_read_back(tmp_path: Path, times: tuple[str, ...]) -> None:
    rows = [Annotation('a, "b"', "x,y", *times), Annotation("ü 日本", "#1?", *times)]
    write_label_csv(tmp_path / "new" / "x.csv", rows, "train")
    assert read_label_csv(tmp_path / "new" / "x.csv", timed_ids=True) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,name\nrun,a\n", "x.csv, line 2: needs youtube_id or id; columns are ['label', 'name']"),
        ("name,id\nrun,a\n", "x.csv, line 1: needs label; columns, separated by commas, are ['name', 'id']"),
        ("label;id\nrun;a\n", "x.csv, line 1: needs label; columns, separated by commas, are ['label;id']"),
        ("label\tid\nrun\ta\n", r"line 1: needs label; columns, separated by commas, are ['label\tid']"),
        ("label,id\nrun;a\n", "x.csv, line 2: has 1 values for 2 columns"),
        (f"{TIMED}\nrun,a,0,5\nrun,b\n", "x.csv, line 3: has 2 values for 4 columns"),
        (
            "label,id\nrun,a\nturn, left,b\n",
            """line 3: has 3 values for 2 columns, separated by commas; quote a value with a comma: "turn, left\"""",
        ),
        ("", "x.csv: has no rows"),
        ("label,id\n", "x.csv: has no rows"),
        ("\ufefflabel,id\r\n,\r\n \r\n\r\n", "x.csv: has no rows"),
        ("# label,id\n", "x.csv, line 1: needs label"),
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
    assert (
        f"3 of 6 rows repeat a video, used once, such as a/x_000001_000003 in {train}, line 3" in caplog.text
    )
    empty = write(tmp_path / "empty.csv", f"{TIMED}\na,x,2.5,2.5\n")
    with pytest.raises(ValueError, match=r"empty.csv, line 2: x_000002_000002 has no time between"):
        read_annotations([empty])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        "{}",
        '{"a": 1}',
        '{"a": 0, "b": 0}',
        '{"a": 0, "a ": 1}',
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
