"""python -m train.predict CHECKPOINT VIDEO... [--top 5] [--json FILE] [--overlay OUT.mp4] [--gradcam OUT.mp4]

Predict the class of videos: files, frame stores, or folders of them, of any length and resolution. A window as long
as a validation clip slides over each video; the probabilities of the video are the mean over its windows.

`--overlay` draws the prediction of each window onto the video, `--gradcam` a heat map of what supports the predicted
class (Grad-CAM), each frame at its own time. A damaged file is predicted up to the first frame that cannot be decoded.
"""

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coloredlogs
import numpy as np
import torch

from data.common.atomic_io import atomic_write, save_arrays
from data.common.cli import OneLineParser, not_negative, output_file, positive
from data.ffmpeg.decoding import VideoStreamError
from data.ffmpeg.encoding import video_writer
from data.ffmpeg.video_files import Video, open_videos
from data.frame_store import FrameStoreError
from data.video_sampler import clip_span
from train.inference import load_inference_model
from train.options import DEFAULT_PRECISION, PRECISIONS
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext
from train.predict.overlay import draw_gradcam, draw_predictions
from train.predict.predictor import ClassScore, Prediction, VideoPredictor, topk_classes

logger = logging.getLogger(__name__)

BAR_LENGTH = 20  # characters for a probability of 1
Result = tuple[Video, Prediction]


def output_paths(target: Path | None, videos: Sequence[Video]) -> Sequence[Path | None]:
    """Return the output path of each video: `target` itself if it is an .mp4, else `<video>.mp4` in that folder.

    If names are not unique, the name of the video's folder is prepended. Raise ValueError for several videos into one
    file, and if an input would be overwritten.
    """
    if target is None:
        return [None] * len(videos)
    if len(videos) == 1 and target.suffix.lower() == ".mp4":
        paths = [target]
    elif target.suffix and not target.is_dir():
        raise ValueError(f"{target}: must be an .mp4 file, for a single video, or a folder")
    else:
        names = [video.path.stem for video in videos]
        if len(set(names)) < len(names):
            names = [f"{video.path.parent.name}_{video.path.stem}" for video in videos]
        paths = [target / f"{name}.mp4" for name in names]
    inputs = {video.path.resolve() for video in videos}
    for path in paths:
        if path.resolve() in inputs:
            raise ValueError(f"{path}: would overwrite an input video")
    return paths


