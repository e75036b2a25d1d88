"""A network's scores of whole videos: several views of each, whose probabilities are averaged; on several processes.

Follow a video: `view_loader`'s workers read its views (data/multiview.py), `score_videos` sends them through the network,
`evaluate` puts together what all processes have scored (train/evaluate/scores.py).
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data.datasets import SPECS
from data.label_files import find_label_folder, read_label_csv
from data.multiview import MultiViewDataset, view_loader
from data.video_iterator import BadSample, Batch
from data.video_list import VideoIndex, find_videos
from train.evaluate.scores import Scores
from train.inference import InferenceModel
from train.parallel.distributed import DistContext


class VideoScore(NamedTuple):
    """What one video scored: mean probabilities `(C,)`; how many views, how many right in the first and first five."""

    index: int
    probabilities: np.ndarray
    clips: tuple[int, int, int]


def open_videos(
    trained: InferenceModel, root: Path, labels: Path | None, split: str, max_missing: float | None = None
) -> VideoIndex:
    """The videos of a split, in the numbers of the network's classes, by the label files of the set it was trained on.

    `labels`: their folder, by default the one that training was given, if it was. `max_missing`: the share of them that
    may have no store, by default as in training. Raises as
    data.video_list.load_dataset, but needs no videos of the other split; ValueError for a class that the network does not
    know.
    """
    name = trained.dataset.get("name")
    if name not in SPECS:
        raise ValueError(f"{trained.path}: does not say which data set it was trained on")
    spec, options = SPECS[name], trained.options
    file_name = {"train": spec.train_csv, "val": spec.val_csv}[split].format(variant=options.variant)
    path = find_label_folder(root, file_name, labels or options.labels) / file_name
    rows = read_label_csv(path, spec.timed_ids)
    allowed = options.max_missing if max_missing is None else max_missing
    whose = f"that {trained.path} knows"
    return find_videos(root / "jpg", path, rows, trained.classes, allowed, whose)


def score_videos(trained: InferenceModel, videos: Iterable[Batch], batch_size: int) -> Iterator[VideoScore]:
    """What each video scores. `videos` are batches of one, as `view_loader` gives; at most `batch_size` views at once.

    ValueError where the network gives no numbers.
    """
    for group in _groups(videos, batch_size):
        views = torch.cat([video.clips[0] for video in group])
        probabilities = torch.cat([trained.logits(part).softmax(dim=1) for part in views.split(batch_size)])
        if not probabilities.isfinite().all():
            raise ValueError(
                f"{trained.path}: gives no numbers in {trained.precision}; --precision fp32 may help"
            )
        counts = [video.clips.shape[1] for video in group]
        for video, own in zip(group, probabilities.split(counts), strict=True):
            best = own.topk(min(5, own.shape[1]), dim=1).indices == video.labels.to(own.device)
            right = (len(own), int(best[:, 0].sum()), int(best.sum()))
            yield VideoScore(int(video.indices), own.mean(dim=0).cpu().numpy(), right)


def _groups(videos: Iterable[Batch], views: int) -> Iterator[list[Batch]]:
    """Videos, one after the other, so many at a time that they have at least so many views."""
    group: list[Batch] = []
    for video in videos:
        group.append(video)
        if sum(video.clips.shape[1] for video in group) >= views:
            yield group
            group = []
    if group:
        yield group


def evaluate(
    trained: InferenceModel,
    videos: VideoIndex,
    dist: DistContext,
    *,
    clips: int,
    crops: int,
    batch_size: int,
    workers: int,
    skip_bad_samples: bool,
) -> tuple[Scores, list[BadSample]]:
    """Scores of all videos, each looked at by one process, and what could not be read; all processes get the same.

    ValueError for a video that cannot be read, unless it may be skipped, and where mirrored views would be of another
    class.
    """
    options = trained.options
    if crops == 10 and not options.flip:
        raise ValueError(
            f"--crops 10: has mirrored views, but {trained.path} was trained with --flip False; 1 and 3 have none"
        )
    views = MultiViewDataset(
        videos, interval=options.val_frame_interval, clips=clips, crops=crops, short_side=options.short_side
    )
    loader = view_loader(
        views,
        range(dist.rank, len(videos), dist.size),
        length=options.clip_length,
        size=options.clip_size,
        workers=workers,
        processes=dist.local_size,
    )
    bad: list[BadSample] = []
    progress = tqdm(loader, unit="video", disable=None if dist.is_main_process else True)
    scored = list(score_videos(trained, _readable(progress, bad, skip_bad_samples), batch_size))
    scored, bad = sorted(dist.gather(scored), key=lambda score: score.index), dist.gather(bad)
    if not scored:
        raise ValueError(f"none of {len(videos)} videos could be read: {bad[0].reason}")
    indices = [score.index for score in scored]
    return Scores(
        classes=trained.classes,
        videos=tuple(os.fsdecode(videos.folders[index]) for index in indices),
        labels=videos.labels[indices],
        probabilities=np.stack([score.probabilities for score in scored]),
        views=f"{clips}x{crops}",
        clips=np.array([score.clips for score in scored]),
    ), bad


def _readable(videos: Iterable[Batch], bad: list[BadSample], skip_bad_samples: bool) -> Iterator[Batch]:
    """Without those that cannot be read, which are added to `bad`."""
    for video in videos:
        if video.bad and not skip_bad_samples:
            raise ValueError(f"{video.bad[0].reason}; --skip-bad-samples goes on without such videos")
        bad += video.bad
        if not video.bad:
            yield video
