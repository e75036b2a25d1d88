"""JPEGs that claim what they are not, or take for ever."""

import random
from functools import cache

import cv2
import numpy as np

from tests.fuzz.mutation import mutated

START_OF_FRAME = b"\xff\xc0"
SIDES = [0, 1, 2, 15, 8192, 65_500, 65_535]


def hostile_jpeg(jpeg: bytes, generator: random.Random) -> bytes:
    """A variant of `jpeg`."""
    return generator.choice([_other_size, _other_size, _changed, _changed, _truncated, _many_scans, _other])(
        jpeg, generator
    )


def _other_size(jpeg: bytes, generator: random.Random) -> bytes:
    """The header claims another height and width."""
    place = jpeg.index(START_OF_FRAME) + 5
    sides = generator.choice(
        [(65_535, 65_535), (generator.choice(SIDES), generator.choice(SIDES)), (1, 65_500)]
    )
    return jpeg[:place] + b"".join(side.to_bytes(2, "big") for side in sides) + jpeg[place + 4 :]


def _changed(jpeg: bytes, generator: random.Random) -> bytes:
    return mutated(jpeg, generator)


def _truncated(jpeg: bytes, generator: random.Random) -> bytes:
    return jpeg[: generator.randrange(len(jpeg))]


def _many_scans(jpeg: bytes, generator: random.Random) -> bytes:
    """Progressive, its last scan again and again: each goes over the whole picture."""
    progressive = _progressive(generator.choice([50, 50, 50, 5000]))
    last = progressive.rindex(b"\xff\xda")
    return progressive[:last] + progressive[last:-2] * generator.choice([10, 1000, 20_000]) + b"\xff\xd9"


@cache
def _progressive(side: int) -> bytes:
    picture = np.zeros((side, side, 3), np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


def _other(jpeg: bytes, generator: random.Random) -> bytes:
    """Grey, very long, or another format."""
    shape = generator.choice([(50, 50), (1, 3000, 3), (3000, 1, 3), (4, 60_000, 3), (1, 1, 3), (7, 9, 3)])
    picture = np.full(shape, 127, np.uint8)
    return cv2.imencode(generator.choice([".jpg", ".jpg", ".png", ".bmp"]), picture)[1].tobytes()
