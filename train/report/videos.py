"""The videos of a report: what each evaluation predicts for them, from the worst mistake on, and their clips."""

import base64
import io
import itertools
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from data.common.cpus import available_cpus
from data.frame_store import FrameStore, FrameStoreError, has_store
from data.video_list import other_spellings
from train.scores import Scores

logger = logging.getLogger(__name__)

FRAMES = 12  # of a clip, from the first to the last of the video
SHORT_SIDE = 112  # pixels
# method 4 makes files a tenth smaller than 2, but takes twice the time
WEBP: dict[str, Any] = {"save_all": True, "duration": 150, "loop": 0, "quality": 40, "method": 2}
TAG_BYTES = 100  # of the page around a clip
TOP = 3  # predictions shown
FIRST = 24  # mistakes and hits that are seen at once


class Prediction(NamedTuple):
    """What an evaluation says of a video: the most probable classes and the true one, with their probabilities."""

    result: int
    hit: bool
    classes: list[tuple[str, float, bool]]  # name, probability, whether it is the true one


@dataclass
class Video:
    """A video of class `label`.

    `margin`: the probability of its class less the highest of another, negative for a mistake; the lowest of all
    evaluations. `keys`: the cells of the page's tables that it is counted in. `clip`: a data URI, "" without one.
    """

    name: str
    label: str
    margin: float = math.inf
    predictions: list[Prediction] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    clip: str = ""

    @property
    def order(self) -> tuple[bool, float]:
        """Whether all evaluations are right, and the margin: to sort mistakes first, the worst at the beginning."""
        return all(prediction.hit for prediction in self.predictions), self.margin

    @property
    def pattern(self) -> str:
        """Which evaluations are right: `10` for the first of two."""
        return "".join(str(int(prediction.hit)) for prediction in self.predictions)


def cell_key(result: int, label: int, predicted: int) -> str:
    """Return the key of the cell of a confusion matrix."""
    return f"{result}:{label}-{predicted}"


def collect_videos(evaluations: Sequence[tuple[int, Scores]]) -> list[Video]:
    """Return the videos of evaluations, given with the numbers of their results, in their `order`."""
    videos: dict[str, Video] = {}
    for result, scores in evaluations:
        ranked = np.argsort(-scores.probabilities, axis=1, kind="stable")
        for number, (name, label) in enumerate(zip(scores.videos, scores.labels.tolist(), strict=True)):
            probabilities, best = scores.probabilities[number], ranked[number].tolist()
            video = videos.setdefault(name, Video(name, scores.classes[label]))
            shown = dict.fromkeys([*best[:TOP], label])
            top = [(scores.classes[index], float(probabilities[index]), index == label) for index in shown]
            video.predictions.append(Prediction(result, best[0] == label, top))
            other = next((index for index in best if index != label), label)  # itself if there is one class
            video.margin = min(video.margin, float(probabilities[label] - probabilities[other]))
            video.keys.append(cell_key(result, label, best[0]))
    for video in videos.values():
        if len(video.predictions) == len(evaluations):
            video.keys.append(video.pattern)
    return sorted(videos.values(), key=lambda video: video.order)


def by_priority(videos: Sequence[Video]) -> list[Video]:
    """Return what is seen at once, of mistakes and of hits, then the other videos, mistakes first."""
    galleries = [list(own) for _, own in itertools.groupby(videos, key=lambda video: video.order[0])]
    first = [video for own in galleries for video in own[:FIRST]]
    return first + [video for own in galleries for video in own[FIRST:]]


def encode_clip(folder: Path) -> str:
    """Return an animated WebP of a video as a data URI. Raise FrameStoreError if it cannot be read."""
    store = FrameStore(folder)
    with store.opened():
        count = min(FRAMES, store.n_frames)
        encoded = store.fetch(np.linspace(0, store.n_frames - 1, count).round().astype(int).tolist())
    scale = min(1.0, SHORT_SIDE / min(encoded.height, encoded.width))
    size = (round(scale * encoded.width), round(scale * encoded.height))
    frames = (frame for _, frame in encoded.decode_each(halved=scale <= 0.5, fast=True))
    resized = (cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames)
    first, *others = (Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)) for frame in resized)
    file = io.BytesIO()
    first.save(file, "WEBP", append_images=others, **WEBP)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def add_clips(videos: Sequence[Video], root: Path, limit: float) -> None:
    """Add clips to the first videos, as many as fit into `limit` bytes; log how many cannot be read."""
    folders = {video.name: root / video.name for video in videos}
    if not all(map(has_store, folders.values())):
        folders |= {name: root / other for name, other in other_spellings(root).items()}
    errors: list[str] = []

    def encode(video: Video) -> str:
        try:
            return encode_clip(folders[video.name])
        except FrameStoreError as error:
            errors.append(str(error))
            return ""

    with ThreadPoolExecutor(available_cpus()) as pool:
        clips = tqdm(pool.map(encode, videos), "clips", len(videos), leave=False, disable=None)
        for video, clip in zip(videos, clips, strict=True):
            limit -= len(clip) + TAG_BYTES
            if limit < 0:
                break
            video.clip = clip
        pool.shutdown(cancel_futures=True)
    if errors:
        logger.warning("videos without a clip: %d, such as %s", len(errors), min(errors))