def write_video(video: Video, path: Path, draw: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """Write `draw(index, frame)` of each frame of a predicted video, at the frame's own time."""
    times = video.times  # of the prediction's iteration; the next may replace them
    frames = video.frames()
    first = next(frames)
    height, width = first.shape[:2]
    with video_writer(path, height, width) as writer:
        for index, (frame, seconds) in enumerate(zip(itertools.chain([first], frames), times, strict=False)):
            writer.write(draw(index, frame), seconds)


def write_overlay(video: Video, prediction: Prediction, classes: Sequence[str], k: int, path: Path) -> None:
    """Write the video with the top k classes of the window around each frame."""

    def draw(index: int, frame: np.ndarray) -> np.ndarray:
        return draw_predictions(frame, topk_classes(prediction.at(index), classes, k))

    write_video(video, path, draw)


def write_gradcam(predictor: VideoPredictor, video: Video, prediction: Prediction, path: Path) -> None:
    """Write the video with the Grad-CAM heat map of its most probable class."""
    model = predictor.model
    class_index = int(prediction.video_probabilities().argmax())
    label = model.classes[class_index]
    tube = predictor.gradcam(video, class_index)
    crop_scale = model.options.clip_size / model.short_side

    def draw(index: int, frame: np.ndarray) -> np.ndarray:
        score = ClassScore(label, float(prediction.at(index)[class_index]))
        return draw_predictions(draw_gradcam(frame, tube.at(index), crop_scale), [score])

    write_video(video, path, draw)


def prediction_text(video: Video, prediction: Prediction, classes: Sequence[str], k: int) -> str:
    """Return a line for the video, and a line with a bar for each of its top k classes."""
    scores = topk_classes(prediction.video_probabilities(), classes, k)
    count = len(prediction.frames)
    lines = [f"{video.path}: {prediction.num_frames} frames, {count} window{'s' if count > 1 else ''}"]
    width = max(len(score.label) for score in scores)
    for label, probability in scores:
        bar = "█" * round(BAR_LENGTH * probability)
        lines.append(f"  {label:<{width}}  {probability:.3f}  {bar}".rstrip())
    return "\n".join(lines)


def prediction_json(video: Video, prediction: Prediction, classes: Sequence[str], k: int) -> dict[str, Any]:
    """Return the prediction as JSON values. Frames are counted from 0."""

    def topk(probabilities: np.ndarray) -> list[dict[str, Any]]:
        scores = topk_classes(probabilities, classes, k)
        return [{"class": label, "probability": round(probability, 6)} for label, probability in scores]

    windows = zip(prediction.frames.tolist(), prediction.probabilities, strict=True)
    return {
        "video": str(video.path),
        "num_frames": prediction.num_frames,
        "decode_error": video.decode_error,
        "topk": topk(prediction.video_probabilities()),
        "windows": [
            {"first_frame": first, "last_frame": last, "topk": topk(probabilities)}
            for (first, last), probabilities in windows
        ],
    }


def save_features(path: Path, classes: Sequence[str], results: Sequence[Result]) -> None:
    """Write an `.npz` with `features`, `probabilities`, `frames` (first, last), `videos` per window, and `classes`."""
    names = ("features", "probabilities", "frames")
    arrays = {
        name: np.concatenate([getattr(prediction, name) for _, prediction in results]) for name in names
    }
    videos = [str(video.path) for video, prediction in results for _ in prediction.frames]
    save_arrays(path, **arrays, videos=np.array(videos), classes=np.array(classes))


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m train.predict", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint of a training run")
    add("videos", type=Path, nargs="+", metavar="VIDEO", help="file, frame store, or folder of them")
    add("--top", type=positive, default=5, metavar="K", help="number of classes to show (default: 5)")
    text = "write the predictions of all windows; -: to standard output"
    add("--json", type=lambda value: value if value == "-" else output_file(value), metavar="FILE", help=text)
    text = "write the video with predictions; a folder for several videos"
    add("--overlay", type=Path, metavar="MP4", help=text)
    text = "write the video with Grad-CAM heat maps; a folder for several videos"
    add("--gradcam", type=Path, metavar="MP4", help=text)
    add("--features", type=output_file, metavar="NPZ", help="write the pooled features of all windows")
    text = "frames, at --target-fps if trained with it, between window starts (default: a window's length)"
    add("--stride", type=positive, metavar="N", help=text)
    add("--batch-size", type=positive, default=4, metavar="N", help="windows per batch (default: 4)")
    add("--precision", choices=PRECISIONS, help=f"of the network (default: {DEFAULT_PRECISION})")
    add("--gpus", type=not_negative, metavar="N", help="0: use the CPU (default: 1 if there is a GPU)")
    return parser


def predict_all(arguments: argparse.Namespace, device: torch.device, videos: Sequence[Video]) -> int:
    """Predict, print and draw one video after another; return the number of corrupt ones.

    The files of `--json` and `--features` are written at the end, also after an error.
    """
    overlays, heatmaps = (output_paths(target, videos) for target in (arguments.overlay, arguments.gradcam))
    model = load_inference_model(arguments.checkpoint, device, arguments.precision)
    classes, top = model.classes, arguments.top
    span = clip_span(model.options.clip_length, model.options.val_frame_interval)
    predictor = VideoPredictor(model, arguments.stride or span, arguments.batch_size)
    results: list[Result] = []
    try:
        for video, overlay, heatmap in zip(videos, overlays, heatmaps, strict=True):
            try:
                prediction = predictor.predict(video)
            except (VideoStreamError, FrameStoreError) as error:
                logger.error("%s", error)
                continue
            results.append((video, prediction))
            if video.decode_error:
                logger.warning("%s: decoding stopped early: %s", video.path, video.decode_error)
            if overlay is not None:
                write_overlay(video, prediction, classes, top, overlay)
            if heatmap is not None:
                write_gradcam(predictor, video, prediction, heatmap)
            if arguments.json != "-":
                print(prediction_text(video, prediction, classes, top))
    finally:
        text = json.dumps([prediction_json(*result, classes, top) for result in results], indent=1)
        if arguments.json == "-":
            print(text)
        elif arguments.json:
            atomic_write(arguments.json, text + "\n")
        if arguments.features and results:
            save_features(arguments.features, classes, results)
    return len(videos) - len(results)


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    if arguments.overlay and arguments.overlay == arguments.gradcam:
        parser.error(f"{arguments.overlay}: --overlay and --gradcam must differ")
    with parser.one_line_errors():
        device, _ = choose_device(arguments.gpus, DistContext())
        with oom_as(OSError, f"{device}: out of memory; try a lower --batch-size"):
            num_corrupt = predict_all(arguments, device, open_videos(arguments.videos))
    return 1 if num_corrupt else 0


if __name__ == "__main__":
    sys.exit(main())
