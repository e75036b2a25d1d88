"""python train_mit.py --dataset DIR: train on Moments in Time (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import MIT
from train.main import main
from train.recipes import RECIPES

DEFAULTS = RECIPES[MIT.name]

if __name__ == "__main__":
    sys.exit(main(MIT, DEFAULTS))
