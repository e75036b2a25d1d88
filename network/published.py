"""The weights that the papers' authors published, by name: `weights_path("zoo:srtg_r3d_101")` fetches a file once.

Files are kept in torch's cache, `$TORCH_HOME/hub/checkpoints`, each beside its SHA-256, which must never change.
"""

import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
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
    """What the authors' README says of a file: how the network was trained, its accuracies in percent, its address."""

    clip_size: int
    batch_size: int
    top1: float
    top5: float
    address: str
    clip_length: int = 16
    dataset: str = "hacs"
    num_classes: int = 200


WEIGHTS = {  # by network; two have the same address in the README, so one of them is wrong
    "srtg_r3d_34": PublishedWeights(264, 32, 78.599, 93.569, DRIVE + "151WUMcAsEIRxYNhipGhbczKKNB1AYA_2"),
    "srtg_r3d_50": PublishedWeights(264, 32, 80.362, 95.548, DRIVE + "17YUWmIy6MvrSv3JTsQLWIadxVgv9lGoc"),
    "srtg_r3d_101": PublishedWeights(264, 32, 81.659, 96.326, DRIVE + "1ZwfCcfdzkNUZtid-JvDZTd1mV8KkRJxN"),
    "srtg_r2plus1d_50": PublishedWeights(
        264, 32, 83.774, 96.560, DRIVE + "1CBL1bZ4_ayOvvqRFODOZC-CVjQ2LfM8H"
    ),
    "srtg_r2plus1d_101": PublishedWeights(
        264, 32, 84.326, 96.852, DRIVE + "1CBL1bZ4_ayOvvqRFODOZC-CVjQ2LfM8H"
    ),
    "mtnet_s": PublishedWeights(256, 64, 80.712, 95.182, DRIVE + "1wGXuiJPrhKg8N0SeP82gSnOwbP1HW8cL"),
    "mtnet_m": PublishedWeights(256, 64, 83.447, 95.872, DRIVE + "160_xtXnBRaiz-1qG9Wxwh1JjUzpe5wq8"),
    "mtnet_l": PublishedWeights(256, 64, 86.574, 96.658, DRIVE + "1uRXNVjpMWkfUTWFX4s4bl35QThysb5ut"),
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
    address = WEIGHTS[name].address
    if not (table := os.environ.get(ADDRESSES)):
        return address
    try:
        address = json.loads(Path(table).read_text("utf-8")).get(name, address)
        return address if "://" in address else (Path(table).parent / address).absolute().as_uri()
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
        (_download_from_drive if address.startswith(DRIVE) else _download)(address, part)
        _check(part, path)
        part.replace(path)
    except ValueError as error:
        part.unlink()  # the next try begins again
        raise ValueError(f"{address}: {str(error).removeprefix(f'{part}: ')}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        raise OSError(f"{address}: {reason}; try again, or download the file yourself to {path}") from None


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


def _download(address: str, part: Path) -> None:
    """Download a file, after the bytes that `part` has. Raise OSError for an incomplete one."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # is longer than the file, or all of it; the next try begins again
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        with part.open("ab" if start else "wb") as file:
            shutil.copyfileobj(response, file, 2**20)
    size, length = part.stat().st_size, response.headers["Content-Length"]
    if length and size < start + int(length):
        raise OSError(f"the connection ended after {size} of {start + int(length)} bytes")


def _download_from_drive(address: str, part: Path) -> None:
    """Download a file of Google Drive, after what an earlier call has left. Raise OSError for an incomplete one."""
    try:
        import gdown  # noqa: PLC0415  only for Google Drive

        gdown.download(address, str(part), resume=True, timeout=TIMEOUT)
    except ImportError:
        raise OSError("needs gdown: pip install gdown") from None
    except gdown.DownloadError as error:
        raise OSError(str(error)) from None
