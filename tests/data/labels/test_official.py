"""The lists of the data sets' sites, small ones in the official form, to label files."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from data.label_files import Annotation, read_classes, read_label_csv
from data.labels.official import FORMATS
from tests.commands import main_of
from tests.data.labels.test_labels import write

main = main_of("data.labels")

Writer = Callable[[Path, int], None]


def write_ucf101(folder: Path, classes: int, splits: str = "123") -> None:
    names = [f"Class{i:03d}" for i in range(classes)]
    write(folder / "classInd.txt", "".join(f"{i} {name}\r\n" for i, name in enumerate(names, start=1)))
    for split in splits:
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
WHOLE_SETS = [
    (name, variant, classes)
    for name, form in FORMATS.items()
    for variant, classes in form.spec.num_classes.items()
]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("WARNING")] == lines[-1:]
    return lines[-1]


@pytest.mark.parametrize(("name", "variant", "classes"), WHOLE_SETS)
def test_whole_set_has_its_number_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, variant: str, classes: int
) -> None:
    spec = FORMATS[name].spec
    write_set = write_mini_kinetics if variant == "200" else WRITERS[name]
    chosen = [f"--{spec.variant_flag}", variant] if spec.variant_flag else []
    write_set(tmp_path / "whole", classes)
    assert main([name, str(tmp_path / "whole"), str(tmp_path / "labels"), *chosen]) == 0
    assert capsys.readouterr().out.splitlines()[classes + 1].startswith(f"{classes} classes")
    train = tmp_path / "labels" / spec.train_csv.format(variant=variant)
    val = tmp_path / "labels" / spec.val_csv.format(variant=variant)
    assert (
        len({row["label"] for row in rows_of(train)})
        == len({row["label"] for row in rows_of(val)})
        == classes
    )
    write_set(tmp_path / "less", classes - 1)
    error = fails(capsys, name, tmp_path / "less", tmp_path / "new", *chosen)
    assert f"{classes - 1} classes where {classes} are expected; --num-classes {classes - 1} says" in error
    assert not (tmp_path / "new").exists()
    subset = [str(tmp_path / "less"), str(tmp_path / "new"), "--num-classes", str(classes - 1)]
    assert main([name, *subset, *chosen]) == 0


def test_every_variant_of_every_set_is_there() -> None:
    assert {(name, classes) for name, _, classes in WHOLE_SETS} == {
        ("ucf101", 101), ("hmdb51", 51), ("diving48", 48), ("hacs", 200), ("mit", 339),
        *(("kinetics", classes) for classes in (200, 400, 600, 700)),
    }  # fmt: skip


def test_ucf101(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its videos of HandstandPushups are called v_HandStandPushups; classes are numbered as in classInd.txt."""
    official, labels = tmp_path / "ucf", tmp_path / "labels"
    lists = official / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 YoYo\n2 HandstandPushups\n")
    train = "HandstandPushups/v_HandStandPushups_g08_c01.avi 2\nYoYo/v_YoYo_g08_c01.avi 1\n"
    write(lists / "trainlist01.txt", train)
    write(lists / "testlist01.txt", "HandStandPushups/v_HandStandPushups_g01_c01.avi\n")
    assert main(["ucf101", str(official), str(labels), "--split", "1", "--num-classes", "2"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "                    train      val",
        "YoYo                    1        0",
        "HandstandPushups        1        1",
        "2 classes               2        1",
        f"{labels}/ucf101_split1_train.csv",
        f"{labels}/ucf101_split1_val.csv",
        f"{labels}/ucf101_split1_dictionary.json",
    ]
    assert rows_of(labels / "ucf101_split1_train.csv") == [
        {"label": "HandstandPushups", "id": "v_HandStandPushups_g08_c01", "split": "train"},
        {"label": "YoYo", "id": "v_YoYo_g08_c01", "split": "train"},
    ]
    assert read_label_csv(labels / "ucf101_split1_val.csv", timed_ids=False) == [
        Annotation("HandstandPushups", "v_HandStandPushups_g01_c01")
    ]
    assert json.loads((labels / "ucf101_split1_dictionary.json").read_text()) == {
        "YoYo": 0,
        "HandstandPushups": 1,
    }


def test_all_splits_of_ucf101_and_hmdb51_are_written(tmp_path: Path) -> None:
    for name in ("ucf101", "hmdb51"):
        WRITERS[name](tmp_path / name, 2)
        assert main([name, str(tmp_path / name), str(tmp_path / "labels"), "--num-classes", "2"]) == 0
    names = {path.name for path in (tmp_path / "labels").glob("*.csv")}
    assert names == {
        f"{name}_split{split}_{part}.csv"
        for name in ("ucf101", "hmdb") for split in "123" for part in ("train", "val")
    }  # fmt: skip
    assert rows_of(tmp_path / "labels" / "ucf101_split3_train.csv")[0]["id"] == "v_Class000_g03_c01"


def test_hmdb51_with_the_names_it_has(tmp_path: Path) -> None:
    odd = ["#20_Rhythm_clap_u_nm_np1_fr_goo_0", "A&B_(x)_clap;_'q'", 'He said "yes"_clap_u_nm', "100%_clap_1"]
    lines = [f"{name}.avi {use} \n" for name, use in zip(odd, "1212", strict=True)]
    write(tmp_path / "shake_hands_test_split1.txt", "".join(lines) + "neither.avi 0 \n")
    arguments = [str(tmp_path), str(tmp_path / "new"), "--split", "1", "--num-classes", "1"]
    assert main(["hmdb51", *arguments]) == 0
    for split, names in (("train", odd[::2]), ("val", odd[1::2])):
        rows = read_label_csv(tmp_path / "new" / f"hmdb_split1_{split}.csv", timed_ids=False)
        assert rows == [Annotation("shake_hands", name) for name in names]


def test_classes_of_hmdb51_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    """They were in that of their files', where `sword_exercise_test` comes before `sword_test`."""
    for name in ("sword", "sword_exercise", "sit", "situp"):
        write(tmp_path / f"{name}_test_split1.txt", f"{name}_1.avi 1\n{name}_2.avi 2\n")
    arguments = [str(tmp_path), str(tmp_path / "new"), "--split", "1", "--num-classes", "4"]
    assert main(["hmdb51", *arguments]) == 0
    classes = read_classes(tmp_path / "new" / "hmdb_split1_dictionary.json")
    assert classes == ["sit", "situp", "sword", "sword_exercise"]


def test_kinetics_ids_carry_their_seconds(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    names = [
        "massaging person's head",
        'saying ""hi""',
        "cooking on campfire/stove",
        "petting animal (not cat)",
    ]
    train = [f'"{name}",-abc_{i},7,17,train\n' for i, name in enumerate(names)]
    write(tmp_path / "kinetics-600_train.csv", header + "".join(train))
    write(tmp_path / "kinetics-600_val.csv", header + f"{names[0]},xyz,1500,1510,val\n")
    write(tmp_path / "kinetics-600_test.csv", header + f"{names[0]},uvw,0,10,test\n")
    arguments = ["kinetics", str(tmp_path), str(tmp_path / "new"), "--variant", "600", "--num-classes", "4"]
    assert main(arguments) == 0
    rows = read_label_csv(tmp_path / "new" / "kinetics-600_train.csv", timed_ids=True)
    folders = [
        "massaging person's head",
        'saying "hi"',
        "cooking on campfire_stove",
        "petting animal (not cat)",
    ]
    assert rows == [Annotation(name, f"-abc_{i}_000007_000017") for i, name in enumerate(folders)]
    assert rows_of(tmp_path / "new" / "kinetics-600_val.csv") == [
        {"label": names[0], "youtube_id": "xyz", "time_start": "1500", "time_end": "1510", "split": "val"}
    ]
    assert rows_of(tmp_path / "new" / "kinetics-600_test.csv")[0]["youtube_id"] == "uvw"


def test_nothing_is_written_where_one_of_several_splits_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The splits before it were, and were in the way of the next try."""
    write_ucf101(tmp_path / "lists", 2)
    write(tmp_path / "labels" / "ucf101_split2_dictionary.json", '{"A": 0, "B": 1}')
    error = fails(capsys, "ucf101", tmp_path / "lists", tmp_path / "labels", "--num-classes", "2")
    assert "ucf101_split2_dictionary.json: numbers other classes than these 2" in error
    assert [path.name for path in (tmp_path / "labels").iterdir()] == ["ucf101_split2_dictionary.json"]


def test_test_split_of_kinetics_whose_labels_are_withheld(tmp_path: Path) -> None:
    write_kinetics(tmp_path, 2)
    write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\nuvw,0,10,test\n")
    arguments = ["kinetics", str(tmp_path), str(tmp_path / "new"), "--num-classes", "2"]
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "kinetics-700_dictionary.json", "kinetics-700_train.csv", "kinetics-700_val.csv",
    ]  # fmt: skip


def test_mini_kinetics_is_cut_from_kinetics_400(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_mini_kinetics(tmp_path, 3)
    arguments = ["kinetics", str(tmp_path), str(tmp_path / "new"), "--variant", "200", "--num-classes", "3"]
    assert main(arguments) == 0
    assert [row["youtube_id"] for row in rows_of(tmp_path / "new" / "kinetics-200_train.csv")] == [
        "train_000000", "train_000002", "train_000004",
    ]  # fmt: skip
    assert "train_ytid_list.txt: 1 of 4 ids are not in Kinetics-400's list any more" in caplog.text


def test_hacs_takes_positive_clips_and_clips_of_the_same_seconds_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        tmp_path / "HACS_clips_v1.1.csv",
        "classname,youtube_id,subset,start,end,label\n"
        "Archery,a2X2hz1G6i8,training,15.5,17.5,1\n"
        "Archery,NUdji_CqvcY,training,77.5,79.5,-1\n"
        "Archery,a2X2hz1G6i8,training,15.0,17.0,1\n"
        "Archery,a2X2hz1G6i8,training,30.0,32.0,1\n"
        "Beer pong,0O_qMHxBfXg,training,24.5,26.5,1\n"
        "Beer pong,-0edUL8zmA,validation,0.0,2.0,1\n"
        "Beer pong,withheld,testing,0.0,2.0,0\n",
    )
    assert main(["hacs", str(tmp_path), str(tmp_path / "new"), "--num-classes", "2"]) == 0
    assert read_label_csv(tmp_path / "new" / "HACS_clips_v1.1_train.csv", timed_ids=True) == [
        Annotation("Archery", "a2X2hz1G6i8_000015_000017"),
        Annotation("Archery", "a2X2hz1G6i8_000030_000032"),
        Annotation("Beer pong", "0O_qMHxBfXg_000024_000026"),
    ]
    assert rows_of(tmp_path / "new" / "HACS_clips_v1.1_train.csv")[0]["time_start"] == "15.5"
    assert len(rows_of(tmp_path / "new" / "HACS_clips_v1.1_val.csv")) == 1
    assert "left out 1 train clips within the seconds of another one" in caplog.text


def test_moments_in_time_keeps_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "moments_categories.txt", "clapping,1\nadult+female+singing,0\n")
    write(
        tmp_path / "trainingSet.csv",
        "clapping/flickr-1-2.3_4.mp4,clapping,3,0\nadult+female+singing/yt-a_20.mp4,adult+female+singing,5,1\n",
    )
    write(tmp_path / "validationSet.csv", "clapping/getty-x-id6_4.mp4,clapping,3,0\n")
    assert main(["mit", str(tmp_path), str(tmp_path / "new"), "--num-classes", "2"]) == 0
    assert read_label_csv(tmp_path / "new" / "Moments_in_Time_train.csv", timed_ids=False) == [
        Annotation("clapping", "flickr-1-2.3_4"),
        Annotation("adult+female+singing", "yt-a_20"),
    ]
    numbers = json.loads((tmp_path / "new" / "Moments_in_Time_dictionary.json").read_text())
    assert numbers == {"adult+female+singing": 0, "clapping": 1}


def test_diving48_names_classes_by_its_vocabulary(tmp_path: Path) -> None:
    """One of its 48 may be without training videos, and keeps its number."""
    write_diving48(tmp_path, 48)
    train = [{"vid_name": "-mmq0PT-u8k_00155", "label": i, "start_frame": 0, "end_frame": 9} for i in (2,)]
    write(tmp_path / "Diving48_V2_train.json", json.dumps(train))
    assert main(["diving48", str(tmp_path), str(tmp_path / "new")]) == 0
    assert read_label_csv(tmp_path / "new" / "diving48_train.csv", timed_ids=False) == [
        Annotation("Back_2som_05Twis_FREE", "-mmq0PT-u8k_00155")
    ]
    assert len(json.loads((tmp_path / "new" / "diving48_dictionary.json").read_text())) == 48


UCF = {
    "classInd.txt": "1 A\n2 B\n",
    "trainlist01.txt": "A/v1.avi 1\nB/v2.avi 2\n",
    "testlist01.txt": "A/v3.avi\n",
}
K = "label,youtube_id,time_start,time_end,split\n"
KINETICS_FILES = {"train.csv": K + "a,x,1,2,train\nb,y,1,2,train\n", "val.csv": K + "a,z,1,2,val\n"}
HACS_HEADER = "classname,youtube_id,subset,start,end,label\n"
MIT_FILES = {"moments_categories.txt": "a,0\nb,1\n", "trainingSet.csv": "a/x.mp4,a,3,0\nb/y.mp4,b,3,0\n"}
DIVING = {
    "Diving48_vocab.json": '[["A"], ["B"]]',
    "Diving48_V2_train.json": "[]",
    "Diving48_V2_test.json": "[]",
}
BAD = [
    ("ucf101", UCF | {"trainlist01.txt": "A/v1.avi 1\nB/v2.avi 1\n"}, "trainlist01.txt, line 2: B is not class 1 of"),
    ("ucf101", UCF | {"testlist01.txt": "A/v3.avi\n\nC/v.avi\n"}, "testlist01.txt, line 3: class 'C' is not one of"),
    ("ucf101", UCF | {"trainlist01.txt": "A/v1.avi 1\nB/v2.avi 2\nA/v1.avi 1\n"},
     "trainlist01.txt, line 3: v1 stands twice, first in {folder}/trainlist01.txt, line 1"),
    ("ucf101", UCF | {"testlist01.txt": "A/v1.avi\n"},
     "trainlist01.txt, line 1: v1 is in train, and in val by {folder}/testlist01.txt, line 1"),
    ("ucf101", UCF | {"classInd.txt": "1 A\n3 B\n"}, "classInd.txt: its 2 classes must each have a name and a"),
    ("ucf101", UCF | {"classInd.txt": "1 A\n2 A\n"}, "classInd.txt: its 2 classes must each have a name and a"),
    ("ucf101", UCF | {"classInd.txt": ""}, "classInd.txt: has no classes"),
    ("ucf101", UCF | {"classInd.txt": "1\n"}, "classInd.txt, line 1: '1' is not two values"),
    ("ucf101", UCF | {"trainlist01.txt": "A/.. 1\n"}, "trainlist01.txt, line 1: '..' leaves the data set's folder"),
    ("ucf101", UCF | {"trainlist01.txt": "A/v1.avi\n"}, "ucf101 split 1: has training videos of 1 of 2 classes"),
    ("hmdb51", {"a_test_split1.txt": "x.avi 3\n"}, "a_test_split1.txt, line 1: 'x.avi 3' is not the name of"),
    ("hmdb51", {"a_test_split1.txt": "x.avi\n"}, "a_test_split1.txt, line 1: 'x.avi' is not the name of"),
    ("hmdb51", {}, "holds no <class>_test_split1.txt"),
    ("kinetics", {}, "holds no kinetics-700_train.csv nor train.csv of Kinetics-700"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "a,x,3,4,val\n"}, "train.csv, line 2: x is in train, and in val by"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "c,z,3,4,val\n"}, "val.csv, line 2: class 'c' is not one of the 2"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "a,z,3,4,train\n"}, "val.csv, line 2: split 'train' is not val or"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "a,z,x,4,val\n"}, "val.csv, line 2: times 'x' to '4' are not two"),
    ("kinetics", KINETICS_FILES | {"val.csv": K + "a,z\n"}, "val.csv, line 2: has 2 values, not 5"),
    ("kinetics", KINETICS_FILES | {"val.csv": "label,id\na,z\n"}, "val.csv: has the columns label, id; needs label"),
    ("hacs", {"HACS_clips_v1.1.1.csv": HACS_HEADER + "a,x,training,1,2,3\n"}, "v1.1.1.csv, line 2: label '3' is not 1"),
    ("hacs", {"HACS_clips_v1.1.1.csv": HACS_HEADER + "a,x,train,1,2,1\n"}, "v1.1.1.csv, line 2: subset 'train' is not"),
    ("mit", MIT_FILES | {"validationSet.csv": "a/z.mp4,b,3,0\n"},
     "validationSet.csv, line 1: 'a/z.mp4' does not lie in the folder of its class 'b'"),
    ("mit", MIT_FILES, "holds no validationSet.csv, nor does a folder in it"),
    ("diving48", DIVING | {"Diving48_V2_train.json": '[{"vid_name": "x", "label": 2}]'},
     "Diving48_V2_train.json, video 1: label 2 is not one of the 2 classes"),
    ("diving48", DIVING | {"Diving48_V2_train.json": "[{}]"}, "Diving48_V2_train.json, video 1: has no vid_name and"),
    ("diving48", DIVING | {"Diving48_vocab.json": '["a", "a"]'}, "vocab.json: its 2 classes must each have a name"),
    ("diving48", DIVING | {"Diving48_vocab.json": '[["a", 15]]'}, "vocab.json: is not a list of classes, a word or a"),
    ("diving48", DIVING | {"Diving48_V2_train.json": "{}"}, "Diving48_V2_train.json: is not a JSON list"),
    ("diving48", DIVING | {"Diving48_V2_train.json": "["}, "Diving48_V2_train.json: is not JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "message"), BAD)
def test_what_is_wrong_is_named_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, files: dict[str, str], message: str
) -> None:
    for file, text in files.items():
        write(tmp_path / file, text)
    arguments = ["--split", "1"] if name in ("ucf101", "hmdb51") else []
    error = fails(capsys, name, tmp_path, tmp_path / "labels", *arguments)
    assert message.format(folder=tmp_path) in error
    assert not (tmp_path / "labels").exists()


def test_a_folder_that_holds_a_list_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        write_ucf101(tmp_path / folder, 2)
    assert "either could be meant" in fails(capsys, "ucf101", tmp_path, tmp_path / "labels")


def test_conflicts_are_left_out_of_training_where_that_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = KINETICS_FILES | {
        "train.csv": KINETICS_FILES["train.csv"] + "b,y,1,2,train\na,z,5,6,train\n",
    }
    for file, text in files.items():
        write(tmp_path / file, text)
    arguments = ["kinetics", str(tmp_path), str(tmp_path / "new"), "--num-classes", "2"]
    assert main([*arguments, "--leave-out-conflicts"]) == 0
    rows = rows_of(tmp_path / "new" / "kinetics-700_train.csv")
    assert [row["youtube_id"] for row in rows] == ["x", "y"]
    assert [row["youtube_id"] for row in rows_of(tmp_path / "new" / "kinetics-700_val.csv")] == ["z"]
    assert "left out 1 train rows that stand twice" in caplog.text
    assert "left out 1 train rows whose video is in val" in caplog.text


def test_a_subset_must_be_of_the_size_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, text in UCF.items():
        write(tmp_path / file, text)
    arguments = ("ucf101", tmp_path, tmp_path / "labels", "--split", "1", "--num-classes")
    assert "ucf101 split 1: has training videos of 2 classes, not 3" in fails(capsys, *arguments, 3)
    write(tmp_path / "trainlist01.txt", "B/v2.avi 2\n")
    assert "testlist01.txt, line 1: class 'A' is not one of the 1" in fails(capsys, *arguments, 1)
    write(tmp_path / "testlist01.txt", "B/v3.avi\n")
    assert main([str(argument) for argument in (*arguments, 1)]) == 0
    assert json.loads((tmp_path / "labels" / "ucf101_split1_dictionary.json").read_text()) == {"B": 0}


def test_numbers_that_weights_were_trained_with_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file, text in UCF.items():
        write(tmp_path / file, text)
    dictionary = write(tmp_path / "labels" / "ucf101_split1_dictionary.json", '{"B": 0, "A": 1}')
    arguments = ("ucf101", tmp_path, tmp_path / "labels", "--split", "1", "--num-classes", "2")
    assert main([str(argument) for argument in arguments]) == 0
    assert json.loads(dictionary.read_text()) == {"B": 0, "A": 1}
    assert "ucf101_split1_train.csv exists; --overwrite replaces it" in fails(capsys, *arguments)
    write(dictionary, '{"B": 0, "C": 1}')
    error = fails(capsys, *arguments, "--overwrite")
    assert re.search(r"dictionary.json: numbers other classes than these 2; remove it if nothing", error)
