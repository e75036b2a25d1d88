"""The weights that the papers' authors published, by name: `weights_path("zoo:srtg_r3d_101")` fetches a file once.

Files are kept in torch's cache, `$TORCH_HOME/hub/checkpoints`, each beside its SHA-256, which must never change.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock

from network.pretrained import read_tensors_file

PREFIX = "zoo:"
ADDRESSES = "ZOO_ADDRESSES"  # environment variable: a JSON file of other addresses, by name
TIMEOUT = 60  # seconds without a byte
DRIVE = "https://drive.google.com/uc?id="


class PublishedWeights(NamedTuple):
    """What the authors' README says of a file: its ID on Google Drive, how it was trained, accuracies in percent."""

    clip_size: int
    batch_size: int
    top1: float
    top5: float
    file_id: str
    clip_length: int = 16
    dataset: str = "hacs"
    num_classes: int = 200


WEIGHTS = {  # by network; two have the same ID in the README, so one of them is wrong
    "srtg_r3d_34": PublishedWeights(264, 32, 78.599, 93.569, "151WUMcAsEIRxYNhipGhbczKKNB1AYA_2"),
    "srtg_r3d_50": PublishedWeights(264, 32, 80.362, 95.548, "17YUWmIy6MvrSv3JTsQLWIadxVgv9lGoc"),
    "srtg_r3d_101": PublishedWeights(264, 32, 81.659, 96.326, "1ZwfCcfdzkNUZtid-JvDZTd1mV8KkRJxN"),
    "srtg_r2plus1d_50": PublishedWeights(264, 32, 83.774, 96.560, "1CBL1bZ4_ayOvvqRFODOZC-CVjQ2LfM8H"),
    "srtg_r2plus1d_101": PublishedWeights(264, 32, 84.326, 96.852, "1CBL1bZ4_ayOvvqRFODOZC-CVjQ2LfM8H"),
    "mtnet_s": PublishedWeights(256, 64, 80.712, 95.182, "1wGXuiJPrhKg8N0SeP82gSnOwbP1HW8cL"),
    "mtnet_m": PublishedWeights(256, 64, 83.447, 95.872, "160_xtXnBRaiz-1qG9Wxwh1JjUzpe5wq8"),
    "mtnet_l": PublishedWeights(256, 64, 86.574, 96.658, "1uRXNVjpMWkfUTWFX4s4bl35QThysb5ut"),
}


def published_name(path: Path) -> str | None:
    """Return NAME of `zoo:NAME`, None for the path of a file. Raise ValueError for an unknown name."""
    if not str(path).startswith(PREFIX):
        return None
    name = str(path).removeprefix(PREFIX)
    if name not in WEIGHTS:
        raise ValueError(f"{path}: no weights of this name are published; there are {', '.join(WEIGHTS)}")
    return name


def weights_path(path: Path) -> Path:
    """Return the path of a file of weights: of `zoo:NAME`, that of `fetch`."""
    name = published_name(path)
    return fetch(name) if name else path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def address_of(name: str) -> str:
    """Return the address of published weights, from the file that ZOO_ADDRESSES names, if that has it."""
    address = DRIVE + WEIGHTS[name].file_id
    if not (table := os.environ.get(ADDRESSES)):
        return address
    try:
        address = json.loads(Path(table).read_text("utf-8")).get(name, address)
        return address if "://" in address else str(Path(table).parent / address)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{table}, by {ADDRESSES}: not JSON of addresses by name: {error}") from None


def fetch(name: str, folder: Path | None = None) -> Path:
    """Return the path of published weights in a folder, by default torch's cache, fetched there unless it has them.

    What an interrupted download has left is continued. Raise OSError if they cannot be fetched, and ValueError for a
    file that holds no weights or has another SHA-256 than the one kept beside it.
    """
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / f"{name}_{WEIGHTS[name].dataset}.pth"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{path.name}.lock"):
            if not path.exists():  # another process had the lock and fetched it
                _fetch_to(path, address_of(name))
    _check(path, path)
    return path


def _fetch_to(path: Path, address: str) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        _download(address, part)
        _check(part, path)
        part.replace(path)
    except ValueError as error:
        part.unlink(missing_ok=True)  # the next try begins again; gdown refuses some addresses before
        raise ValueError(f"{address}: {str(error).removeprefix(f'{part}: ')}") from None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{address}: {reason}; try again, or download the file yourself to {path}") from None


def _download(address: str, part: Path) -> None:
    """Download a file after what an earlier call has left, or copy it. Raise OSError for an incomplete one."""
    if "://" not in address:
        shutil.copyfile(address, part)
        return
    try:
        import gdown  # noqa: PLC0415  optional

        gdown.download(address, str(part), resume=True, timeout=TIMEOUT)
    except ImportError:
        raise OSError("needs gdown: pip install gdown") from None
    except gdown.DownloadError as error:
        raise OSError(str(error)) from None


def _check(file: Path, path: Path) -> None:
    """Compare a file that is, or will be, at `path` with the SHA-256 kept there, or write that if it holds weights."""
    record = path.with_name(f"{path.name}.sha256")
    if not record.exists():
        read_tensors_file(file)
        temporary = record.with_name(f"{record.name}.part")
        temporary.write_text(f"{sha256(file)}  {path.name}\n")  # as sha256sum writes and checks it
        temporary.replace(record)
    elif (digest := sha256(file)) != (recorded := record.read_text().split(" ")[0]):
        raise ValueError(
            f"{file}: its SHA-256 is {digest}, not {recorded}, as {record} says; remove whichever is wrong"
        )
