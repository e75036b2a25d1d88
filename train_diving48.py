"""python train_diving48.py --dataset DIR: train on Diving-48 (see README.md)."""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import DIVING48
from train.main import main
from train.options import Options

DEFAULTS = Options(clip_size=256)  # the rest of the published recipe is that of Options

if __name__ == "__main__":
    sys.exit(main(DIVING48, DEFAULTS))
