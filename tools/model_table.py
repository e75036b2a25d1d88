"""python -m tools.model_table

Print the table of networks in docs/networks.md: parameters and FLOPs, plain and with `srtg_`, and published accuracies.
"""

import sys
from collections.abc import Sequence

from network.flops import count_flops, count_parameters
from network.registry import list_networks, networks_in_order

TITLES = (
    *("network", "params (M)", "GFLOPs", "params (M) with `srtg_`", "GFLOPs with `srtg_`"),
    "HACS top-1, top-5 as published (SRTG: 16 x 264², batch 32; MTNet: 16 x 256², batch 64)",
)
PUBLISHED = {  # percent, by the authors of the original code
    "srtg_r3d_34": (78.599, 93.569),
    "srtg_r3d_50": (80.362, 95.548),
    "srtg_r3d_101": (81.659, 96.326),
    "srtg_r2plus1d_50": (83.774, 96.560),
    "srtg_r2plus1d_101": (84.326, 96.852),
    "mtnet_s": (80.712, 95.182),
    "mtnet_m": (83.447, 95.872),
    "mtnet_l": (86.574, 96.658),
}


def table_size(name: str) -> tuple[str, str]:
    """Return the parameters, in millions, and the GFLOPs of a network."""
    params, flops = count_parameters(name, num_classes=400), count_flops(name, 400, length=16, size=224)
    return f"{params / 1e6:.2f}", f"{flops / 1e9:.2f}"


def table_row(name: str) -> str:
    """Return the row of a network and of its `srtg_` form, if it has one."""
    srtg = f"srtg_{name}"
    srtg_size = table_size(srtg) if srtg in list_networks() else ("", "")
    published = PUBLISHED.get(srtg, PUBLISHED.get(name))
    accuracy = f"{published[0]:.1f}, {published[1]:.1f}" if published else ""
    return f"| {' | '.join([f'`{name}`', *table_size(name), *srtg_size, accuracy])} |"


def names_in_table() -> list[str]:
    """Return the networks that have a row: those without `srtg_`, by family."""
    return [name for name in networks_in_order() if not name.startswith("srtg_")]


def main(argv: Sequence[str] | None = None) -> int:
    print(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}")
    for name in names_in_table():
        print(table_row(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
