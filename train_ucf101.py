"""python train_ucf101.py --dataset DIR: train on UCF-101 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import UCF101
from train.main import main
from train.options import Options

DEFAULTS = Options(clip_size=256)  # the rest of the published recipe is that of Options

if __name__ == "__main__":
    sys.exit(main(UCF101, DEFAULTS))
