"""Say what a file is that holds no weights, from its first bytes: what a failed download leaves, for example."""

import re
import zipfile
from pathlib import Path

AGAIN = "download it again"
UNPACK = "unpack it first"
KINDS = (  # pattern of the first bytes, what the file is, and what to do
    (rb"\Z", "an empty file", AGAIN),
    (rb"\0+\Z", "a file of zeros", AGAIN),
    (rb"\s*<[!?\w]", "a web page", "open its address in a browser, and download the file there"),
    (rb"version https://git-lfs", "a Git LFS pointer", "git lfs pull fetches the file itself"),
    (rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar", "a packed archive", UNPACK),
    (rb".{4}(ftyp|moov|mdat|wide|free)|\x1aE\xdf\xa3|RIFF|OggS|FLV\1|\0\0\1\xba|G@[\0\x11]", "a video", ""),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|%PDF", "a picture or a PDF", ""),
    (rb"\x89HDF", "an HDF5 file, as Keras writes", ""),
    (rb'.{5}\0{3}\{\s*"', "a safetensors file by another name", "rename it to end with .safetensors"),
)


def file_kind(path: Path) -> str | None:
    """Return what a file is and what to do about it, None if it may be a damaged file of weights.

    Such as "this is a web page, not a file of weights: open its address in a browser, and download the file there".
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):  # of torch.save
            return None
        what, advice = f"a zip archive of {len(names)} other files ({', '.join(names[:3])})", UNPACK
    else:
        with path.open("rb") as file:
            start = file.read(512).removeprefix(b"\xef\xbb\xbf")  # the mark of UTF-8
        text = " ".join(start.decode(errors="ignore").split())
        is_text = text.isprintable() and len(text) > len(start) // 2
        other = (
            (f"text, {text[:60]!r}", AGAIN) if is_text else ("", "")
        )  # as of servers: {"error": "not found"}
        known = (kind for pattern, *kind in KINDS if re.match(pattern, start, re.DOTALL))
        what, advice = next(known, other)
    return f"this is {what}, not a file of weights{advice and f': {advice}'}" if what else None
