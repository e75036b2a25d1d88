"""python train_diving48.py --dataset DIR: train on Diving-48 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import DIVING48
from train.main import main
from train.recipes import RECIPES

DEFAULTS = RECIPES[DIVING48.name]

if __name__ == "__main__":
    sys.exit(main(DIVING48, DEFAULTS))
