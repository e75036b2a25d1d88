"""What is true of each data set: names, classes, label files, geometry. Choices belong to train/options.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

LARGE_SHORT_SIDE = 384
SHORT_SIDE = 294


@dataclass(frozen=True)
class DatasetSpec:
    """A data set.

    `{variant}` in a name or a file name stands for the chosen variant. `num_classes` maps each variant to its number of
    classes, the first being the default; it is empty where the label files decide, and has the one key "" where there
    are no variants. `timed_ids`: a video's folder is `<id>_<start>_<end>` with the seconds as `%06d`, where the label
    file gives times. `short_side`: what frames are scaled to before the crop. `flip`: whether mirrored motion is the
    same class.
    """

    name: str
    results_name: str
    train_csv: str
    val_csv: str
    num_classes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    variant_flag: str = ""
    timed_ids: bool = False
    short_side: int = SHORT_SIDE
    flip: bool = True

    @property
    def default_variant(self) -> str:
        return next(iter(self.num_classes), "")


HACS = DatasetSpec(
    name="hacs",
    results_name="HACS",
    num_classes={"": 200},
    train_csv="HACS_clips_v1.1_train.csv",
    val_csv="HACS_clips_v1.1_val.csv",
    timed_ids=True,
    short_side=LARGE_SHORT_SIDE,
)
KINETICS = DatasetSpec(
    name="kinetics",
    results_name="KINETICS-{variant}",
    num_classes={"700": 700, "600": 600, "400": 400, "200": 200},
    variant_flag="variant",
    train_csv="kinetics-{variant}_train.csv",
    val_csv="kinetics-{variant}_val.csv",
    timed_ids=True,
    short_side=LARGE_SHORT_SIDE,
)
MIT = DatasetSpec(
    name="mit",
    results_name="MIT",
    num_classes={"": 339},
    train_csv="Moments_in_Time_train.csv",
    val_csv="Moments_in_Time_val.csv",
    short_side=LARGE_SHORT_SIDE,
)
UCF101 = DatasetSpec(
    name="ucf101",
    results_name="UCF101",
    num_classes={"1": 101, "2": 101, "3": 101},
    variant_flag="split",
    train_csv="ucf101_split{variant}_train.csv",
    val_csv="ucf101_split{variant}_val.csv",
)
HMDB51 = DatasetSpec(
    name="hmdb51",
    results_name="HMDB51",
    num_classes={"1": 51, "2": 51, "3": 51},
    variant_flag="split",
    train_csv="hmdb_split{variant}_train.csv",
    val_csv="hmdb_split{variant}_val.csv",
)
DIVING48 = DatasetSpec(
    name="diving48",
    results_name="DIVING48",
    num_classes={"": 48},
    train_csv="diving48_train.csv",
    val_csv="diving48_val.csv",
)


# A data set of one's own: its label files say what the classes are.
CUSTOM = DatasetSpec(
    name="a data set of your own",
    results_name="{dataset}",
    train_csv="train.csv",
    val_csv="val.csv",
    timed_ids=True,
)

# by the name that checkpoints have
SPECS = MappingProxyType(
    {spec.name: spec for spec in (HACS, KINETICS, MIT, UCF101, HMDB51, DIVING48, CUSTOM)}
)
