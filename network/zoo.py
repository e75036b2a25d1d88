"""python -m network.zoo [NAME] [--dir DIR]

List the weights that the authors of the papers published, or fetch those of a network, and say whether they fit it.
Other commands take them as `zoo:NAME`.
"""

import sys  # PYTHON_ARGCOMPLETE_OK
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from data.common.cli import OneLineParser, choice, complete_by
from network.pretrained import find_weights, read_tensors_file
from network.published import WEIGHTS, address_of, fetch, sha256
from network.registry import create_network


def table() -> Iterator[str]:
    """Yield the lines of a table of all published weights."""
    yield f"{'name':<18}{'dataset':<9}{'frames':>6}{'size':>6}{'batch':>7}{'top-1':>8}{'top-5':>8}  address"
    for name, row in WEIGHTS.items():
        numbers = f"{row.clip_length:6}{row.clip_size:6}{row.batch_size:7}{row.top1:8.3f}{row.top5:8.3f}"
        yield f"{name:<18}{row.dataset:<9}{numbers}  {address_of(name)}"


def fits(shapes: Mapping[str, torch.Size], name: str, num_classes: int) -> bool:
    """Return whether the weights of a network have these names and shapes."""
    with torch.device("meta"):  # without memory
        network = create_network(name, num_classes)
    return shapes == {key: weight.shape for key, weight in network.state_dict().items()}


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m network.zoo", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    text = "network (default: list all)"
    complete_by(add("name", nargs="?", type=choice(*WEIGHTS), metavar="NAME", help=text), WEIGHTS)
    text = "folder for the file (default: $TORCH_HOME/hub/checkpoints, where zoo:NAME looks)"
    add("--dir", type=Path, metavar="DIR", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    name = arguments.name
    with parser.one_line_errors():
        if name is None:
            print("\n".join(table()))
            print("Accuracies are the authors'. None of these files has been tried with this code.")
            return 0
        path = fetch(name, arguments.dir)
        print(f"{path}\nSHA-256 {sha256(path)}")
        num_classes = WEIGHTS[name].num_classes
        weights = find_weights(read_tensors_file(path), path)
        shapes = {key: weight.shape for key, weight in weights.items()}
        if fits(shapes, name, num_classes):
            print(f"the weights of {name}, {num_classes} classes")
            return 0
        # the original's scripts built srtg_ networks without recursion
        names = dict.fromkeys((*WEIGHTS, *(name.removeprefix("srtg_") for name in WEIGHTS)))
        others = [other for other in names if other != name and fits(shapes, other, num_classes)]
        print(f"these are not the weights of {name}, but of {', '.join(others) or 'another network'}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
