"""python train_mit.py --dataset DIR: train on Moments in Time (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import MIT
from train.main import main
from train.options import Options

DEFAULTS = Options(
    clip_size=284,
    long_cycles=True,
    short_cycles=True,
    batch_size=48,
    train_frame_interval=(3, 4),
    val_frame_interval=3,
    lr_base=0.1,
    lr_steps=(25, 50, 70),
    end_epoch=110,
)

if __name__ == "__main__":
    sys.exit(main(MIT, DEFAULTS))
