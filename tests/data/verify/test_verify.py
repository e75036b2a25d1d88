"""Every fault of a store is found and named, what can be put right is, and nothing is ever removed."""

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from data.frame_store import FrameStore, FrameStoreError
from data.label_files import Annotation
from data.verify.__main__ import verify_stores
from data.verify.checks import inspect_store, repair_store
from tests.commands import main_of
from tests.data.labels.test_labels import write
from tests.data.test_frame_store import write_foreign_store
from tests.data.unprivileged import as_nobody, forbidden, public_folder
from tests.synthetic_frames import indices_of, make_stores, painted_jpegs

main = main_of("data.verify")

FRAMES = 12
IDS = {"run": ["a", "b", "c"], "jump #1": ["d?", "e"]}
DAMAGED = "run/b"


def sql(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_stores(tmp_path, IDS, n_frames=FRAMES)
    rows = [f"{label},{video}" for label, videos in IDS.items() for video in videos]
    write(tmp_path / "labels" / "train.csv", "\n".join(["label,id", *rows]) + "\n")
    write(tmp_path / "labels" / "val.csv", "label,id\nrun,a\n")  # a store that two files name is one
    return tmp_path


def remove_row(folder: Path, number: int) -> None:
    sql(folder, "DELETE FROM Images WHERE rowid = ?", number)


def add_row(folder: Path, name: str) -> None:
    sql(folder, "INSERT INTO Images SELECT ?, frames, size FROM Images WHERE rowid = 1", name)


def other_table(folder: Path) -> None:
    sql(folder, "ALTER TABLE Images RENAME TO Pictures")


def cut_file(folder: Path) -> None:
    content = (folder / "frames.db").read_bytes()
    (folder / "frames.db").write_bytes(content[: len(content) - 4096])


def cut_jpeg(folder: Path) -> None:
    sql(folder, "UPDATE Images SET frames = substr(frames, 1, 600) WHERE rowid = 7")


def other_size(folder: Path) -> None:
    sql(folder, "UPDATE Images SET frames = ? WHERE rowid = 12", painted_jpegs(1, size=60)[0])


SAYS = "wrong n_frames (says 12, {} frames are there); "
FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no folder", shutil.rmtree, "no file (there is no frames.db)"),
    ("no file", lambda f: (f / "frames.db").unlink(), "no file (there is no frames.db)"),
    ("a folder", lambda f: ((f / "frames.db").unlink(), (f / "frames.db").mkdir()), "no file (frames.db is not a f"),
    ("empty file", lambda f: (f / "frames.db").write_bytes(b""), "empty file (frames.db has 0 bytes)"),
    ("not SQLite", lambda f: (f / "frames.db").write_bytes(b"RIFF and longer"), "not SQLite (frames.db begins with"),
    ("cut file", cut_file, "damaged database (database disk image is malformed)"),
    ("no table", other_table, "no table (there is no table Images)"),
    ("other columns", lambda f: sql(f, "ALTER TABLE Images RENAME ObjId TO Name"), "no table (table Images has the"),
    ("no rows", lambda f: sql(f, "DELETE FROM Images"), SAYS.format(0) + "missing frame (all of them)"),
    ("missing frame", lambda f: remove_row(f, 5), SAYS.format(11) + "missing frame (5)"),
    ("missing last frame", lambda f: remove_row(f, 12), SAYS.format(11) + "missing frame (12)"),
    ("gap", lambda f: (remove_row(f, 5), write(f / "n_frames", "11")), "missing frame (5); extra frame (12)"),
    ("extra frame", lambda f: add_row(f, "b/frame_00013"), SAYS.format(13) + "extra frame (13)"),
    ("frame twice", lambda f: add_row(f, "x/frame_00003"), "wrong name ('x/frame_00003' is row 13)"),
    ("odd name", lambda f: add_row(f, "thumbnail"), "wrong name ('thumbnail' does not end with the number of a fra"),
    ("cut JPEG", cut_jpeg, "broken JPEG (frame 7: "),
    ("no JPEG", lambda f: sql(f, "UPDATE Images SET frames = 'x' WHERE rowid = 1"), "broken JPEG (frame 1: "),
    ("other size", other_size, "wrong size (frame 12 is 60x60, the first 50x50)"),
    ("stated size", lambda f: sql(f, "UPDATE Images SET size = 49"), "wrong size (frame 1 is 50 wide, its row says 4"),
    ("less n_frames", lambda f: write(f / "n_frames", "9"),
     "wrong n_frames (says 9, 12 frames are there); extra frame (10 to 12)"),
    ("more n_frames", lambda f: write(f / "n_frames", "14"),
     "wrong n_frames (says 14, 12 frames are there); missing frame (13 to 14)"),
    # once a set of as many numbers as it says
    ("endless n_frames", lambda f: write(f / "n_frames", "9" * 20),
     f"wrong n_frames (says {'9' * 20}, 12 frames are there); missing frame (13 to {'9' * 20})"),
    ("n_frames is text", lambda f: write(f / "n_frames", "many"), "wrong n_frames ('many' is not a number of frames)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
def test_fault_is_found_and_named(
    dataset: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], message: str
) -> None:
    damage(dataset / "jpg" / DAMAGED)
    assert main([str(dataset), "--workers", "1", "--json", str(dataset / "report.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("run/")] == lines[4:5]
    assert lines[4].startswith(f"{DAMAGED}: {message}")
    status = "missing" if "no file" in message else "broken"
    report = json.loads((dataset / "report.json").read_text())
    assert report["total"] == {"found": 4, "missing": 0, "broken": 0, "short": 4} | {status: 1}
    assert report["classes"]["run"] == {"found": 2, "missing": 0, "broken": 0, "short": 2} | {status: 1}
    assert [(wrong["class"], wrong["id"], wrong["status"]) for wrong in report["wrong"]] == [
        ("run", "b", status)
    ]


@pytest.mark.parametrize("name", ["frames.db", "n_frames", "."])
def test_what_may_not_be_read_is_named(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with public_folder() as root:
        make_stores(root, IDS, n_frames=FRAMES)
        write(root / "labels" / "train.csv", f"label,id\n{DAMAGED.replace('/', ',')}\n")
        with forbidden(root / "jpg" / DAMAGED / name), as_nobody():
            assert main([str(root), "--workers", "1"]) == 1
    file = "n_frames" if name == "n_frames" else "frames.db"
    assert f"{DAMAGED}: unreadable ({file}: Permission denied)" in capsys.readouterr().out


def test_sound_set_is_counted_per_class(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With processes; a row a store in the CSV. Stores with fewer frames than a clip are said, and no fault."""
    shutil.rmtree(dataset / "jpg" / "run" / "c")
    make_stores(dataset, {"run": ["c"]}, n_frames=3)
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*")}
    arguments = [str(dataset), "--workers", "2", "--clip-length", "4", "--fix", "--full"]
    assert main([*arguments, "--csv", str(dataset / "new" / "stores.csv")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "             found  missing   broken    short",
        "run              3        0        0        1",
        "jump #1          2        0        0        0",
        "2 classes        5        0        0        1",
    ]
    with (dataset / "new" / "stores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["id"], row["frames"], row["short"]) for row in rows] == [
        ("run", "a", "12", "0"), ("run", "b", "12", "0"), ("run", "c", "3", "1"),
        ("jump #1", "d?", "12", "0"), ("jump #1", "e", "12", "0"),
    ]  # fmt: skip
    shutil.rmtree(dataset / "new")
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path != dataset} == {
        path: time for path, time in before.items() if path != dataset
    }


def test_only_full_decodes_everything(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture that is damaged but as long as it was is found by decoding it alone."""
    folder = dataset / "jpg" / DAMAGED
    jpeg = FrameStore(folder).fetch([6]).jpegs[6]
    sql(folder, "UPDATE Images SET frames = ? WHERE rowid = 7", b"\0" * len(jpeg) * 2)
    assert main([str(dataset), "--workers", "1", "--frames", "0"]) == 0
    assert main([str(dataset), "--workers", "1", "--frames", "0", "--full"]) == 1
    assert f"{DAMAGED}: broken JPEG (frame 7: " in capsys.readouterr().out


def test_many_faults_are_cut_short_on_the_terminal_and_whole_in_the_file(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(dataset / "gone.csv", "label,id\n" + "".join(f"run,gone{i}\n" for i in range(25)))
    assert main([str(dataset), "--labels", str(labels), "--json", str(dataset / "report.json")]) == 1
    out = capsys.readouterr().out
    assert out.count("run/gone") == 20
    assert "... and 5 more; --csv FILE has all" in out
    assert len(json.loads((dataset / "report.json").read_text())["wrong"]) == 25


def test_fix_writes_n_frames_and_adds_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jpegs = painted_jpegs(40)
    write_foreign_store(tmp_path / "jpg" / "run" / "theirs", jpegs)
    make_stores(tmp_path, {"run": ["ours"]}, n_frames=FRAMES)
    write(tmp_path / "jpg" / "run" / "ours" / "n_frames", "7\n")
    sql(tmp_path / "jpg" / "run" / "theirs", "CREATE TABLE Notes (text)")
    sql(tmp_path / "jpg" / "run" / "theirs", "INSERT INTO Notes VALUES ('kept')")
    (tmp_path / "jpg" / "run" / "theirs" / "frames.db").chmod(0o444)
    before = FrameStore(tmp_path / "jpg" / "run" / "theirs").read(range(40))

    assert main([str(tmp_path), "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "no key: 1 stores, which are read more slowly; --fix adds it" in out
    assert "no n_frames: 1 stores" in out
    assert main([str(tmp_path), "--workers", "1", "--fix", "--json", str(tmp_path / "report.json")]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "fixed: n_frames of 2 stores",
        "fixed: key of 1 stores",
    ]
    assert json.loads((tmp_path / "report.json").read_text())["fixed"] == [
        "run/ours: n_frames", "run/theirs: n_frames, key",
    ]  # fmt: skip
    assert main([str(tmp_path), "--workers", "1", "--full"]) == 0
    assert "--fix" not in capsys.readouterr().out

    assert FrameStore(tmp_path / "jpg" / "run" / "ours").n_frames == FRAMES
    folder = tmp_path / "jpg" / "run" / "theirs"
    assert sorted(path.name for path in folder.iterdir()) == ["frames.db", "n_frames"]
    assert (folder / "frames.db").stat().st_mode & 0o777 == 0o444
    assert np.array_equal(FrameStore(folder).read(range(40)), before)
    with closing(sqlite3.connect(folder / "frames.db")) as connection:
        plan = str(connection.execute("EXPLAIN QUERY PLAN SELECT rowid, ObjId FROM Images").fetchall())
        assert "COVERING INDEX" in plan
        assert connection.execute("SELECT text FROM Notes").fetchall() == [("kept",)]


def test_fix_makes_stores_whose_rows_are_in_order_as_ours(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    folder.mkdir()
    rows = [(f"video/frame_{i:05d}", jpeg) for i, jpeg in enumerate(painted_jpegs(20), start=1)]
    with closing(sqlite3.connect(folder / "frames.db")) as connection, connection:
        connection.execute("CREATE TABLE Images (ObjId STRING, frames BLOB)")
        connection.executemany("INSERT INTO Images VALUES (?, ?)", rows)
    assert repair_store(folder, inspect_store(folder, seed=0, full=True)) == ["n_frames", "key"]
    assert indices_of(FrameStore(folder).read([19, 0, 7])) == [19, 0, 7]
    with closing(sqlite3.connect(folder / "frames.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


NOT_FIXABLE = [fault for fault in FAULTS if not re.search("n_frames|last|extra|folder", fault[0])]


@pytest.mark.parametrize(
    "damage", [fault[1] for fault in NOT_FIXABLE], ids=[fault[0] for fault in NOT_FIXABLE]
)
def test_fix_leaves_alone_what_is_not_sound(dataset: Path, damage: Callable[[Path], object]) -> None:
    damage(dataset / "jpg" / DAMAGED)
    content = {path: path.read_bytes() for path in (dataset / "jpg").rglob("*") if path.is_file()}
    assert main([str(dataset), "--workers", "1", "--fix"]) == 1
    assert {path: path.read_bytes() for path in (dataset / "jpg").rglob("*") if path.is_file()} == content


def test_fix_leaves_alone_a_store_with_a_broken_picture_beside_a_wrong_count(dataset: Path) -> None:
    """Where a look at a few frames would call it sound."""
    folder = dataset / "jpg" / DAMAGED
    sql(folder, "UPDATE Images SET frames = ? WHERE rowid = 7", b"\0" * 5000)
    write(folder / "n_frames", "9")
    assert main([str(dataset), "--workers", "1", "--fix", "--frames", "0"]) == 1
    assert (folder / "n_frames").read_text() == "9"


def test_disk_that_cannot_be_written_is_said_and_costs_nothing(
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


def test_who_reads_during_a_fix_reads_the_same(tmp_path: Path) -> None:
    write_foreign_store(tmp_path / "theirs", painted_jpegs(10))
    write(tmp_path / "theirs" / "n_frames", "10")
    inspection = inspect_store(tmp_path / "theirs", seed=0, full=True)
    original = (tmp_path / "theirs" / "frames.db").read_bytes()
    done = threading.Event()

    def read() -> int:
        times = 0
        while not done.is_set() or not times:
            assert indices_of(FrameStore(tmp_path / "theirs").read(range(10))) == list(range(10))
            times += 1
        return times

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for _ in range(5):
                assert repair_store(tmp_path / "theirs", inspection) == ["key"]
                replace_by(tmp_path / "theirs" / "frames.db", original)
        finally:
            done.set()
        assert reading.result() > 0


def replace_by(path: Path, content: bytes) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(content)
    beside.replace(path)


def test_killed_within_a_fix_leaves_the_store_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jpg" / "run" / "theirs"
    write_foreign_store(folder, painted_jpegs(10))
    content = (folder / "frames.db").read_bytes()
    if (child := os.fork()) == 0:
        monkeypatch.setattr("data.verify.checks.flush_to_disk", lambda path: os._exit(9))
        repair_store(folder, inspect_store(folder, seed=0, full=True)._replace(slow=["no key"]))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (folder / "frames.db").read_bytes() == content
    assert indices_of(FrameStore(folder).read(range(10))) == list(range(10))


def test_verify_agrees_with_reading(dataset: Path) -> None:
    """What training cannot read is never found to be sound."""
    folder = dataset / "jpg" / DAMAGED
    shutil.copytree(folder, dataset / "copy")
    for name, damage, _ in FAULTS:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(dataset / "copy", folder)
        damage(folder)
        try:
            FrameStore(folder).read(range(FRAMES))
        except FrameStoreError:
            assert inspect_store(folder, seed=0, full=True).wrong, name


def test_label_files_of_several_sets_must_be_chosen_from(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(dataset / "labels" / "kinetics-400_train.csv", "label,youtube_id,time_start,time_end\nrun,a,1,2\n")
    with pytest.raises(SystemExit) as stopped:
        main([str(dataset)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "holds kinetics-400_train.csv and train.csv; --labels FILE... says which are meant" in error
    assert main([str(dataset), "--labels", str(dataset / "labels" / "train.csv"), "--workers", "1"]) == 0
    write(dataset / "others" / "train.csv", "label,id\nrun,gone\n")
    assert main([str(dataset), "--labels", str(dataset / "others"), "--workers", "1"]) == 1


def test_all_splits_of_a_set_are_looked_at_once(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(dataset / "labels")
    for split in "123":
        write(dataset / "labels" / f"ucf101_split{split}_train.csv", "label,id\nrun,a\nrun,b\n")
        write(dataset / "labels" / f"ucf101_split{split}_val.csv", "label,id\nrun,c\n")
    assert main([str(dataset), "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["run", "3", "0", "0", "3"]


class Deadly:
    """In place of the folder of all stores: kills the process that looks for one."""

    def __truediv__(self, _: str) -> "Deadly":
        os.kill(os.getpid(), signal.SIGKILL)
        return self


def test_a_process_that_is_killed_is_no_traceback() -> None:
    rows = [Annotation("a", f"{i}") for i in range(8)]
    with pytest.raises(OSError, match="a process was killed, perhaps as memory ran out"):
        list(verify_stores(rows, workers=2, root=Deadly(), random_frames=0, full=False, fix=False))


def test_ids_have_times_where_training_gives_them_some(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All had, so that stores of a UCF-101 whose label files have times were missing."""
    shutil.rmtree(dataset / "labels")
    for split in ("train", "val"):
        text = "label,id,time_start,time_end\nrun,a,0,5\n"
        path = write(dataset / "labels" / f"ucf101_split1_{split}.csv", text)
    assert main([str(dataset), "--workers", "1"]) == 0
    assert main([str(dataset), "--workers", "1", "--labels", str(path)]) == 0
    (dataset / "alone").mkdir()
    alone = shutil.copy(path, dataset / "alone" / path.name)  # without that of training beside it
    assert main([str(dataset), "--workers", "1", "--labels", str(alone)]) == 0
    other = write(dataset / "mine.csv", "label,id,time_start,time_end\nrun,a,0,5\n")
    assert main([str(dataset), "--workers", "1", "--labels", str(other)]) == 1
    assert "run/a_000000_000005: no file" in capsys.readouterr().out


def test_videos_of_the_test_split_are_not_missed(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training does not read them, and who follows the page of HACS does not download them."""
    test = write(dataset / "labels" / "test.csv", "label,id\nrun,gone\n")
    assert main([str(dataset), "--workers", "1"]) == 0
    assert "gone" not in capsys.readouterr().out
    assert main([str(dataset), "--workers", "1", "--labels", str(test)]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{root}/jpg"], "is not a folder that holds jpg/<class>/<id>/frames.db"),
        (["{root}", "--labels", "{root}/no.csv"], "no.csv: there is no such label file"),
        (["{root}", "--labels", "{root}/jpg"], "jpg: holds no label files of training"),
        (
            ["{root}", "--json", "{root}/labels/val.csv/x.json"],
            "val.csv/x.json: File exists, {root}/labels/val.csv",
        ),
        (["{root}", "--workers", "0"], "--workers 0: must be at least 1"),
        (["{root}", "--frames", "-1"], "--frames -1: must be at least 0"),
    ],
)
def test_what_is_asked_for_wrongly(
    dataset: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(root=dataset) for argument in arguments])
    assert stopped.value.code == 2
    assert message.format(root=dataset) in capsys.readouterr().err


def test_what_reading_takes_is_sound(tmp_path: Path) -> None:
    """Names of columns in another case, and widths that are text."""
    make_stores(tmp_path, {"run": ["a"]}, n_frames=FRAMES)
    folder = tmp_path / "jpg" / "run" / "a"
    jpegs = painted_jpegs(FRAMES)
    (folder / "frames.db").unlink()
    sql(folder, "CREATE TABLE Images (objid STRING, FRAMES BLOB, size TEXT)")
    for number, jpeg in enumerate(jpegs, start=1):
        sql(folder, "INSERT INTO Images VALUES (?, ?, '50')", f"a/frame_{number:05d}", jpeg)
    assert indices_of(FrameStore(folder).read(range(FRAMES))) == list(range(FRAMES))
    assert inspect_store(folder, seed=1, full=True).wrong == []
