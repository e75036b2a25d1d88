"""Label files, class numbers, and finding videos."""

import json
import re
import shutil
from pathlib import Path

import pytest

from data.datasets import CUSTOM, HACS, KINETICS
from data.label_files import (
    Annotation,
    dictionary_path,
    find_label_folder,
    read_label_csv,
    read_or_write_classes,
    write_label_csv,
)
from data.labels.splits import split_by_list
from data.video_list import load_dataset
from tests.commands import main_of
from tests.synthetic_frames import make_stores

main = main_of("data.labels")

IDS = {"run": ["a", "b", "c", "d"], "jump": ["e", "f", "g", "h"], "fall": ["i", "j", "k", "l"]}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("set")
    make_stores(root, IDS, n_frames=2)
    return root


def own_dataset(
    stores: Path, labels: Path, num_classes: int | None = None, max_missing: float = 0.2
) -> object:
    return load_dataset(
        stores, CUSTOM, variant="", labels=labels, num_classes=num_classes, max_missing=max_missing
    )


@pytest.mark.parametrize("id_column", ["youtube_id", "id"])
def test_ids_get_their_times_as_six_digits(tmp_path: Path, id_column: str) -> None:
    path = write(tmp_path / "x.csv", f"label,{id_column},time_start,time_end,split\nrun,-abc,3,13.0,train\n")
    assert read_label_csv(path, timed_ids=True) == [Annotation("run", "-abc_000003_000013")]
    assert read_label_csv(path, timed_ids=False) == [Annotation("run", "-abc")]


def test_rows_without_times_are_whole_videos(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "label,id,time_start,time_end\nrun,a,,\nrun,b,1,2\n")
    assert [row.video_id for row in read_label_csv(path, timed_ids=True)] == ["a", "b_000001_000002"]


def test_excels_byte_order_mark_quotes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbflabel,id\r\n"a, ""b""",x\r\npetting animal (not cat),y\r\n')
    assert read_label_csv(path, timed_ids=False) == [
        Annotation('a, "b"', "x"),
        Annotation("petting animal (not cat)", "y"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,name\nrun,a\n", "x.csv: has the columns label, name; needs label, and youtube_id or id"),
        ("", "x.csv: has the columns ; needs label"),
        ("label,id\n", "x.csv: has no rows"),
        ("label,id\nrun,a\n../../etc,b\n", "x.csv, line 3: '../../etc' leaves the data set's folder"),
        ("label,id\nrun,/etc/passwd\n", "x.csv, line 2: '/etc/passwd' leaves"),
        ("label,id\nrun,..\n", "x.csv, line 2: '..' leaves"),
        ("label,id\n,a\n", "x.csv, line 2: label or id is empty"),
        ("label,id\nrun\n", "x.csv, line 2: label or id is empty"),
        ("label,id,time_start,time_end\nrun,a,5,\n", "x.csv, line 2: times '5' to '' are not two numbers"),
        ("label,id,time_start,time_end\nrun,a,9,5\n", "x.csv, line 2: times 9 to 5 must rise"),
        ("label,id,time_start,time_end\nrun,a,nan,5\n", "x.csv, line 2: times 'nan' to '5'"),
    ],
)
def test_bad_label_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "x.csv", text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_label_csv(path, timed_ids=True)


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="x.csv: is not a CSV in UTF-8"):
        read_label_csv(tmp_path / "x.csv", timed_ids=False)


def test_class_numbers_are_those_of_first_appearance_and_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", "label,id\nzebra,a\nape,b\nzebra,c\n")
    assert read_or_write_classes(path, read_label_csv(path, False)) == ["zebra", "ape"]
    assert json.loads((tmp_path / "dictionary.json").read_text()) == {"zebra": 0, "ape": 1}
    write(path, "label,id\nape,b\nzebra,a\n")
    assert read_or_write_classes(path, read_label_csv(path, False)) == ["zebra", "ape"]


def test_dictionary_that_is_there_numbers_the_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "kinetics-700_train.csv", "label,id\nape,b\n")
    write(tmp_path / "kinetics-700_dictionary.json", '{"cow": 1, "ape": 2, "bee": 0}')
    assert read_or_write_classes(path, read_label_csv(path, False)) == ["bee", "cow", "ape"]


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '{"a": 0, "b": 0}', '{"a": "x"}', '{"a": null}'])
def test_bad_dictionary_is_named(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "train.csv", "label,id\na,b\n")
    write(tmp_path / "dictionary.json", text)
    with pytest.raises(ValueError, match="dictionary.json: "):
        read_or_write_classes(path, read_label_csv(path, False))


