"""What a file from a stranger may ask of who reads it. Honest ones stay far below."""

import os

import simplejpeg

LONGEST_VALUE = 2**25  # bytes of a JPEG, or of its name
LARGEST_FRAME = 2**25  # pixels: 8K
LONGEST_SIDE = 32  # times the other one, as frames are scaled to a short side
MOST_SCANS = 64  # of a progressive JPEG, which has ten or so; each goes over the whole frame
START_OF_SCAN = b"\xff\xda"
LONGEST_MESSAGE = 1000  # characters


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Height and width of a frame. ValueError for what is no JPEG, or takes more than a frame may."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if height * width > LARGEST_FRAME or max(height, width) > LONGEST_SIDE * min(height, width):
        raise ValueError(
            f"it has {width} x {height} pixels, may have {LARGEST_FRAME}, one side up to {LONGEST_SIDE} times the other"
        )
    if jpeg.count(START_OF_SCAN) > MOST_SCANS:
        raise ValueError(f"it has more than {MOST_SCANS} scans")
    return height, width


def open_without_waiting(path: str, flags: int) -> int:
    """For `open(opener=...)`: a named pipe is empty, instead of keeping its reader waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def shown(text: object, longest: int = 200) -> str:
    """What a file holds or a user types, in a message: one line, not long, nothing that moves a terminal's cursor."""
    line = " ".join(str(text)[:longest].split())
    return "".join(character if character.isprintable() else "?" for character in line)
