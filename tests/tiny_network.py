"""The networks `tiny` and `srtg_tiny` of 47 thousand parameters, which only the tests register.

`python -m tests.tiny_network train --dataset ...` registers them, then runs `python -m train --dataset ...`.
It also runs the scripts: `python -m tests.tiny_network train_ucf101 --dataset ...`.
"""

import runpy
import sys

from network import list_networks
from network.blocks import BasicBlock
from network.layers import Conv3D
from network.registry import Builder, network_builder
from network.srtg_resnet import define

if "tiny" not in list_networks():
    define("tiny", BasicBlock, (1, 1, 1, 1), Conv3D, channels=(8, 8, 16, 16))


def tiny_builders() -> dict[str, Builder]:
    """Return, for the name of each network, the builder of `srtg_tiny` or `tiny`."""
    builders = {kind: network_builder(kind) for kind in ("tiny", "srtg_tiny")}
    return {name: builders["srtg_tiny" if name.startswith("srtg_") else "tiny"] for name in list_networks()}


if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
