"""python tools/docs/filmstrip.py VIDEO... -o filmstrip.png [--frames 6] [--height 160]

Draw a figure with a row for each video: frames from its beginning to its end, from left to right.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

GAP = 6  # white pixels between frames


def make_row(path: Path, count: int, height: int) -> np.ndarray:
    """Return `count` frames of a video side by side, each `height` pixels high."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    if not frames:
        raise SystemExit(f"{path}: cannot be read")
    indices = np.linspace(0, len(frames) - 1, count + 2).round().astype(int)[1:-1]
    size = (round(height * frames[0].shape[1] / frames[0].shape[0]), height)
    resized = [cv2.resize(frames[i], size, interpolation=cv2.INTER_CUBIC) for i in indices]
    return np.concatenate([np.pad(f, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for f in resized], 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("-o", "--output", type=Path, default=Path("filmstrip.png"))
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--height", type=int, default=160)
    arguments = parser.parse_args(argv)
    rows = [make_row(path, arguments.frames, arguments.height) for path in arguments.videos]
    width = min(row.shape[1] for row in rows)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(arguments.output), np.concatenate([row[:, :width] for row in rows])[:-GAP, :-GAP]):
        raise SystemExit(f"{arguments.output}: cannot be written")
    print(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
