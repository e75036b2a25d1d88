"""Label files as lists of what to cut out."""

from pathlib import Path

import pytest

from data.label_files import Segment, read_segments


def write(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_rows_say_what_to_cut_out_of_what(tmp_path: Path) -> None:
    """Folders are named after whole seconds; what is cut is exact."""
    header = "label,youtube_id,time_start,time_end,split"
    rows = ["a b,-x_1,12.5,14.7,train", "c,y,,,train", "a b,-x_1,12.5,14.7,val"]
    assert read_segments([write(tmp_path / "x.csv", header, *rows)]) == [
        Segment("a b", "-x_1_000012_000014", "-x_1", (12.5, 14.7)),
        Segment("c", "y", "y", None),
    ]


def test_label_files_without_times_name_whole_videos(tmp_path: Path) -> None:
    assert read_segments([write(tmp_path / "x.csv", "label,id", "a,1")]) == [Segment("a", "1", "1", None)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["label,id"], "x.csv: has no rows"),
        (["label,id,time_start,time_end", "a,1,2.5,2.5"], "x.csv: 1_000002_000002 has nothing between"),
        (["label,id,time_start,time_end", "a,1,2,x"], "x.csv, line 2: times '2' to 'x'"),
    ],
)
def test_label_files_that_cannot_be_meant(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_segments([write(tmp_path / "x.csv", *rows)])


def test_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="x.csv: there is no such label file"):
        read_segments([tmp_path / "x.csv"])


def test_rows_within_the_same_seconds_are_one_store_of_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """data.convert cut out the last, where downloads and training lists had the first."""
    header = "label,youtube_id,time_start,time_end"
    train = write(tmp_path / "train.csv", header, "a,x,1.2,3.4", "a,x,1.9,3.1", "b,x,1.9,3.1")
    val = write(tmp_path / "val.csv", header, "a,x,1.2,3.4", "a,x,1.5,3.1")
    assert read_segments([train, val]) == [
        Segment("a", "x_000001_000003", "x", (1.2, 3.4)),
        Segment("b", "x_000001_000003", "x", (1.9, 3.1)),
    ]
    assert "left out 2 rows within the seconds of another one" in caplog.text
