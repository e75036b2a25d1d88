"""A wall clock that jumps by up to ten years at every call, for folders on PYTHONPATH; monotonic time stays right."""

import random
import time

TEN_YEARS = 3 * 10**8  # seconds
_time, _time_ns, _rng = time.time, time.time_ns, random.Random(0)

time.time = lambda: _time() + _rng.randint(-TEN_YEARS, TEN_YEARS)
time.time_ns = lambda: _time_ns() + _rng.randint(-TEN_YEARS, TEN_YEARS) * 10**9
