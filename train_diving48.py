"""python train_diving48.py --dataset DIR: train on Diving-48 (see README.md)."""

import sys

from data.datasets import DIVING48
from train.main import main
from train.options import Options

DEFAULTS = Options(
    clip_size=256,
    batch_size=32,
    train_frame_interval=(2,),
    val_frame_interval=2,
    lr_base=0.1,
    lr_steps=(15, 30, 40),
    end_epoch=100,
)

if __name__ == "__main__":
    sys.exit(main(DIVING48, DEFAULTS))
