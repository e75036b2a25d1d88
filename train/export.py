"""python -m train.export CHECKPOINT -o model.onnx|model.pt2|model.safetensors

A trained network for use without this code: as ONNX, as a PyTorch program (torch.export), or its weights alone. The
first two take frames as they are decoded, uint8 `(batch, frames, height, width, 3)` in BGR, normalise them, and give
logits; the batch may be of any size. What was written is read again and compared with the network before it is there.
"""

import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.common.cli import OneLineParser
from network import create_network
from network.pretrained import load_weights, write_safetensors
from train.inference import InferenceModel, load_inference_model
from train.options import network_kwargs

BATCHES = (1, 2, 5)  # that are compared; the one that is exported with is another
EXPORTED_BATCH = 3
TOLERANCE = 1e-4  # of the largest logit, or of 1 if that is larger
NOTES_FILE = "metadata.json"  # within a .pt2

Notes = Mapping[str, str]
Ask = Callable[[Tensor], Tensor]


class Program(nn.Module):
    """A network and what its clips go through before it: uint8 `(B, T, H, W, 3)`, BGR -> logits `(B, classes)`."""

    def __init__(self, trained: InferenceModel) -> None:
        super().__init__()
        self.network = trained.network
        self.normalization = trained.normalization

    def forward(self, clips: Tensor) -> Tensor:
        return self.network(self.normalization(clips))


def example_clips(trained: InferenceModel, batch: int) -> Tensor:
    """Random ones, uint8 `(batch, T, H, W, 3)`, as long and large as the network was trained with."""
    length, size = trained.options.clip_length, trained.options.clip_size
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, length, size, size, 3), dtype=torch.uint8, generator=generator)


def notes_of(trained: InferenceModel, clips: str) -> dict[str, str]:
    """What a file says about itself: text, or JSON where it is more than a word. `clips`: what it takes."""
    options = trained.options
    return {
        "network": options.network,
        "network_options": json.dumps(network_kwargs(options)),
        "classes": json.dumps(trained.classes),
        "input": clips,
        "output": "logits, float32 (batch, classes): before softmax",
        "normalization": json.dumps(trained.normalization.plain()),
        "clip_length": str(options.clip_length),
        "frame_interval": str(options.val_frame_interval),
        "clip_size": str(options.clip_size),
        "short_side": str(max(options.short_side, options.clip_size)),  # as training scales
        "epoch": str(trained.epoch),
        "torch": torch.__version__,
    }


class Format(NamedTuple):
    """`write` makes a file of a network, and `read` a function of that file that gives logits for uint8 clips.

    `takes`: the input, in words. `packages`: what is needed besides torch.
    """

    takes: str
    packages: Sequence[str]
    write: Callable[[InferenceModel, Path, Notes], None]
    read: Callable[[InferenceModel, Path], Ask]


DECODED = "clips, uint8 (batch, frames, height, width, 3): BGR, as OpenCV decodes; they are normalised inside"
NORMALISED = (
    "float32 (batch, 3, frames, height, width): value / 255, less the mean, by the deviation of its channel; "
    "channels in the order that the normalization says"
)


def _trace(trained: InferenceModel) -> torch.export.ExportedProgram:
    """As PyTorch's exporter sees it: with batches of any size, and clips of the size it was trained with."""
    program, clips = Program(trained).eval(), example_clips(trained, EXPORTED_BATCH)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The tensor attributes .*_flat_weights"
        )  # of recurrent cells: as they were
        program(clips)  # makes the constants of normalization, which must not be made while tracing
        batch = torch.export.Dim("batch", min=1, max=2**16)
        return torch.export.export(program, (clips,), dynamic_shapes={"clips": {0: batch}})


def write_program(trained: InferenceModel, path: Path, notes: Notes) -> None:
    torch.export.save(_trace(trained), path, extra_files={NOTES_FILE: json.dumps(notes, indent=1)})


def read_program(_: InferenceModel, path: Path) -> Ask:
    return torch.export.load(path).module()


def write_onnx(trained: InferenceModel, path: Path, notes: Notes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own exporter about itself
        program = torch.onnx.export(
            _trace(trained), input_names=["clips"], output_names=["logits"], verbose=False
        )
    program.model.metadata_props.update(notes)
    program.save(path, external_data=False)


def read_onnx(_: InferenceModel, path: Path) -> Ask:
    from onnxruntime import InferenceSession  # noqa: PLC0415  only for who exports ONNX

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(["logits"], {"clips": clips.numpy()})[0])


def write_weights(trained: InferenceModel, path: Path, notes: Notes) -> None:
    write_safetensors(trained.network, path, notes)


def read_weights(trained: InferenceModel, path: Path) -> Ask:
    options = trained.options
    network = create_network(options.network, len(trained.classes), **network_kwargs(options)).eval()
    load_weights(network, path, layout="own")
    return lambda clips: network(trained.prepare(clips))


FORMATS = {
    ".onnx": Format(DECODED, ("onnx", "onnxscript", "onnxruntime"), write_onnx, read_onnx),
    ".pt2": Format(DECODED, (), write_program, read_program),
    ".safetensors": Format(NORMALISED, ("safetensors",), write_weights, read_weights),
}


def format_of(path: Path) -> Format:
    """By a file's ending; ValueError for an unknown one, or where a package is missing."""
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: must end with one of {', '.join(FORMATS)}")
    chosen = FORMATS[path.suffix]
    missing = [name for name in chosen.packages if find_spec(name) is None]
    if missing:
        raise ValueError(f"{path}: needs the packages {' '.join(missing)}: pip install {' '.join(missing)}")
    return chosen


def export(trained: InferenceModel, path: Path) -> float:
    """Write a network, which is on the CPU, in the format of the file's ending; returns the largest difference found.

    The file is put into its place after it has been compared on random clips, in batches of sizes that the exporter has
    not seen. ValueError where it differs by more than TOLERANCE.
    """
    chosen = format_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        staging = Path(folder) / path.name
        chosen.write(trained, staging, notes_of(trained, chosen.takes))
        largest = largest_difference(trained, chosen.read(trained, staging))
        if not largest <= TOLERANCE:
            raise ValueError(f"{path}: not written, its logits differ from the network's by {largest:.2g}")
        staging.replace(path)
    return largest


@torch.no_grad()
def largest_difference(trained: InferenceModel, ask: Ask) -> float:
    """Between the network's logits and those asked for, over BATCHES of random clips; as a share of large logits."""
    differences = []
    for batch in BATCHES:
        clips = example_clips(trained, batch)
        expected = trained.logits(clips)
        scale = max(1.0, float(expected.abs().max()))
        differences.append(float((ask(clips) - expected).abs().max()) / scale)
    return max(differences)


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m train.export", description=__doc__.split("\n\n")[1])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="that training saved")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help=f"ending with {', '.join(FORMATS)}"
    )
    arguments = parser.parse_args(argv)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        format_of(arguments.output)
        trained = load_inference_model(arguments.checkpoint, torch.device("cpu"), "fp32")
        largest = export(trained, arguments.output)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    options = trained.options
    print(f"{arguments.output}: {options.network}, {len(trained.classes)} classes, ", end="")
    print(f"clips of {options.clip_length}x{options.clip_size}x{options.clip_size}, ", end="")
    print(f"{arguments.output.stat().st_size / 1e6:.1f} MB")
    sizes = ", ".join(map(str, BATCHES))
    print(f"agrees with the network on batches of {sizes} random clips: largest difference {largest:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
