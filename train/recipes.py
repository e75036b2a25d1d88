"""The published recipe of each dataset: the defaults of its training script, and the clips of weights alone."""

from dataclasses import replace

from data.datasets import CUSTOM, DIVING48, HACS, HMDB51, KINETICS, MIT, UCF101
from train.options import Options

LARGE = Options(clip_size=284, long_cycles=True, short_cycles=True)
SMALL = Options(clip_size=256)
RECIPES = {
    HACS.name: replace(
        LARGE,
        batch_size=48,
        train_frame_interval=(1, 2),
        val_frame_interval=2,
        lr_base=0.1,
        lr_steps=(40, 60, 75, 90),
        end_epoch=120,
    ),
    KINETICS.name: replace(
        LARGE,
        batch_size=32,
        train_frame_interval=(4, 5, 6),
        val_frame_interval=5,
        lr_base=0.05,
        lr_steps=(40, 70, 95),
        end_epoch=130,
    ),
    MIT.name: replace(
        LARGE,
        batch_size=48,
        train_frame_interval=(3, 4),
        val_frame_interval=3,
        lr_base=0.1,
        lr_steps=(25, 50, 70),
        end_epoch=110,
    ),
    **dict.fromkeys((UCF101.name, HMDB51.name, DIVING48.name), SMALL),
    CUSTOM.name: Options(),
}
