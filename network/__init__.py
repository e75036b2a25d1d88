"""Networks for video clips: `create_network("srtg_r3d_34", num_classes=400)`, or import a builder by its name.

Importing a file registers its networks; `from network import srtg_r3d_34` finds them in the registry.
"""

from network import mtnet, srtg_resnet  # noqa: F401
from network.registry import Builder, create_network, list_networks, network_builder, network_options

__all__ = ["create_network", "list_networks", "network_options"]


def __getattr__(name: str) -> Builder:
    """Return the builder registered as `name`, for `from network import <name>`."""
    try:
        return network_builder(name)
    except ValueError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error
