"""Training: options, engine, checkpoints and logs."""

import os

import data  # noqa: F401  ends here on platforms that nothing runs on

# Read by OpenMP when torch is imported. By default its idle threads spin, and on a CPU take the cores from the
# dataloader workers: steps become three to four times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
