"""Label files from official lists, of which these are small ones in the official format."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest

from data.label_files import read_classes, read_label_csv
from data.labels.official import FORMATS
from tests.commands import error_of, main_of
from tests.data.labels.test_labels import write

main = main_of("data.labels")

Writer = Callable[[Path, int], None]


def write_ucf101(folder: Path, classes: int) -> None:
    names = [f"Class{i:03d}" for i in range(classes)]
    write(folder / "classInd.txt", "".join(f"{i} {name}\r\n" for i, name in enumerate(names, start=1)))
    for split in "123":
        train = [f"{name}/v_{name}_g0{split}_c01.avi {i}\r\n" for i, name in enumerate(names, start=1)]
        test = [f"{name}/v_{name}_g09_c0{split}.avi\r\n" for name in names]
        write(folder / f"trainlist0{split}.txt", "".join(train))
        write(folder / f"testlist0{split}.txt", "".join(test))


def write_hmdb51(folder: Path, classes: int) -> None:
    for split in "123":
        for i in range(classes):
            lines = [f"a_class_{i}_{n}.avi {use} \n" for n, use in enumerate("1120")]
            write(folder / f"class_{i}_test_split{split}.txt", "".join(lines))


def write_kinetics(folder: Path, classes: int) -> None:
    for split, file in (("train", "train"), ("val", "validate")):
        rows = [f'"class {i}",{split}_{i:06d},10,20,{file},0\n' for i in range(classes)]
        header = "label,youtube_id,time_start,time_end,split,is_cc\n"
        write(folder / f"{file}.csv", header + "".join(rows))


def write_mini_kinetics(folder: Path, classes: int) -> None:
    write_kinetics(folder / "kinetics400", 2 * classes)
    for split in ("train", "val"):
        ids = [f"{split}_{i:06d}\n" for i in range(0, 2 * classes, 2)]
        write(folder / f"{split}_ytid_list.txt", "".join([*ids, "gone_______\n"]))


def write_hacs(folder: Path, classes: int) -> None:
    lines = ["classname,youtube_id,subset,start,end,label\n"]
    for i in range(classes):
        for subset in ("training", "validation", "testing"):
            lines += [f"Class {i},{subset[:4]}_{i},{subset},15.5,17.5,{label}\n" for label in (1, -1)]
    write(folder / "HACS_v1.1.1" / "HACS_clips_v1.1.1.csv", "".join(lines))


def write_mit(folder: Path, classes: int) -> None:
    names = [f"adult+class{i}" for i in range(classes)]
    write(folder / "moments_categories.txt", "".join(f"{name},{i}\n" for i, name in enumerate(names)))
    for split, file in (("train", "trainingSet"), ("val", "validationSet")):
        write(
            folder / f"{file}.csv", "".join(f"{name}/yt-{split}{name}_26.mp4,{name},3,0\n" for name in names)
        )


def write_diving48(folder: Path, classes: int) -> None:
    vocabulary = [["Back", f"{i}som", "05Twis", "FREE"] for i in range(classes)]
    write(folder / "Diving48_vocab.json", json.dumps(vocabulary))
    for split in ("train", "test"):
        videos = [
            {"vid_name": f"{split}_{i:05d}", "label": i, "start_frame": 0, "end_frame": 48}
            for i in range(classes)
        ]
        write(folder / f"Diving48_V2_{split}.json", json.dumps(videos))


WRITERS: dict[str, Writer] = {
    "ucf101": write_ucf101,
    "hmdb51": write_hmdb51,
    "kinetics": write_kinetics,
    "hacs": write_hacs,
    "mit": write_mit,
    "diving48": write_diving48,
}
VARIANTS = [
    (name, variant, num_classes)
    for name, fmt in FORMATS.items()
    for variant, num_classes in fmt.spec.num_classes.items()
]


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def folders_of(path: Path) -> list[str]:
    return [row.folder for row in read_label_csv(path, timed_ids=True)]


def run(*args: object) -> None:
    assert main([str(arg) for arg in args]) == 0


@pytest.mark.parametrize(("name", "variant", "num_classes"), VARIANTS)
def test_a_dataset_must_have_all_its_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, variant: str, num_classes: int
) -> None:
    spec = FORMATS[name].spec
    write_lists = write_mini_kinetics if variant == "200" else WRITERS[name]
    flags = [f"--{spec.variant_flag}", variant] if variant else []
    write_lists(tmp_path / "complete", num_classes)
    run(name, tmp_path / "complete", tmp_path / "labels", *flags)
    assert capsys.readouterr().out.splitlines()[num_classes + 1].startswith(f"{num_classes} classes")
    for file in (spec.train_csv, spec.val_csv):
        rows = read_rows(tmp_path / "labels" / file.format(variant=variant))
        assert len({row["label"] for row in rows}) == num_classes
    write_lists(tmp_path / "subset", num_classes - 1)
    subset = [name, tmp_path / "subset", tmp_path / "new", *flags]
    expected = (
        f"of {num_classes - 1} classes, expected {num_classes}; --num-classes {num_classes - 1} accepts"
    )
    assert expected in error_of(main, *subset)
    assert not (tmp_path / "new").exists()
    run(*subset, "--num-classes", num_classes - 1)


def test_ucf101(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Classes are numbered as in classInd.txt, which may spell HandstandPushups in another way than the lists."""
    lists, labels = tmp_path / "ucf" / "ucfTrainTestlist", tmp_path / "labels"
    write(lists / "classInd.txt", "1 YoYo\n2 HandstandPushups\n")
    write(lists / "trainlist01.txt", "HandstandPushups /v_Hand_g08_c01.avi\t2\nYoYo/ v_YoYo_g08_c01.avi 1\n")
    write(lists / "testlist01.txt", "HandStandPushups/v_Hand_g01_c01.avi\n")
    run("ucf101", tmp_path / "ucf", labels, "--split", "1", "--num-classes", "2")
    assert capsys.readouterr().out.splitlines() == [
        "                    train      val",
        "YoYo                    1        0",
        "HandstandPushups        1        1",
        "2 classes               2        1",
        *(f"{labels}/ucf101_split1_{name}" for name in ("train.csv", "val.csv", "dictionary.json")),
    ]
    assert read_rows(labels / "ucf101_split1_train.csv") == [
        {"label": "HandstandPushups", "id": "v_Hand_g08_c01", "split": "train"},
        {"label": "YoYo", "id": "v_YoYo_g08_c01", "split": "train"},
    ]
    assert read_rows(labels / "ucf101_split1_val.csv")[0]["label"] == "HandstandPushups"
    assert read_classes(labels / "ucf101_split1_dictionary.json") == ["YoYo", "HandstandPushups"]


