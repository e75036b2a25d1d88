"""A clock that jumps by up to ten years with every look at it; what counts on monotonic time does not notice."""

import random
import time

_now, _now_ns, _jumps = time.time, time.time_ns, random.Random(0)


def _jump() -> int:
    return _jumps.randint(-(10**8) * 3, 10**8 * 3)


time.time = lambda: _now() + _jump()
time.time_ns = lambda: _now_ns() + _jump() * 10**9
