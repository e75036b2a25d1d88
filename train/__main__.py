"""python -m train --dataset DIR: train on a custom dataset, DIR/jpg/... and DIR/labels/{train,val}.csv.

`--fold 2` takes DIR/labels/fold2_{train,val}.csv.
"""

import sys  # PYTHON_ARGCOMPLETE_OK

from data.datasets import CUSTOM
from train.main import main
from train.options import Options

if __name__ == "__main__":
    sys.exit(main(CUSTOM, Options(), prog="python -m train"))