def test_hmdb51(tmp_path: Path) -> None:
    """Video names contain almost any character; classes are sorted, unlike file names (`sword_exercise_test`)."""
    names = ["#20_clap_u_nm_np1_fr_goo_0", "A&B_(x)_clap;_'q'", 'He said "yes"_clap_u_nm', "100%_clap_1"]
    lines = [f"{name}.avi {use} \n" for name, use in zip(names, "1212", strict=True)]
    write(tmp_path / "clap_test_split1.txt", "".join(lines) + "unused.avi\t0 \n")
    (tmp_path / "._clap_test_split1.txt").write_bytes(b"\xff")  # of macOS
    for name in ("sword", "sword_exercise"):
        write(tmp_path / f"{name}_test_split1.txt", f"{name}.avi 1\n")
    run("hmdb51", tmp_path, tmp_path / "new", "--split", "1", "--num-classes", "3")
    train = [f"clap/{names[0]}", f"clap/{names[2]}", "sword_exercise/sword_exercise", "sword/sword"]
    assert folders_of(tmp_path / "new" / "hmdb_split1_train.csv") == train
    assert folders_of(tmp_path / "new" / "hmdb_split1_val.csv") == [f"clap/{names[1]}", f"clap/{names[3]}"]
    classes = read_classes(tmp_path / "new" / "hmdb_split1_dictionary.json")
    assert classes == ["clap", "sword", "sword_exercise"]


def test_kinetics(tmp_path: Path) -> None:
    labels = ['saying ""hi""', "cooking on campfire/stove", "petting animal (not cat)"]
    train = [f'"{label}",-abc_{i},7,17,train\n' for i, label in enumerate(labels)]
    write(tmp_path / "kinetics-600_train.csv", KINETICS_HEADER + "".join(train))
    for split in ("val", "test"):
        text = KINETICS_HEADER + f"{labels[2]},{split},1500,1510,{split}\n"
        write(tmp_path / f"kinetics-600_{split}.csv", text)
    run("kinetics", tmp_path, tmp_path / "new", "--variant", "600", "--num-classes", "3")
    assert folders_of(tmp_path / "new" / "kinetics-600_train.csv") == [
        'saying "hi"/-abc_0_000007_000017',
        "cooking on campfire_stove/-abc_1_000007_000017",
        "petting animal (not cat)/-abc_2_000007_000017",
    ]
    for split in ("val", "test"):
        (row,) = read_rows(tmp_path / "new" / f"kinetics-600_{split}.csv")
        times = {"time_start": "1500", "time_end": "1510"}
        assert row == {"label": labels[2], "youtube_id": split, **times, "split": split}


