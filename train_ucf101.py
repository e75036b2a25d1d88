"""python train_ucf101.py --dataset DIR: train on UCF-101 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import UCF101
from train.main import main
from train.recipes import RECIPES

DEFAULTS = RECIPES[UCF101.name]

if __name__ == "__main__":
    sys.exit(main(UCF101, DEFAULTS))
