"""python train_hacs.py --dataset DIR: train on HACS Clips (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import HACS
from train.main import main
from train.options import Options

DEFAULTS = Options(
    clip_size=284,
    long_cycles=True,
    short_cycles=True,
    batch_size=48,
    train_frame_interval=(1, 2),
    val_frame_interval=2,
    lr_base=0.1,
    lr_steps=(40, 60, 75, 90),
    end_epoch=120,
)

if __name__ == "__main__":
    sys.exit(main(HACS, DEFAULTS))