def test_kinetics_test_split_without_labels_is_not_written(tmp_path: Path) -> None:
    write_kinetics(tmp_path / "kinetics700_2020", 2)
    write(tmp_path / "kinetics700_2020" / "test.csv", "youtube_id,time_start,time_end,split\nuvw,0,10,test\n")
    run("kinetics", tmp_path, tmp_path / "new", "--num-classes", "2")
    names = sorted(path.name.removeprefix("kinetics-700_") for path in (tmp_path / "new").iterdir())
    assert names == ["dictionary.json", "train.csv", "val.csv"]


def test_mini_kinetics_is_a_subset_of_kinetics_400(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mini_kinetics(tmp_path, 3)
    run("kinetics", tmp_path, tmp_path / "new", "--variant", "200", "--num-classes", "3")
    ids = [row["youtube_id"] for row in read_rows(tmp_path / "new" / "kinetics-200_train.csv")]
    assert ids == ["train_000000", "train_000002", "train_000004"]
    assert "train_ytid_list.txt: 1 of 4 IDs are not in the list of Kinetics-400" in caplog.text


def test_hacs_has_positive_clips_only_and_one_for_the_same_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        tmp_path / "HACS_clips_v1.1.csv",
        HACS_HEADER + "Archery,a,training,15.5,17.5,1\n"
        "Archery,b,training,77.5,79.5,-1\n"
        "Archery,a,training,15.0,17.0,1\n"
        "Archery,a,training,30.0,32.0,1\n"
        "Beer pong,c,training,24.5,26.5,1\n"
        "Beer pong,d,validation,0.0,2.0,1\n"
        "Beer pong,withheld,testing,0.0,2.0,0\n",
    )
    run("hacs", tmp_path, tmp_path / "new", "--num-classes", "2")
    rows = read_rows(tmp_path / "new" / "HACS_clips_v1.1_train.csv")
    assert [(row["youtube_id"], row["time_start"]) for row in rows] == [
        ("a", "15.5"),
        ("a", "30.0"),
        ("c", "24.5"),
    ]
    assert folders_of(tmp_path / "new" / "HACS_clips_v1.1_val.csv") == ["Beer pong/d_000000_000002"]
    assert "hacs: dropped 1 train rows in the same seconds as another one" in caplog.text


def test_moments_in_time(tmp_path: Path) -> None:
    write(tmp_path / "moments_categories.txt", "clapping,1\nadult+singing,0\n")
    text = "clapping/flickr-1-2.3_4.mp4,clapping,3,0\nadult+singing/yt-a_20.mp4,adult+singing,5,1\n"
    for split in ("training", "validation"):
        write(tmp_path / f"{split}Set.csv", text.replace(".mp4", f"_{split}.mp4"))
    run("mit", tmp_path, tmp_path / "new", "--num-classes", "2")
    assert folders_of(tmp_path / "new" / "Moments_in_Time_train.csv") == [
        "clapping/flickr-1-2.3_4_training", "adult+singing/yt-a_20_training",
    ]  # fmt: skip
    assert read_classes(tmp_path / "new" / "Moments_in_Time_dictionary.json") == ["adult+singing", "clapping"]


def test_diving48_keeps_a_class_without_training_videos(tmp_path: Path) -> None:
    write_diving48(tmp_path, 48)
    write(tmp_path / "Diving48_V2_train.json", json.dumps([{"vid_name": "-mmq0PT-u8k_00155", "label": 2}]))
    run("diving48", tmp_path, tmp_path / "new")
    assert folders_of(tmp_path / "new" / "diving48_train.csv") == ["Back_2som_05Twis_FREE/-mmq0PT-u8k_00155"]
    assert len(read_classes(tmp_path / "new" / "diving48_dictionary.json")) == 48