def test_dictionary_lies_beside_its_label_file_whatever_the_folders_are_called() -> None:
    """The original cut the whole path at the first "train": /data/train_ssd/... shared one dictionary."""
    path = Path("/data/train_ssd/val_labels/HACS_clips_v1.1_train.csv")
    assert dictionary_path(path) == Path("/data/train_ssd/val_labels/HACS_clips_v1.1_dictionary.json")


def test_where_label_files_are_looked_for(tmp_path: Path) -> None:
    root = tmp_path / "data" / "HACS_videos"
    root.mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"HACS_videos/labels and .*/labels; --labels names its folder"
    ):
        find_label_folder(root, HACS.train_csv, None)
    write(tmp_path / "labels" / HACS.train_csv, "x")
    assert find_label_folder(root, HACS.train_csv, None) == tmp_path / "labels"
    write(root / "labels" / HACS.train_csv, "x")
    assert find_label_folder(root, HACS.train_csv, None) == root / "labels"
    write(tmp_path / "mine" / HACS.train_csv, "x")
    assert find_label_folder(root, HACS.train_csv, tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_label_folder(root, HACS.train_csv, tmp_path / "nowhere")


def test_labels_and_folders_belong_together(stores: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "label,id\nfall,i\nrun,b\njump,e\n")
    write(tmp_path / "val.csv", "label,id\njump,f\n")
    dataset = own_dataset(stores, tmp_path)
    assert dataset.classes == ("fall", "run", "jump")
    assert [dataset.train.folder(i) for i in range(3)] == [
        stores / "jpg" / x for x in ("fall/i", "run/b", "jump/e")
    ]
    assert dataset.train.labels.tolist() == [0, 1, 2]
    assert dataset.val.labels.tolist() == [2]


def test_missing_videos_are_left_out_and_counted(stores: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "label,id\nrun,a\nrun,gone\nfall,i\nfall,j\nfall,k\nfall,lost\n")
    write(tmp_path / "val.csv", "label,id\nrun,b\n")
    dataset = own_dataset(stores, tmp_path, max_missing=0.4)
    assert len(dataset.train) == 4
    assert dataset.train.missing == {"run": 1, "fall": 1}
    assert dataset.summary()["train"] == {"videos": 4, "missing": 2}
    with pytest.raises(
        ValueError, match=r"train.csv: 2 of 6 videos have no store, more than --max-missing 0.2"
    ):
        own_dataset(stores, tmp_path)


def test_no_video_at_all_is_an_error_with_an_example(stores: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "label,id\nrun,gone\n")
    write(tmp_path / "val.csv", "label,id\nrun,b\n")
    with pytest.raises(ValueError, match=r"train.csv: none of its 1 videos has a store, as .*jpg/run/gone"):
        own_dataset(stores, tmp_path, max_missing=1)


def test_class_counts_must_agree(stores: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "label,id\nrun,a\njump,e\n")
    write(tmp_path / "val.csv", "label,id\nrun,b\n")
    with pytest.raises(ValueError, match=r"has 2 classes where 51 are expected; --num-classes 2 accepts"):
        own_dataset(stores, tmp_path, num_classes=51)
    assert len(own_dataset(stores, tmp_path, num_classes=2).classes) == 2


def test_validation_class_that_training_lacks(stores: Path, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "label,id\nrun,a\n")
    write(tmp_path / "val.csv", "label,id\njump,e\n")
    with pytest.raises(ValueError, match=r"val.csv: class 'jump' is not one of the 1 of the training set"):
        own_dataset(stores, tmp_path)


def test_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--dataset must be a folder that holds jpg/"):
        load_dataset(tmp_path, KINETICS, variant="400", labels=None, num_classes=400, max_missing=0.2)


def test_fingerprint_follows_videos_labels_and_splits(stores: Path, tmp_path: Path) -> None:
    def fingerprint(train: str, val: str) -> str:
        write(tmp_path / "train.csv", "label,id\n" + train)
        write(tmp_path / "val.csv", "label,id\n" + val)
        (tmp_path / "dictionary.json").unlink(missing_ok=True)
        return own_dataset(stores, tmp_path).fingerprint()

    first = fingerprint("run,a\nrun,b\njump,e\n", "run,c\n")
    assert first == fingerprint("run,b\nrun,a\njump,e\n", "run,c\n")
    others = {
        fingerprint("run,a\nrun,b\njump,e\n", "run,d\n"),
        fingerprint("run,a\njump,e\n", "run,b\nrun,c\n"),
        fingerprint("jump,e\nrun,a\nrun,b\n", "run,c\n"),
    }
    assert len(others | {first}) == 4


def test_fingerprint_follows_what_is_in_the_stores(tmp_path: Path) -> None:
    """Of a set converted anew, cut short or at another size, one run is not like another."""
    write(tmp_path / "labels" / "train.csv", "label,id\nrun,a\n")
    write(tmp_path / "labels" / "val.csv", "label,id\nrun,b\n")
    prints = set()
    for n_frames, size in ((40, 50), (40, 50), (12, 50), (40, 90)):
        make_stores(tmp_path, {"run": ["a", "b"]}, n_frames=n_frames, size=size)
        prints.add(own_dataset(tmp_path, tmp_path / "labels").fingerprint())
        shutil.rmtree(tmp_path / "jpg")
    assert len(prints) == 3


def test_folders_command_splits_each_class(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folders", str(stores), "--val", "0.25"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "             train      val",
        "fall             3        1",
        "jump             3        1",
        "run              3        1",
        "3 classes        9        3",
        f"{stores}/labels/train.csv: 9 videos of 3 classes",
        f"{stores}/labels/val.csv: 3 videos of 3 classes",
    ]
    rows = [read_label_csv(stores / "labels" / f"{split}.csv", True) for split in ("train", "val")]
    assert sorted(rows[0] + rows[1]) == sorted(
        Annotation(label, video) for label, ids in IDS.items() for video in ids
    )
    assert sorted(row.label for row in rows[1]) == ["fall", "jump", "run"]
    before = (stores / "labels" / "val.csv").read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["folders", str(stores)])
    assert stopped.value.code == 2
    assert "train.csv exists; --overwrite replaces it" in capsys.readouterr().err
    main(["folders", str(stores), "--val", "0.25", "--overwrite"])
    assert (stores / "labels" / "val.csv").read_text() == before
    main(["folders", str(stores), "--val", "0.25", "--overwrite", "--seed", "2"])
    assert (stores / "labels" / "val.csv").read_text() != before


