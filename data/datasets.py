"""Facts about each dataset: label files, classes, frame size. Choices of a training run are in train/options.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field

LARGE_SHORT_SIDE = 384
SHORT_SIDE = 294


@dataclass(frozen=True)
class DatasetSpec:
    """Facts about a dataset.

    `{variant}` in a file name or in `results_name` is replaced by the variant: a version (Kinetics) or a split
    (UCF-101, HMDB-51), as `variant_flag` names it. `num_classes` maps each variant to its number of classes, the
    default first; its only key is "" for a dataset without variants, and it is empty if the label files decide: then
    the variants are folds, numbered from 1, and "" for label files without a fold.
    `timed_ids`: the folder of a video with times is `<id>_<start>_<end>`, in seconds as `%06d`. `untrained_classes`:
    some may have no training videos. `short_side`: size in pixels that frames are stored at, and scaled to before
    training's random crop. `flip`: horizontal flips keep the class.
    """

    name: str
    results_name: str
    train_csv: str
    val_csv: str
    num_classes: Mapping[str, int] = field(default_factory=dict)
    variant_flag: str = ""
    timed_ids: bool = False
    untrained_classes: bool = False
    short_side: int = SHORT_SIDE
    flip: bool = True

    @property
    def default_variant(self) -> str:
        return next(iter(self.num_classes), "")

    def fold_name(self, variant: str) -> str:
        """Return `fold<variant>`, which label files and results of a fold begin with; "" if the variant is not one."""
        return f"fold{variant}" if variant and not self.num_classes else ""


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
    untrained_classes=True,  # V2 corrected the labels, not the vocabulary
)
CUSTOM = DatasetSpec(
    name="custom",
    results_name="{dataset}",
    variant_flag="fold",
    train_csv="train.csv",
    val_csv="val.csv",
    timed_ids=True,
)

# by the name that checkpoints store
SPECS = {spec.name: spec for spec in (HACS, KINETICS, MIT, UCF101, HMDB51, DIVING48, CUSTOM)}