UCF = {
    "classInd.txt": "1 A\n2 B\n",
    "trainlist01.txt": "A/v1.avi 1\nB/v2.avi 2\n",
    "testlist01.txt": "A/v3.avi\n",
}
K = KINETICS_HEADER = "label,youtube_id,time_start,time_end,split\n"
KINETICS_FILES = {"train.csv": K + "a,x,1,2,train\nb,y,1,2,train\n", "val.csv": K + "a,z,1,2,val\n"}
HACS_HEADER = "classname,youtube_id,subset,start,end,label\n"
DIVING = {
    "Diving48_vocab.json": '[["A"], ["B"]]',
    "Diving48_V2_train.json": "[]",
    "Diving48_V2_test.json": "[]",
}
INVALID = [
    ("ucf101", UCF | {"testlist01.txt": "A/v3.avi\n\nC/v.avi\n"}, "testlist01.txt, line 3: class 'C' is not one of"),
    ("ucf101", UCF | {"trainlist01.txt": "A/v1.avi 1\nB/v2.avi 2\nA/v1.avi 1\n"},
     "trainlist01.txt, line 3: v1 is also in {folder}/trainlist01.txt, line 1; --leave-out-conflicts drops this row"),
    ("ucf101", UCF | {"testlist01.txt": "A/v1.avi\n"},
     "trainlist01.txt, line 1: v1 is also in {folder}/testlist01.txt, line 1; --leave-out-conflicts"),
    ("ucf101", UCF | {"classInd.txt": "1 A\n3 B\n"}, "classInd.txt: classes must be numbered 1, 2, ..., each"),
    ("ucf101", UCF | {"trainlist01.txt": "A/...avi 1\nB/v2.avi 2\n"}, "trainlist01.txt, line 1: '..' is outside"),
    ("ucf101", UCF | {"trainlist01.txt": "A/v1.avi\n"}, "ucf101 1: has training videos of 1 classes, expected 2"),
    ("kinetics", {}, "no *700*train*.csv or *700*/train*.csv or train*.csv in it or its subfolders"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "a,z,x,4,val\n"}, "val.csv, line 2: times 'x' to '4' must be"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "a,z\n"}, "val.csv, line 2: has 2 values for 5 columns"),
    ("hacs", {"HACS_clips_v1.1.1.csv": HACS_HEADER + "a,x,train,1,2,1\n"}, "v1.1.1.csv, line 2: subset 'train' is not"),
    ("diving48", DIVING | {"Diving48_V2_train.json": '[{"vid_name": "x", "label": 2}]'},
     "Diving48_V2_train.json, video 1: needs vid_name, and a label below 2"),
    ("diving48", DIVING | {"Diving48_vocab.json": '["a", "a"]'}, "vocab.json: classes must be numbered 0, 1, ..."),
    ("diving48", DIVING | {"Diving48_vocab.json": "5"}, "vocab.json: has no rows"),
    ("diving48", DIVING | {"Diving48_vocab.json": "[1]"}, "V2_train.json: has no rows"),
    ("diving48", DIVING | {"Diving48_V2_train.json": "["}, "Diving48_V2_train.json: not JSON"),
    # lists that were cut off
    ("ucf101", UCF | {"trainlist01.txt": ""}, "trainlist01.txt: has no rows"),
    ("ucf101", UCF | {"testlist01.txt": "\ufeff\r\n \r\n"}, "testlist01.txt: has no rows"),
    ("ucf101", UCF | {"classInd.txt": "\n"}, "classInd.txt: has no rows"),
    ("ucf101", UCF | {"trainlist01.txt": "# of the site\n"}, "trainlist01.txt, line 1: unexpected format, '# of"),
    ("hmdb51", {"clap_test_split1.txt": "a.avi 1\nb.avi 2\n", "run_test_split1.txt": ""}, "run_test_split1.txt: has"),
    ("hmdb51", {"clap_test_split1.txt": "a.avi 1\nb.avi 0\n"}, "hmdb51 1: the lists have no rows for val"),
    ("kinetics", KINETICS_FILES | {"train.csv": K}, "train.csv: has no rows"),
    ("kinetics", KINETICS_FILES | {"val.csv": ""}, "val.csv: has no rows"),
    ("kinetics", KINETICS_FILES | {"train.csv": K + "a,x,1"}, "train.csv, line 2: has 3 values for 5 columns"),
    ("kinetics", KINETICS_FILES | {"train.csv": K + "a, b,x,1,2,train\n"},
     "has 6 values for 5 columns, separated by commas; quote a value with a comma"),
    ("hacs", {"HACS_clips_v1.1.1.csv": HACS_HEADER}, "HACS_clips_v1.1.1.csv: has no rows"),
    ("hacs", {"HACS_clips_v1.1.1.csv": HACS_HEADER + "a,x,training,1,2,-1\na,y,validation,1,2,1\n"},
     "hacs: the lists have no rows for train"),
    ("mit", {"moments_categories.txt": "a,0\nb,1\n", "trainingSet.csv": "\n", "validationSet.csv": "a/x.mp4,a,3,0"},
     "trainingSet.csv: has no rows"),
    ("diving48", DIVING, "Diving48_V2_train.json: has no rows"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "message"), INVALID)
