"""Splits and folds of custom datasets with each group on one side."""

import itertools
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from data.label_files import Annotation, find_folds, read_classes, read_label_csv
from data.labels.groups import read_groups, split_groups, suggest_groups
from tests.commands import REPOSITORY, error_of, main_of
from tests.data.labels.test_labels import write
from tests.synthetic_frames import make_stores

main = main_of("data.labels")
REAL = REPOSITORY.parent / "shared" / "real"
PEOPLE = ("ann", "bob", "cy", "dee", "eve", "flo")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset with a video of each of six people in each of three classes."""
    root = tmp_path_factory.mktemp("set")
    make_stores(root, {name: [f"{person}_{name}" for person in PEOPLE] for name in ("run", "sit", "wave")}, 1)
    return root


def groups_of(rows: list[Annotation]) -> set[str]:
    return {row.group for row in rows}


def test_a_split_keeps_each_group_on_one_side(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["folders", str(people), "--val", "0.3", "--groups", "/([a-z]+)_", "--overwrite"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "             train      val",
        "run              4        2",
        "sit              4        2",
        "wave             4        2",
        "3 classes       12        6",
        f"{people}/labels/train.csv",
        f"{people}/labels/val.csv",
        "6 groups, none on both sides; validation has 0.33 of the videos (0.33 of a class)",
    ]
    train, val = (read_label_csv(people / f"labels/{split}.csv", False) for split in ("train", "val"))
    assert groups_of(train) | groups_of(val) == {*PEOPLE}
    assert groups_of(train) & groups_of(val) == set()
    assert all(row.source.startswith(f"{row.group}_") for row in (*train, *val))


def test_each_video_is_validated_in_one_fold(people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of folds that replace others, of which none is left. Equal seeds give equal files."""
    command = ["folders", str(people), "--overwrite", "--folds"]
    written = []
    for words in (["groups", "--groups", "/([a-z]+)_"], ["3", "--groups", "/([a-z]+)_"], ["4"], ["4"]):
        assert main([*command, *words]) == 0
        folds = find_folds(people / "labels")
        assert len(folds) == (int(words[0]) if words[0].isdigit() else len(PEOPLE))
        validated = Counter[str]()
        sizes = set()
        for fold in folds:
            paths = [people / f"labels/fold{fold}_{split}.csv" for split in ("train", "val")]
            train, val = (read_label_csv(path, False) for path in paths)
            assert {row.folder for row in train} & {row.folder for row in val} == set()
            assert len(train) + len(val) == 18
            assert groups_of(train) & groups_of(val) <= {""}
            assert read_classes(people / f"labels/fold{fold}_dictionary.json") == ["run", "sit", "wave"]
            validated.update(row.folder for row in val)
            sizes |= {len(val), *Counter(row.label for row in val).values()}
        assert [*validated.values()] == [1] * 18
        assert sizes == {"groups": {1, 3}, "3": {2, 6}, "4": {1, 2, 4, 5}}[words[0]]
        written.append({path.name: path.read_bytes() for path in (people / "labels").glob("fold*")})
    assert written[2] == written[3]
    out = capsys.readouterr().out.splitlines()
    assert "fold1 ann, fold2 bob, fold3 cy, fold4 dee, fold5 eve, fold6 flo" in out
    assert f"{people}/labels/fold1_train.csv to fold3_val.csv" in out
    assert "fold1_train.csv exists; --overwrite replaces it" in error_of(
        main, "folders", people, "--folds", 3
    )


