"""python -m train.export CHECKPOINT -o model.onnx|model.pt2|model.safetensors

Export a trained network to ONNX, to a PyTorch program (torch.export), or its weights to safetensors. ONNX and PyTorch
programs take decoded frames, uint8 `(batch, frames, height, width, 3)` in BGR, of any batch size, normalize them, and
return logits. The exported file is loaded again and compared with the network before it is saved.
"""

import json  # PYTHON_ARGCOMPLETE_OK
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data.common.cli import OneLineParser
from network import create_network
from network.pretrained import load_weights, write_safetensors
from train.inference import InferenceModel, WeightsInfo, add_weights_flags, load_inference_model
from train.options import network_kwargs

TEST_BATCHES = (1, 2, 5)  # the network is traced with another one
TOLERANCE = 1e-4  # relative to the largest logit, or to 1 if that is larger
METADATA_FILE = "metadata.json"  # in a .pt2

Metadata = Mapping[str, str]
LogitsFunction = Callable[[Tensor], Tensor]  # uint8 clips -> logits


class ExportModule(nn.Module):
    """A network with its normalization: clips, uint8 `(B, T, H, W, 3)`, BGR -> logits `(B, num_classes)`."""

    def __init__(self, model: InferenceModel) -> None:
        super().__init__()
        self.network = model.network
        self.normalization = model.normalization

    def forward(self, clips: Tensor) -> Tensor:
        return self.network(self.normalization(clips))


def example_clips(model: InferenceModel, batch: int) -> Tensor:
    """Return random clips, uint8 `(batch, T, H, W, 3)`, of the length and size that the network was trained with."""
    length, size = model.options.clip_length, model.options.clip_size
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, length, size, size, 3), dtype=torch.uint8, generator=generator)


def make_metadata(model: InferenceModel, input_description: str) -> dict[str, str]:
    """Return what an exported file records: strings, JSON for anything but a word or a number."""
    options = model.options
    return {
        "network": options.network,
        "network_options": json.dumps(network_kwargs(options)),
        "classes": json.dumps(model.classes),
        "input": input_description,
        "output": "logits, float32 (batch, classes): before softmax",
        "normalization": json.dumps(model.normalization.to_dict()),
        "clip_length": str(options.clip_length),
        "frame_interval": str(options.val_frame_interval),
        "target_fps": json.dumps(options.target_fps),
        "clip_size": str(options.clip_size),
        "short_side": str(model.short_side),
        "epoch": str(model.epoch),
        "torch": torch.__version__,
    }


def _export_program(model: InferenceModel) -> torch.export.ExportedProgram:
    """Trace the network for any batch size, at the clip length and size that it was trained with."""
    module, clips = ExportModule(model).eval(), example_clips(model, batch=3)
    with torch.no_grad():
        module(clips)  # caches the constants of normalization, which must not be created while tracing
        batch = torch.export.Dim("batch", min=1, max=2**16)
        return torch.export.export(module, (clips,), dynamic_shapes={"clips": {0: batch}})


def write_pt2(model: InferenceModel, path: Path, metadata: Metadata) -> None:
    extra_files = {METADATA_FILE: json.dumps(metadata, indent=1)}
    torch.export.save(_export_program(model), path, extra_files=extra_files)


def write_onnx(model: InferenceModel, path: Path, metadata: Metadata) -> None:
    program = _export_program(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in torch's own exporter
        exported = torch.onnx.export(program, input_names=["clips"], output_names=["logits"], verbose=False)
    assert exported is not None  # None only if torch writes the file
    exported.model.metadata_props.update(metadata)
    exported.save(path, external_data=False)


def read_onnx(_: InferenceModel, path: Path) -> LogitsFunction:
    from onnxruntime import InferenceSession  # noqa: PLC0415  only for ONNX

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(["logits"], {"clips": clips.numpy()})[0])


def read_safetensors(model: InferenceModel, path: Path) -> LogitsFunction:
    options = model.options
    network = create_network(options.network, len(model.classes), **network_kwargs(options)).eval()
    load_weights(network, path)
    return lambda clips: network(model.preprocess(clips))


class Exporter(NamedTuple):
    """`write` exports a model, `read` loads the file as a function; `input` describes its input in the metadata."""

    input: str
    write: Callable[[InferenceModel, Path, Metadata], None]
    read: Callable[[InferenceModel, Path], LogitsFunction]


DECODED = "clips, uint8 (batch, frames, height, width, 3): BGR, as decoded by OpenCV, not normalized"
NORMALIZED = "float32 (batch, 3, frames, height, width): (value / 255 - mean) / std of each channel"
EXPORTERS = {
    ".onnx": Exporter(DECODED, write_onnx, read_onnx),
    ".pt2": Exporter(DECODED, write_pt2, lambda _, path: torch.export.load(path).module()),
    ".safetensors": Exporter(
        NORMALIZED,
        lambda model, path, metadata: write_safetensors(model.network, path, metadata),
        read_safetensors,
    ),
}


def export(model: InferenceModel, path: Path) -> float:
    """Export a model on the CPU in the format of the path's suffix; return the largest difference of its logits.

    The file is saved if the difference is at most TOLERANCE. Raise ValueError if not, or for an unknown suffix.
    """
    if path.suffix not in EXPORTERS:
        raise ValueError(f"{path}: must end with one of {', '.join(EXPORTERS)}")
    exporter = EXPORTERS[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        staging = Path(folder) / path.name
        exporter.write(model, staging, make_metadata(model, exporter.input))
        difference = largest_difference(model, exporter.read(model, staging))
        if not difference <= TOLERANCE:  # also if it is NaN
            raise ValueError(f"{path}: not saved, logits differ from the network's by {difference:.2g}")
        staging.replace(path)
    return difference


@torch.no_grad()
def largest_difference(model: InferenceModel, exported: LogitsFunction) -> float:
    """Return the largest difference from the model's logits on random clips, relative to logits above 1."""
    differences = []
    for batch in TEST_BATCHES:
        clips = example_clips(model, batch)
        expected = model.logits(clips)
        scale = max(1.0, float(expected.abs().max()))
        differences.append(float((exported(clips) - expected).abs().max()) / scale)
    return max(differences)


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(prog="python -m train.export", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint, weights or zoo:NAME")
    text = f"file to write, by suffix: {', '.join(EXPORTERS)}"
    add("-o", "--output", type=Path, required=True, metavar="FILE", help=text)
    add_weights_flags(parser)
    arguments = parser.parse_args(argv)
    info = WeightsInfo.from_arguments(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with parser.one_line_errors(ImportError):
        model = load_inference_model(arguments.checkpoint, torch.device("cpu"), "fp32", info)
        difference = export(model, arguments.output)
    network, length, size = model.options.network, model.options.clip_length, model.options.clip_size
    megabytes = arguments.output.stat().st_size / 1e6
    shape = f"{len(model.classes)} classes, clips of {length}x{size}x{size}"
    print(f"{arguments.output}: {network}, {shape}, {megabytes:.1f} MB")
    batches = ", ".join(map(str, TEST_BATCHES))
    print(f"matches the network for batch sizes {batches}: largest difference of logits {difference:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
