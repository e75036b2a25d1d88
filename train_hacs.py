"""python train_hacs.py --dataset DIR: train on HACS Clips (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import HACS
from train.main import main
from train.recipes import RECIPES

DEFAULTS = RECIPES[HACS.name]

if __name__ == "__main__":
    sys.exit(main(HACS, DEFAULTS))
