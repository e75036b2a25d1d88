"""python -m network.table

The README's table of networks, in Markdown: a row for each network with its size and its operations, plain and with
squeeze and recursion, and what the authors published for it on HACS.
"""

import sys
from collections.abc import Sequence

from network.flops import count_flops, count_parameters
from network.registry import list_networks, networks_in_order

CLASSES, LENGTH, SIZE = 400, 16, 224
TITLES = (
    "network",
    "million parameters",
    "GFLOPs",
    "with `srtg_`: million parameters",
    "GFLOPs",
    "HACS top-1, top-5 (published)",
)
# Clips of 16 frames, 264 pixels (SRTG) and 284 (MTNet); by the codebase's authors, in percent.
PUBLISHED = {
    "srtg_r3d_34": (78.599, 93.569),
    "srtg_r3d_50": (80.362, 95.548),
    "srtg_r3d_101": (81.659, 96.326),
    "srtg_r2plus1d_50": (83.774, 96.560),
    "srtg_r2plus1d_101": (84.326, 96.852),
    "mtnet_xs": (77.926, 94.289),
    "mtnet_s": (80.712, 95.182),
    "mtnet_m": (83.447, 95.872),
    "mtnet_l": (86.574, 96.658),
}


def plain_names() -> list[str]:
    """The networks that have a row: all but those that are another one with `srtg_`, or an alias."""
    return [name for name in networks_in_order() if not name.startswith("srtg_")]


def table_row(name: str) -> str:
    """One network's row, and that of its `srtg_` form if it has one."""
    recursive = f"srtg_{name}"
    has_recursive = recursive in list_networks()
    cells = [f"`{name}`", *_figures(name), *(_figures(recursive) if has_recursive else ("", ""))]
    published = PUBLISHED.get(recursive if has_recursive else name)
    cells.append("" if published is None else f"{published[0]:.1f}, {published[1]:.1f}")
    return f"| {' | '.join(cells)} |"


def _figures(name: str) -> tuple[str, str]:
    parameters = count_parameters(name, CLASSES) / 1e6
    return f"{parameters:.2f}", f"{count_flops(name, CLASSES, LENGTH, SIZE) / 1e9:.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    print(f"| {' | '.join(TITLES)} |")
    print("|" + "---|" * len(TITLES))
    for name in plain_names():
        print(table_row(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
