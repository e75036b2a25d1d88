"""python train_hmdb51.py --dataset DIR: train on HMDB-51 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import HMDB51
from train.main import main
from train.recipes import RECIPES

DEFAULTS = RECIPES[HMDB51.name]

if __name__ == "__main__":
    sys.exit(main(HMDB51, DEFAULTS))
