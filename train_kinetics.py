"""python train_kinetics.py --dataset DIR: train on Kinetics-200, 400, 600 or 700 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import KINETICS
from train.main import main
from train.recipes import RECIPES

DEFAULTS = RECIPES[KINETICS.name]

if __name__ == "__main__":
    sys.exit(main(KINETICS, DEFAULTS))
