"""python train_kinetics.py --dataset DIR: train on Kinetics-200, 400, 600 or 700 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import KINETICS
from train.main import main
from train.options import Options

DEFAULTS = Options(
    clip_size=284,
    long_cycles=True,
    short_cycles=True,
    batch_size=32,
    train_frame_interval=(4, 5, 6),
    val_frame_interval=5,
    lr_base=0.05,
    lr_steps=(40, 70, 95),
    end_epoch=130,
)

if __name__ == "__main__":
    sys.exit(main(KINETICS, DEFAULTS))