def test_list_says_what_is_for_validation(
    stores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = write(tmp_path / "val.txt", "run/a\n\njump/h.mp4\nrun/d.avi\n")
    assert main(["folders", str(stores), "--val-list", str(chosen), "--overwrite"]) == 0
    assert read_label_csv(stores / "labels" / "val.csv", True) == [
        Annotation("run", "a"), Annotation("jump", "h"), Annotation("run", "d"),
    ]  # fmt: skip
    assert len(read_label_csv(stores / "labels" / "train.csv", True)) == 9
    for text, message in (
        ("run/a\nrun/z\n", "val.txt, line 2: 'run/z' is not <class>/<video_id> of a store below"),
        ("a\n", "val.txt, line 1: 'a' is not <class>/<video_id>"),
        ("run/a\nrun/a.avi\n", "val.txt, line 2: a stands twice, first in "),
        ("\n", "val.txt: names no video"),
        ("run/a\nrun/b\nrun/c\nrun/d\n", "val.txt: leaves no video of class 'run' for training"),
    ):
        write(chosen, text)
        with pytest.raises(SystemExit):
            main(["folders", str(stores), "--val-list", str(chosen), "--overwrite"])
        assert message in capsys.readouterr().err


def test_share_that_is_none(stores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["folders", str(stores), "--val", "1"])
    assert "--val 1.0: must be between 0 and 1" in capsys.readouterr().err


def test_videos_in_one_folder_are_linked_into_one_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write(
        tmp_path / "x.csv", "label,youtube_id,time_start,time_end\na b,#1,3,13\nc,x,0,2\nc,gone,0,2\n"
    )
    write(tmp_path / "flat" / "deep" / "#1_000003_000013.mp4", "one")
    write(tmp_path / "flat" / "x_000000_000002.WEBM", "two")
    write(tmp_path / "flat" / "x_000000_000002.txt", "no video")
    arguments = ["link", str(tmp_path / "flat"), str(tmp_path / "videos"), str(labels)]
    assert main(arguments) == 0
    assert (tmp_path / "videos" / "a b" / "#1_000003_000013.mp4").read_text() == "one"
    assert (tmp_path / "videos" / "c" / "x_000000_000002.WEBM").read_text() == "two"
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "linked 2, there before 0, missing 1",
        "linked 0, there before 2, missing 1",
    ]
    write(tmp_path / "flat" / "x_000000_000002.mp4", "another")
    with pytest.raises(SystemExit):
        main(arguments)
    assert "which one is x_000000_000002?" in capsys.readouterr().err


