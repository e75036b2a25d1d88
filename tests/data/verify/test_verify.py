"""data.verify finds and names every error of a store, repairs frame counts and indexes, and changes nothing else."""

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
import pytest

from data.frame_store import FrameStore
from data.store_writer import add_half_level
from tests.commands import error_of, main_of
from tests.data.labels.test_labels import write
from tests.data.test_frame_store import write_foreign_store
from tests.data.unprivileged import as_nobody, forbidden, public_folder
from tests.synthetic_frames import make_stores, painted_jpegs

main = main_of("data.verify")

FRAMES = 12
IDS = {"run": ["a", "b", "c"], "jump #1": ["d?", "e"]}
DAMAGED = "run/b"

Damage = Callable[[Path], object]


def sql(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_stores(tmp_path, IDS, n_frames=FRAMES)
    rows = [f"{label},{video}" for label, videos in IDS.items() for video in videos]
    write(tmp_path / "labels" / "train.csv", "\n".join(["label,id", *rows]) + "\n")
    write(tmp_path / "labels" / "val.csv", "label,id\nrun,a\n")  # in both files, checked once
    return tmp_path


def remove_row(folder: Path, number: int) -> None:
    sql(folder, "DELETE FROM Images WHERE rowid = ?", number)


def add_row(folder: Path, name: str) -> None:
    sql(folder, "INSERT INTO Images SELECT ?, frames, size FROM Images WHERE rowid = 1", name)


def truncate_database(folder: Path) -> None:
    content = (folder / "frames.db").read_bytes()
    (folder / "frames.db").write_bytes(content[:-4096])


def truncate_jpeg(folder: Path) -> None:
    sql(folder, "UPDATE Images SET frames = substr(frames, 1, 600) WHERE rowid = 7")


def resize_frame(folder: Path) -> None:
    sql(folder, "UPDATE Images SET frames = ? WHERE rowid = 12", painted_jpegs(1, size=60)[0])


COUNT_IS_12 = "wrong n_frames (12, but the database has {} frames)"
DATABASE = "unreadable ({}: "
ISSUES: dict[str, tuple[Damage, str]] = {
    "no folder": (shutil.rmtree, "missing (no frames.db)"),
    "no file": (lambda f: (f / "frames.db").unlink(), "missing (no frames.db)"),
    "empty file": (lambda f: (f / "frames.db").write_bytes(b""), DATABASE + "no such table: Images"),
    "not SQLite": (lambda f: (f / "frames.db").write_bytes(b"RIFF " * 99), DATABASE + "file is not a database"),
    "truncated file": (truncate_database, DATABASE + "database disk image is malformed"),
    "no table": (lambda f: sql(f, "ALTER TABLE Images RENAME TO Other"), DATABASE + "no such table: Images"),
    "no column": (lambda f: sql(f, "ALTER TABLE Images RENAME ObjId TO Name"), DATABASE + "no such column: ObjId"),
    "no rows": (lambda f: sql(f, "DELETE FROM Images"), "missing frame (all); " + COUNT_IS_12.format(0)),
    "missing frame": (lambda f: remove_row(f, 5), "missing frame (5); " + COUNT_IS_12.format(11)),
    "gap": (lambda f: (remove_row(f, 5), write(f / "n_frames", "11")), "missing frame (5)"),
    "frame of another video": (lambda f: add_row(f, "x/frame_00003"), "wrong name (row 13 has ObjId 'x/frame_00003'"),
    "not a frame": (lambda f: add_row(f, "thumbnail"), "wrong name (row 13 has ObjId 'thumbnail')"),
    "truncated JPEG": (truncate_jpeg, "corrupt JPEG (frame 7: "),
    "not a JPEG": (lambda f: sql(f, "UPDATE Images SET frames = 'x' WHERE rowid = 1"), "corrupt JPEG (frame 1: "),
    "half level without a frame": (
        lambda f: (add_half_level(f), sql(f, "DELETE FROM HalfImages WHERE rowid = 12")),
        "corrupt half level (frame 12: it is missing)",
    ),
    "half level with no JPEG": (
        lambda f: (add_half_level(f), sql(f, "UPDATE HalfImages SET frames = 'x' WHERE rowid = 1")),
        "corrupt half level (frame 1: ",
    ),
    "half level of another size": (
        lambda f: (add_half_level(f), sql(f, "UPDATE HalfImages SET frames = ?", painted_jpegs(1, size=26)[0])),
        "corrupt half level (frame 1: height and width (26, 26), of the whole (50, 50), listed (50, 50))",
    ),
    "half level with other numbers": (
        lambda f: (add_half_level(f), sql(f, "UPDATE HalfImages SET height = 49")),
        "corrupt half level (frame 1: height and width (25, 25), of the whole (50, 50), listed (49, 50))",
    ),
    "other size": (resize_frame, "wrong size (frame 12 has height and width (60, 60), the first (50, 50))"),
}  # fmt: skip
REPAIRABLE: dict[str, tuple[Damage, str]] = {
    "missing last frame": (lambda f: remove_row(f, 12), COUNT_IS_12.format(11)),
    "additional frame": (lambda f: add_row(f, "b/frame_00013"), COUNT_IS_12.format(13)),
    "low n_frames": (lambda f: write(f / "n_frames", "9"), "wrong n_frames (9, but the database has 12 frames)"),
    "high n_frames": (lambda f: write(f / "n_frames", "9" * 20), f"wrong n_frames ({'9' * 20}, but the database"),
    "text in n_frames": (lambda f: write(f / "n_frames", "many"), "wrong n_frames (many, but the database has 12"),
}  # fmt: skip
ALL_ISSUES = ISSUES | REPAIRABLE


@pytest.mark.parametrize("name", ALL_ISSUES)
def test_issue_is_found_and_repaired_if_all_frames_are_valid(
    dataset: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, message = ALL_ISSUES[name]
    damage(dataset / "jpg" / DAMAGED)
    command = [str(dataset), "--workers", "1", "--json", str(dataset / "report.json")]
    assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    database = dataset / "jpg" / DAMAGED / "frames.db"
    assert lines[4].startswith(f"{DAMAGED}: {message.format(database)}")
    assert lines[5:] == (["repairable by --fix: n_frames of 1 stores"] if name in REPAIRABLE else [])
    status = "missing" if "no frames.db" in message else "corrupt"
    report = json.loads((dataset / "report.json").read_text())
    assert report["total"] == {"found": 4, "missing": 0, "corrupt": 0, "short": 4} | {status: 1}
    assert report["classes"]["run"] == {"found": 2, "missing": 0, "corrupt": 0, "short": 2} | {status: 1}
    (store,) = report["stores"]
    assert (store["label"], store["id"], store["status"]) == ("run", "b", status)

    before = {path: path.read_bytes() for path in (dataset / "jpg").rglob("*") if path.is_file()}
    assert main([*command, "--fix"]) == (0 if name in REPAIRABLE else 1)
    after = {path: path.read_bytes() for path in (dataset / "jpg").rglob("*") if path.is_file()}
    changed = [path.name for path in before if before[path] != after[path]]
    assert changed == (["n_frames"] if name in REPAIRABLE else [])


@pytest.mark.parametrize("name", ["frames.db", "n_frames", "."])
def test_store_without_permission_is_unreadable(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with public_folder() as root:
        make_stores(root, IDS, n_frames=FRAMES)
        write(root / "labels" / "train.csv", f"label,id\n{DAMAGED.replace('/', ',')}\n")
        with forbidden(root / "jpg" / DAMAGED / name), as_nobody():
            assert main([str(root), "--workers", "1"]) == 1
    assert f"{DAMAGED}: unreadable (" in capsys.readouterr().out


def test_valid_stores_are_counted_by_class_and_not_changed(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With worker processes. Stores with fewer frames than a clip are short, which is not an error."""
    shutil.rmtree(dataset / "jpg" / "run" / "c")
    make_stores(dataset, {"run": ["c"]}, n_frames=3)
    before = {path: path.stat().st_mtime_ns for path in (dataset / "jpg").rglob("*")}
    flags = ["--workers", "2", "--clip-length", "4", "--fix", "--full"]
    assert main([str(dataset), *flags, "--csv", str(dataset / "new" / "stores.csv")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "             found  missing  corrupt    short",
        "run              3        0        0        1",
        "jump #1          2        0        0        0",
        "2 classes        5        0        0        1",
    ]
    with (dataset / "new" / "stores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["id"], row["frames"], row["short"]) for row in rows] == [
        ("run", "a", "12", "0"), ("run", "b", "12", "0"), ("run", "c", "3", "1"),
        ("jump #1", "d?", "12", "0"), ("jump #1", "e", "12", "0"),
    ]  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (dataset / "jpg").rglob("*")} == before


def test_only_full_decodes_all_frames_and_fix_does_so_first(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A corrupt JPEG of the usual size is found by decoding it."""
    folder = dataset / "jpg" / DAMAGED
    sql(folder, "UPDATE Images SET frames = ? WHERE rowid = 7", b"\0" * 5000)
    command = [str(dataset), "--workers", "1", "--frames", "0"]
    assert main(command) == 0
    assert main([*command, "--full"]) == 1
    assert f"{DAMAGED}: corrupt JPEG (frame 7: " in capsys.readouterr().out
    (folder / "n_frames").unlink()
    assert main([*command, "--fix"]) == 1
    assert not (folder / "n_frames").exists()


def test_fix_writes_n_frames_and_adds_an_index_to_foreign_stores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "jpg" / "run" / "theirs"
    write_foreign_store(folder, painted_jpegs(40))
    (folder / "frames.db").chmod(0o444)
    before = FrameStore(folder).read(range(40))
    command = [str(tmp_path), "--workers", "1"]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "repairable by --fix: index of 1 stores",
        "repairable by --fix: n_frames of 1 stores",
    ]
    assert main([*command, "--fix", "--json", str(tmp_path / "report.json")]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "fixed: index of 1 stores",
        "fixed: n_frames of 1 stores",
    ]
    assert json.loads((tmp_path / "report.json").read_text())["stores"][0]["fixed"] == ["index", "n_frames"]
    assert main([*command, "--full"]) == 0
    assert "--fix" not in capsys.readouterr().out

    assert sorted(path.name for path in folder.iterdir()) == ["frames.db", "n_frames"]
    assert (folder / "frames.db").stat().st_mode & 0o777 == 0o444
    assert np.array_equal(FrameStore(folder).read(range(40)), before)
    with closing(sqlite3.connect(folder / "frames.db")) as connection:
        plan = str(connection.execute("EXPLAIN QUERY PLAN SELECT rowid, ObjId FROM Images").fetchall())
        assert "COVERING INDEX" in plan


def test_fix_on_a_full_disk_is_an_issue_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jpg" / "run" / "theirs"
    write_foreign_store(folder, painted_jpegs(10))
    write(folder / "n_frames", "10")
    content = (folder / "frames.db").read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full_disk)
    assert main([str(tmp_path), "--workers", "1", "--fix"]) == 1
    assert "run/theirs: not fixed ([Errno 28] No space left on device" in capsys.readouterr().out
    assert (folder / "frames.db").read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["frames.db", "n_frames"]


def test_label_files_to_check(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All splits of training and validation, each store once; a test split only if named."""
    shutil.rmtree(dataset / "labels")
    for split in "123":
        write(dataset / "labels" / f"ucf101_split{split}_train.csv", "label,id\nrun,a\nrun,b\n")
        write(dataset / "labels" / f"ucf101_split{split}_val.csv", "label,id\nrun,c\n")
        test = write(dataset / "labels" / f"ucf101_split{split}_test.csv", "label,id\nrun,gone\n")
    assert main([str(dataset), "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["run", "3", "0", "0", "3"]
    assert main([str(dataset), "--workers", "1", "--labels", str(test)]) == 1
    shutil.rmtree(dataset / "labels")
    assert main([str(dataset), "--workers", "1"]) == 0  # without label files, all stores


def test_repeated_rows_and_videos_of_two_splits_are_counted(
    dataset: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train = dataset / "labels" / "train.csv"
    train.write_text(train.read_text() + "run ,b\n")
    assert main([str(dataset), "--workers", "1"]) == 0
    output = capfd.readouterr()
    assert output.out.splitlines()[1].split() == ["run", "3", "0", "0", "3"]
    assert f"WARNING 1 of 6 rows repeat a video, used once, such as run/b in {train}, line 7" in output.err
    assert f"WARNING {train} and {dataset}/labels/val.csv: 1 videos in both, such as run/a" in output.err


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_stores_are_found_in_any_unicode_form(
    tmp_path: Path, form: Literal["NFC", "NFD"], capsys: pytest.CaptureFixture[str]
) -> None:
    make_stores(tmp_path, {normalize("NFD", "café"): ["é"], normalize("NFC", "né "): ["a"]}, n_frames=FRAMES)
    write(tmp_path / "labels" / "train.csv", normalize(form, "label,id\ncafé,é\nné,a\n"))
    assert main([str(tmp_path), "--workers", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[3].split() == ["2", "classes", "2", "0", "0", "2"]
    shutil.rmtree(tmp_path / "labels")
    assert main([str(tmp_path), "--workers", "2"]) == 0  # without label files


def test_ids_have_times_if_the_dataset_has_timed_ids(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "label,id,time_start,time_end\nrun,a,0,5\n"
    path = write(dataset / "mine.csv", text)
    assert main([str(dataset), "--workers", "1", "--labels", str(path)]) == 1
    assert "run/a_000000_000005: missing (no frames.db)" in capsys.readouterr().out
    shutil.rmtree(dataset / "labels")
    write(dataset / "labels" / "ucf101_split1_train.csv", text)
    assert main([str(dataset), "--workers", "1"]) == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{root}/jpg"], "must be a folder with jpg/<class>/<id>/frames.db"),
        (["{root}", "--labels", "{root}/no.csv"], "No such file or directory: '{root}/no.csv'"),
        (["{root}", "--workers", "0"], "argument --workers: '0' is not a whole number of at least 1"),
    ],
)
def test_invalid_arguments(dataset: Path, args: list[str], message: str) -> None:
    assert message.format(root=dataset) in error_of(main, *(arg.format(root=dataset) for arg in args))
