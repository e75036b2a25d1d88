"""Networks by name: `@register` adds a builder, `create_network` calls it.

Names are matched exactly, apart from case. What a builder takes besides `num_classes` is read from its
signature, so that an option exists in one place only.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

Builder = Callable[..., nn.Module]

_BUILDERS: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Make `builder(num_classes, **options)` known under its own name, and return it unchanged."""
    name = builder.__name__.lower()
    if name in _BUILDERS:
        raise ValueError(f"there is a network {name!r} already")
    _BUILDERS[name] = builder
    return builder


def network_builder(name: str) -> Builder:
    """The builder registered under `name`; `ValueError` with the closest names if there is none."""
    if name.lower() not in _BUILDERS:
        closest = get_close_matches(name.lower(), _BUILDERS, n=3, cutoff=0.0)
        raise ValueError(f"unknown network {name!r}; the closest names are {', '.join(closest)}")
    return _BUILDERS[name.lower()]


def network_options(name: str) -> frozenset[str]:
    """What `create_network` takes besides name and `num_classes`: r3d_18 -> pool, zero_init_residual."""
    return frozenset(inspect.signature(network_builder(name)).parameters) - {"num_classes"}


def create_network(name: str, num_classes: int, **options: bool | str) -> nn.Module:
    """Build a network that turns clips `(B, 3, T, H, W)` into logits `(B, num_classes)`.

    An unknown name, an option that this network does not take and a wrong value each are a `ValueError`.
    """
    builder = network_builder(name)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, and must be at least 1")
    known = network_options(name)
    unknown = sorted(options.keys() - known)
    if unknown:
        allowed = ", ".join(sorted(known))
        raise ValueError(f"{name} does not take {', '.join(unknown)}; its options are {allowed}")
    return builder(num_classes, **options)


def networks_in_order() -> list[str]:
    """All names as they were registered: families together, small before large."""
    return list(_BUILDERS)


def list_networks(pattern: str = "*") -> list[str]:
    """Sorted names that match the shell pattern, such as "srtg_*"; an empty list if none does."""
    return sorted(name for name in _BUILDERS if fnmatchcase(name, pattern.lower()))
