"""The registry of networks: `@register` adds a builder, `create_network` calls it by name.

Names are matched exactly, apart from case. A network's options are the parameters of its builder.
"""

import inspect
from collections.abc import Callable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

Builder = Callable[..., nn.Module]

_BUILDERS: dict[str, Builder] = {}


def register(builder: Builder) -> Builder:
    """Register `builder(num_classes, **options)` under its own name and return it unchanged."""
    name = builder.__name__.lower()
    if name in _BUILDERS:
        raise ValueError(f"network {name!r} is already registered")
    _BUILDERS[name] = builder
    return builder


def network_builder(name: str) -> Builder:
    """Return the builder registered as `name`; raise ValueError with the closest names if there is none."""
    if name.lower() not in _BUILDERS:
        closest = get_close_matches(name.lower(), _BUILDERS, n=3, cutoff=0.0)
        raise ValueError(f"unknown network {name!r}; the closest names are {', '.join(closest)}")
    return _BUILDERS[name.lower()]


def network_options(name: str) -> frozenset[str]:
    """Return the names of a network's options: "r3d_18" -> pool, zero_init_residual."""
    return frozenset(inspect.signature(network_builder(name)).parameters) - {"num_classes"}


def create_network(name: str, num_classes: int, **options: bool | str) -> nn.Module:
    """Return a network that maps clips `(B, 3, T, H, W)` to logits `(B, num_classes)`.

    Raise ValueError for an unknown name, an option that the network does not have, or a wrong value.
    """
    builder = network_builder(name)
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, and must be at least 1")
    known = network_options(name)
    if unknown := sorted(options.keys() - known):
        allowed = ", ".join(sorted(known))
        raise ValueError(f"{name} does not take {', '.join(unknown)}; its options are {allowed}")
    return builder(num_classes, **options)


def networks_in_order() -> list[str]:
    """Return all names in the order of registration: by family, small before large."""
    return list(_BUILDERS)


def list_networks(pattern: str = "*") -> list[str]:
    """Return the sorted names that match a shell pattern such as "srtg_*"."""
    return sorted(name for name in _BUILDERS if fnmatchcase(name, pattern.lower()))
