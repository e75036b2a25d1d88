"""python train_ucf101.py --dataset DIR: train on UCF-101 (see README.md)."""

import sys

from data.datasets import UCF101
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
    sys.exit(main(UCF101, DEFAULTS))
