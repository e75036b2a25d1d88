"""Files that hold no weights: a line that says what they are and what to do."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from network.file_kind import file_kind
from network.pretrained import read_tensors_file


def zip_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), text)
    return buffer.getvalue()


def tar_of(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"), io.BytesIO())
    return buffer.getvalue()


PAGE = "a web page, not a file of weights: open its address in a browser"
PACKED = "a packed archive, not a file of weights: unpack it first"
CASES = [
    (b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title>", PAGE),
    (b"\xef\xbb\xbf\r\n  <html lang=en>", PAGE),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', PAGE),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "a Git LFS pointer, not a file of weights: git lfs pull",
    ),
    (b"", "an empty file, not a file of weights: download it again"),
    (bytes(4000), "a file of zeros, not a file of weights: download it again"),
    (
        b'{"error": {"message": "quota exceeded"}}',
        'text, \'{"error": {"message": "quota exceeded"}}\', not a',
    ),
    (
        "Datei nicht gefunden: übergroß\n".encode(),
        "text, 'Datei nicht gefunden: übergroß', not a file of weights",
    ),
    (
        zip_of(a__b_txt="x", a__c_txt="y"),
        "a zip archive of 2 other files (a/b.txt, a/c.txt), not a file of weights",
    ),
    (zip_of(word__document_xml="x"), "a zip archive of 1 other files (word/document.xml)"),
    (tar_of("w"), PACKED),
    (tar_of("w:gz"), PACKED),
    (gzip.compress(b"x"), PACKED),
    (bz2.compress(b"x"), PACKED),
    (lzma.compress(b"x"), PACKED),
    (b"\0\0\0\x20ftypisom\0\0\2\0", "a video, not a file of weights"),
    (b"\x1aE\xdf\xa3\x01\0\0", "a video, not a file of weights"),
    (b"RIFF\x10\0\0\0AVI LIST", "a video, not a file of weights"),
    (b"\x89PNG\r\n\x1a\n", "a picture or a PDF, not a file of weights"),
    (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file, as Keras writes, not a file of weights"),
    (save({"a": torch.zeros(3)}), "a safetensors file by another name, not a file of weights: rename it"),
]


@pytest.mark.parametrize(("content", "message"), CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_a_file_is(content: bytes, message: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    if name == "w.safetensors" and "safetensors" in message:
        assert read_tensors_file(path).keys() == {"a"}
        return
    with pytest.raises(ValueError, match=r"\A.*w\.\w+: this is ") as caught:
        read_tensors_file(path)
    assert f": this is {message}" in str(caught.value)
    assert str(caught.value).isprintable()


def test_damaged_weights_are_no_other_kind(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for zipped in (True, False):
        torch.save({"a": torch.randn(999)}, path, _use_new_zipfile_serialization=zipped)
        assert file_kind(path) is None
        path.write_bytes(path.read_bytes()[:2000])
        assert file_kind(path) is None
        with pytest.raises(ValueError, match=r"w\.pth: (is damaged|holds more)"):
            read_tensors_file(path)