def test_links_that_lead_nowhere_are_made_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They counted as there before, and data.convert found nothing."""
    labels = write(tmp_path / "x.csv", "label,id\na,x\n")
    write(tmp_path / "flat" / "x.mp4", "video")
    arguments = [str(tmp_path / "videos"), str(labels)]
    assert main(["link", str(tmp_path / "flat"), *arguments]) == 0
    (tmp_path / "flat").rename(tmp_path / "moved")
    assert main(["link", str(tmp_path / "moved"), *arguments]) == 0
    assert (tmp_path / "videos" / "a" / "x.mp4").read_text() == "video"
    assert capsys.readouterr().out.splitlines() == ["linked 1, there before 0, missing 0"] * 2


def test_videos_in_folders_that_are_links_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where parts of a set lie on several disks; each once, also where a link leads back up."""
    labels = write(tmp_path / "x.csv", "label,id\na,x\nb,y\n")
    write(tmp_path / "disk" / "x.mp4", "video")
    write(tmp_path / "flat" / "y.mp4", "video")
    (tmp_path / "flat" / "part").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "again").symlink_to(tmp_path / "flat")
    assert main(["link", str(tmp_path / "flat"), str(tmp_path / "videos"), str(labels)]) == 0
    assert capsys.readouterr().out == "linked 2, there before 0, missing 0\n"


@pytest.mark.parametrize("flat", ["videos", "videos/a"])
def test_links_into_the_folder_of_the_videos_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flat: str
) -> None:
    """All were counted as missing."""
    labels = write(tmp_path / "x.csv", "label,id\na,x\n")
    write(tmp_path / "videos" / "a" / "x.mp4", "video")
    with pytest.raises(SystemExit):
        main(["link", str(tmp_path / flat), str(tmp_path / "videos"), str(labels)])
    assert f"{flat}: is where the links are to be" in capsys.readouterr().err


def test_class_with_a_slash_is_refused(tmp_path: Path) -> None:
    """Stores of such a class were read by training, but not found by data.labels, data.convert and data.verify."""
    with pytest.raises(
        ValueError, match=r"x.csv, line 2: class 'a/b' has a slash in it; a class is one folder"
    ):
        read_label_csv(write(tmp_path / "x.csv", "label,id\na/b,x\n"), timed_ids=False)


def test_links_may_lie_below_the_videos_which_may_have_any_ending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second time the links were taken for videos; and .mpeg for none."""
    labels = write(tmp_path / "x.csv", "label,id\na,x\nb,y\n")
    for name in ("x.mpeg", "y.wmv"):
        write(tmp_path / "flat" / name, "video")
    arguments = ["link", str(tmp_path / "flat"), str(tmp_path / "flat" / "videos"), str(labels)]
    assert main(arguments) == main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        "linked 2, there before 0, missing 0",
        "linked 0, there before 2, missing 0",
    ]


def test_files_that_no_row_means_are_in_nobodys_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a video's sound beside it, or two of a name that is not asked for. Links may be reached in two ways."""
    labels = write(tmp_path / "x.csv", "label,id\na,x\n")
    for name in ("x.mp4", "x.wav", "x.npy", "other.one", "other.two"):
        write(tmp_path / "flat" / name, "something")
    arguments = [
        "link",
        str(tmp_path / "flat" / ".." / "flat"),
        str(tmp_path / "flat" / "videos"),
        str(labels),
    ]
    assert main(arguments) == main(arguments) == 0
    assert (tmp_path / "flat" / "videos" / "a" / "x.mp4").is_symlink()
    assert capsys.readouterr().out.splitlines()[1] == "linked 0, there before 1, missing 0"


def test_list_that_is_no_text_is_named(stores: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("run/café\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt: is not text in UTF-8"):
        split_by_list(stores / "jpg", tmp_path / "list.txt")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [Annotation('a, "b"', "x,y"), Annotation("ü 日本", "#1?")]
    write_label_csv(tmp_path / "new" / "x.csv", rows, "train")
    assert read_label_csv(tmp_path / "new" / "x.csv", True) == rows
