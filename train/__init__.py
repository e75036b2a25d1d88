"""The training loop and what watches it."""

import os

# Read by OpenMP when torch is imported, so it stands here. By default its threads wait by spinning; on a CPU they then
# take the cores from the loader's workers and steps become three to four times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