def test_videos_without_a_group_and_groups_that_only_train(
    people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The CSV is one as Windows writes it, with other columns, suffixes, and a video that the dataset lacks."""
    lines = [f"{name}/{who}_{name}.mp4,note,{who}" for name in ("run", "sit", "wave") for who in PEOPLE[:5]]
    table = tmp_path / "groups.csv"
    table.write_bytes("\r\n".join(["\ufeffpath,note,group", *lines, "run/gone.mp4,,ann", ""]).encode())
    words = ["folders", str(people), "--groups", str(table), "--train-only", "ann", "--train-only", "bob"]
    assert main([*words, "--folds", "3", "--overwrite"]) == 0
    held = [groups_of(read_label_csv(people / f"labels/fold{fold}_val.csv", False)) for fold in (1, 2, 3)]
    assert sorted(map(sorted, held)) == [["cy"], ["dee"], ["eve"]]
    train = read_label_csv(people / "labels/fold1_train.csv", False)
    assert {"", "ann", "bob"} < groups_of(train)
    assert caplog.messages == ["3 videos have no group: training side only, such as run/flo_run"]


def test_sizes_and_classes_are_even_where_groups_are_not() -> None:
    """A class that few groups have is on both sides, whatever their size."""
    generator = random.Random(3)
    rows = [Annotation("rare", f"{i}", group=group) for i, group in enumerate(["0", "1", "1"])]
    for group in range(60):
        label = f"{generator.choice(['a', 'b'])}"
        rows += [Annotation(label, f"{group}_{i}", group=f"{group}") for i in range(generator.randint(1, 12))]
    totals = Counter(row.label for row in rows)
    for shares in ([0.3], [0.1], [0.2] * 5):
        for split in split_groups(rows, shares, 1, []):
            counts = Counter(row.label for row in split["val"])
            assert abs(counts.total() / len(rows) - shares[0]) < 0.02
            assert all(abs(counts[name] / totals[name] - shares[0]) < 0.03 for name in ("a", "b"))
            assert counts["rare"] < 3
            assert counts["rare"] > 0 or len(shares) == 5


def test_a_class_in_two_large_groups_is_on_both_sides() -> None:
    rows = [Annotation("rare", f"{i}", group=group) for i, group in enumerate(["large", "larger"])]
    for group, number in (("larger", 55), ("large", 30), *((f"{i}", 1) for i in range(10))):
        rows += [Annotation("often", f"{group}_{i}", group=group) for i in range(number)]
    (split,) = split_groups(rows, [0.1], 1, [])
    assert "large" in groups_of(split["val"])
    assert "larger" in groups_of(split["train"])


def test_large_groups_are_named(caplog: pytest.LogCaptureFixture) -> None:
    rows = [Annotation("a", f"{i}", group="big" if i < 6 else f"{i}") for i in range(10)]
    split_groups(rows, [0.3], 1, [])
    assert caplog.messages == [
        "groups above 0.30 of the videos or of a class: 'big' (6 of 10 a), 'big' (6 of 10 videos)"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--groups g.csv", "--groups g.csv: not a file, nor a pattern with a group, such as '_(g\\d+)_'"),
        ("--groups /([a-z]+", "--groups /([a-z]+: not a file, nor a regular expression: missing )"),
        ("--groups (z+)", "--groups (z+): names no group of the videos, such as 'run/ann_run'"),
        ("--groups (_)", "class 'run': no val videos, it is only in groups ['_']"),
        ("--groups /(.*)_ --folds 9", "only 6 groups, or videos without groups, may be in validation"),
        ("--groups /(.*)_ --train-only al", "--train-only 'al': is not one of the groups ['ann', 'bob',"),
        (
            "--groups ^(run) --folds groups",
            "class 'run': no train videos, it is only in groups ['run']",
        ),
        ("--train-only ann", "--folds groups and --train-only need --groups, and not --val-list"),
        ("--folds groups", "--folds groups and --train-only need --groups, and not --val-list"),
        ("--folds 1", "argument --folds: '1' is not groups or a whole number of at least 2"),
        ("--folds 3 --val 0.2", "argument --val: not allowed with argument --folds"),
    ],
)
def test_what_cannot_be_split_is_an_error(people: Path, words: str, message: str) -> None:
    assert message in error_of(main, "folders", people, "--overwrite", *words.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,person\na/1,x\n", "g.csv, line 1: needs group; columns, separated by commas, are"),
        ("id,group\na/1,x\n", "g.csv, line 2: needs video, as <class>/<id>, and group; columns are ['id',"),
        ("video,group\na/1,x\n\na/1.mp4,y\n", "g.csv, line 4: 'a/1.mp4' is in group 'y' and in 'x'"),
    ],
)
def test_invalid_table_of_groups(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        read_groups(write(tmp_path / "g.csv", text), [Annotation("a", "1")])


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("v_{label}_g{group:02}_c{count:02}", r"'[_/]([A-Za-z]+\d+)_'"),  # UCF-101
        ("person{group:02}_{label}_d{count}_uncomp", r"'[_/]([A-Za-z]+\d+)_'"),  # KTH
        ("{name}_{label}{count}", "'/([^_/]+)_'"),  # Weizmann
        ("{label}-{name}-{count}", "'-([^-/]+)-'"),
        ("{label}{count}_{name}", r"'_([^_/\d]+)$'"),
        ("{name} {count}", "'/([^ /]+) '"),
        ("{label}_{number:05}", None),  # data.synthetic
        ("{number}", None),
        ("clip{number}", None),
        ("a_clip_{number}", None),
    ],
)
def test_ids_that_look_grouped(form: str, pattern: str | None, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        Annotation(
            label, form.format(label=label, group=group, name=PEOPLE[group], count=count, number=number)
        )
        for label in ("Up", "TurnLeft")
        for number, (group, count) in enumerate(itertools.product(range(4), range(3)))
    ]
    suggest_groups(rows)
    if pattern is None:
        assert caplog.messages == []
    else:
        (message,) = caplog.messages
        examples = f"{rows[0].folder}, {rows[1].folder}"
        assert message == f"ids look grouped ({examples}): --groups {pattern} keeps a group on one side"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real sets are not in shared/real")
@pytest.mark.parametrize(
    ("name", "number", "least", "most"), [("weizmann", 9, 10, 10), ("scfd", 5, 52, 57), ("scfd", 10, 24, 30)]
)
def test_folds_of_the_real_sets_are_even(name: str, number: int, least: int, most: int) -> None:
    table = REAL / name / "groups.csv"
    folders = [line.split(",")[0].rsplit(".", 1)[0] for line in table.read_text("utf-8").splitlines()[1:]]
    rows = [Annotation(*folder.split("/")) for folder in folders]
    groups = read_groups(table, rows)
    rows = [Annotation(row.label, row.source, group=groups[row.folder]) for row in rows]
    folds = split_groups(rows, [1 / number] * number, 1, ["unlisted"] if name == "scfd" else [])
    assert all(least <= len(fold["val"]) <= most for fold in folds)
    assert all({row.label for row in fold["val"]} == {row.label for row in rows} for fold in folds)
    assert all(groups_of(fold["train"]) & groups_of(fold["val"]) == set() for fold in folds)