def test_invalid_lists_are_an_error_with_file_and_line(
    tmp_path: Path, name: str, files: dict[str, str], message: str
) -> None:
    for file, text in files.items():
        write(tmp_path / file, text)
    flags = ["--split", "1"] if name in ("ucf101", "hmdb51") else []
    command = (name, tmp_path, tmp_path / "labels", "--num-classes", 2, *flags)
    assert message.format(folder=tmp_path) in error_of(main, *command)
    assert not (tmp_path / "labels").exists()


def test_names_of_lists_and_classes_are_compared_in_one_unicode_form(tmp_path: Path) -> None:
    write(tmp_path / normalize("NFD", "Café_test_split1.txt"), "a.avi 1\u00a0\nb.avi 2 \n")
    run("hmdb51", tmp_path, tmp_path / "new", "--split", "1", "--num-classes", "1")
    assert read_classes(tmp_path / "new" / "hmdb_split1_dictionary.json") == [normalize("NFC", "Café")]
    for file, lines in UCF.items():
        text = lines.replace("A", "Café")
        text = normalize("NFD", text) if file == "classInd.txt" else normalize("NFC", text)
        write(tmp_path / "ucf" / file, text)
    run("ucf101", tmp_path / "ucf", tmp_path / "new", "--split", "1", "--num-classes", "2")
    write(tmp_path / "new" / "ucf101_split1_dictionary.json", normalize("NFD", '{"B ": 0, "Café": 1}'))
    run("ucf101", tmp_path / "ucf", tmp_path / "new", "--split", "1", "--num-classes", "2", "--overwrite")


def test_a_class_that_conflicts_leave_without_videos_is_an_error(tmp_path: Path) -> None:
    for file, text in (UCF | {"testlist01.txt": "A/v1.avi\n"}).items():
        write(tmp_path / file, text)
    command = ("ucf101", tmp_path, tmp_path / "labels", "--split", "1", "--leave-out-conflicts")
    error = error_of(main, *command, "--num-classes", 2)
    assert "testlist01.txt, line 1: class 'A' is not one of the 1 classes" in error


def test_lists_in_two_subfolders_are_ambiguous(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_ucf101(tmp_path / folder, 2)
    assert "either could be used" in error_of(main, "ucf101", tmp_path, tmp_path / "labels")


def test_leave_out_conflicts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train.csv", KINETICS_FILES["train.csv"] + "b,y,1,2,train\na,z,5,6,train\n")
    write(tmp_path / "val.csv", KINETICS_FILES["val.csv"])
    run("kinetics", tmp_path, tmp_path / "new", "--num-classes", "2", "--leave-out-conflicts")
    for split, ids in (("train", ["x", "y"]), ("val", ["z"])):
        rows = read_rows(tmp_path / "new" / f"kinetics-700_{split}.csv")
        assert [row["youtube_id"] for row in rows] == ids
    assert "dropped 1 train rows that are duplicates" in caplog.text
    assert "dropped 1 train rows whose video is in val" in caplog.text


def test_existing_label_files_and_class_numbers_are_kept(tmp_path: Path) -> None:
    """Nothing is written if one of several splits does not match its class index. By default all splits are written."""
    write_ucf101(tmp_path / "lists", 2)
    labels = tmp_path / "labels"
    index = write(labels / "ucf101_split2_dictionary.json", '{"A": 0, "B": 1}')
    command = ("ucf101", tmp_path / "lists", labels, "--num-classes", "2")
    error = error_of(main, *command)
    assert f"{index}: differs in ['A', 'B', 'Class000', 'Class001']; remove it if" in error
    assert list(labels.iterdir()) == [index]
    write(index, '{"Class001": 0, "Class000": 1}')
    run(*command)
    assert len(list(labels.iterdir())) == 9
    assert read_rows(labels / "ucf101_split3_train.csv")[0]["id"] == "v_Class000_g03_c01"
    assert read_classes(index) == ["Class001", "Class000"]
    assert "ucf101_split1_train.csv exists; --overwrite replaces it" in error_of(main, *command)
    run(*command, "--overwrite")
