"""Multi-view testing: score each video by the mean probabilities of several clips and crops, on one or more ranks.

`view_loader` reads the views of a video (data/multiview.py), `score_videos` runs the network on them, `evaluate`
gathers the scores of all ranks (train/scores.py).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from data.clip_batch import BadSample, Batch
from data.datasets import SPECS
from data.label_files import AnnotationSet, clean, find_label_folder, read_splits
from data.multiview import MultiViewDataset, view_loader
from data.video_list import VideoIndex, find_videos
from train.inference import InferenceModel
from train.parallel.distributed import DistContext
from train.scores import Scores


class VideoScore(NamedTuple):
    """Mean probabilities `(C,)` of a video, by index, and its number of views, top-1 and top-5 correct ones."""

    video: int
    probabilities: np.ndarray
    clip_counts: tuple[int, int, int]


def load_split(
    model: InferenceModel, root: Path, labels: Path | None, split: str, max_missing: float | str | None
) -> VideoIndex:
    """Return the videos of a split, with class indices as the model has them.

    If None, the folder of the label files and the fraction of videos that may be missing are those of training. Raise
    ValueError for a class that the model does not have, and as data.video_list.load_dataset.
    """
    name = model.dataset.get("name")
    if name not in SPECS:
        raise ValueError(f"{model.path}: the checkpoint does not name its dataset")
    spec, options = SPECS[name], model.options
    file_name = AnnotationSet(spec, options.variant, root).paths()[split].name
    folder = find_label_folder(root, file_name, labels or options.labels)
    paths = AnnotationSet(spec, options.variant, folder).paths()
    files = [path for path in (paths["train"], paths["val"]) if path.is_file()]  # both, to compare them
    rows = read_splits(dict.fromkeys(files, spec.timed_ids))[paths[split]]
    allowed = options.max_missing if max_missing is None else max_missing
    whose = f"classes of {model.path}"
    return find_videos(root / "jpg", paths[split], rows, model.classes, allowed, whose)


def score_videos(model: InferenceModel, videos: Sequence[Batch], batch_size: int) -> list[VideoScore]:
    """Return the scores of videos, running the network on up to `batch_size` of all their views at a time.

    `videos`: batches of one, chunks of `view_loader`. Raise ValueError if probabilities are NaN or Inf.
    """
    views = torch.cat([video.clips[0] for video in videos])
    probabilities = torch.cat([model.logits(batch).softmax(dim=1) for batch in views.split(batch_size)])
    if not probabilities.isfinite().all():
        raise ValueError(
            f"{model.path}: probabilities contain NaN or Inf in {model.precision}; try --precision fp32"
        )
    scores = []
    for video, own in zip(videos, probabilities.split([len(v.clips[0]) for v in videos]), strict=True):
        correct = own.topk(min(5, len(model.classes)), dim=1).indices == video.labels.to(own.device)
        clip_counts = (len(own), int(correct[:, 0].sum()), int(correct.sum()))
        scores.append(VideoScore(int(video.indices), own.mean(dim=0).cpu().numpy(), clip_counts))
    return scores


def evaluate(
    model: InferenceModel,
    videos: VideoIndex,
    dist: DistContext,
    *,
    clips: int,
    crops: int,
    batch_size: int,
    workers: int,
    skip_bad_samples: bool,
) -> tuple[Scores, list[BadSample]]:
    """Return the scores of all videos and the corrupt ones, the same on all ranks; a rank scores its shard of them.

    Raise ValueError for a corrupt video unless `skip_bad_samples`, and for 10 crops, half of them flipped, of a
    model trained without flips.
    """
    options = model.options
    if crops == 10 and not options.flip:
        raise ValueError(
            f"--crops 10: includes flipped crops, but {model.path} was trained with --flip False"
        )
    dataset = MultiViewDataset(
        videos, interval=options.val_frame_interval, target_fps=options.target_fps, clips=clips, crops=crops
    )
    shard = range(dist.rank, len(videos), dist.world_size)
    loader = view_loader(
        dataset,
        shard,
        length=options.clip_length,
        size=options.clip_size,
        workers=workers,
        local_world_size=dist.local_world_size,
    )
    scored: list[VideoScore] = []
    bad: list[BadSample] = []
    group: list[Batch] = []  # videos with fewer than `batch_size` views
    disable = None if dist.is_main_process else True
    for (video,) in tqdm(loader, total=len(shard), unit="video", disable=disable):
        if video.bad and not skip_bad_samples:
            raise ValueError(f"{video.bad[0].reason}; use --skip-bad-samples to skip corrupt videos")
        if video.bad:
            bad += video.bad
        else:
            group.append(video)
        if sum(len(v.clips[0]) for v in group) >= batch_size:
            scored += score_videos(model, group, batch_size)
            group = []
    if group:
        scored += score_videos(model, group, batch_size)
    scored, bad = sorted(dist.all_gather(scored), key=lambda score: score.video), dist.all_gather(bad)
    if not scored:
        raise ValueError(f"all {len(videos)} videos are corrupt: {bad[0].reason}")
    indices = [score.video for score in scored]
    scores = Scores(
        classes=model.classes,
        videos=tuple(clean(os.fsdecode(videos.folders[index])) for index in indices),
        labels=videos.labels[indices],
        probabilities=np.stack([score.probabilities for score in scored]),
        views=f"{clips}x{crops}",
        clip_counts=np.array([score.clip_counts for score in scored]),
    )
    return scores, bad
