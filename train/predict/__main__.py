"""python -m train.predict CHECKPOINT VIDEO... [--top 5] [--json FILE] [--csv FILE] [--events 0.6] [--srt OUT.srt] ...

Predict the class of videos: files, frame stores, or folders of them, of any length and resolution; a camera (0), the
address of a stream, or standard input (-). A window as long as a validation clip slides over each; the probabilities
of a video are the mean over its windows.

`--overlay` draws the prediction of each window onto the video, `--gradcam` a heat map of what supports the predicted
class (Grad-CAM), each frame at its own time. A damaged file is predicted up to the first frame that cannot be decoded.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import coloredlogs
import numpy as np
import torch

from data.common.atomic_io import atomic_write, save_arrays
from data.common.cli import OneLineParser, not_negative, output_file, positive
from data.ffmpeg.decoding import VideoStreamError
from data.ffmpeg.encoding import video_writer
from data.ffmpeg.video_files import LiveVideo, Video, open_videos
from data.frame_store import FrameStoreError
from data.video_sampler import clip_span
from train.inference import WeightsInfo, add_weights_flags, load_inference_model
from train.options import DEFAULT_PRECISION, PRECISIONS, fraction
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext
from train.predict.events import CSV_HEADER, VideoLog, open_text, span_text
from train.predict.overlay import draw_gradcam, draw_predictions
from train.predict.predictor import ClassScore, Prediction, VideoPredictor, topk_classes
from train.predict.sliding_window import resample

logger = logging.getLogger(__name__)

BAR_LENGTH = 20  # characters for a probability of 1
Result = tuple[Video, Prediction, VideoLog]


def output_paths(target: Path | None, videos: Sequence[Video], suffix: str) -> Sequence[Path | None]:
    """Return the output path of each video: `target` itself if it has the suffix, else `<video><suffix>` in it.

    If names are not unique, the name of the video's folder is prepended. Raise ValueError for several videos into one
    file, and if an input would be overwritten.
    """
    if target is None:
        return [None] * len(videos)
    sources = [Path(video.name) for video in videos]
    if len(videos) == 1 and target.suffix.lower() == suffix:
        paths = [target]
    elif target.suffix and not target.is_dir():
        raise ValueError(f"{target}: must be an {suffix} file, for a single video, or a folder")
    else:
        names = [source.stem for source in sources]
        if len(set(names)) < len(names):
            names = [f"{source.parent.name}_{source.stem}" for source in sources]
        paths = [target / f"{name}{suffix}" for name in names]
    if len(set(paths)) < len(set(sources)):
        same = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{same}: would be written for several videos; predict their folders one by one")
    inputs = {source.resolve() for source in sources}
    for path in paths:
        if path.resolve() in inputs:
            raise ValueError(f"{path}: would overwrite an input video")
    return paths


def write_video(video: Video, path: Path, draw: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """Write `draw(index, frame)` of each frame of a predicted video, at the frame's own time."""
    with ExitStack() as stack:
        writer = None
        for number, seconds, frame in resample(video.frames()):
            writer = writer or stack.enter_context(video_writer(path, *frame.shape[:2]))
            writer.write(draw(number, frame), seconds)


def write_overlay(video: Video, prediction: Prediction, classes: Sequence[str], k: int, path: Path) -> None:
    """Write the video with the top k classes of the window around each frame."""

    def draw(index: int, frame: np.ndarray) -> np.ndarray:
        return draw_predictions(frame, topk_classes(prediction.at(index), classes, k))

    write_video(video, path, draw)


def write_gradcam(predictor: VideoPredictor, video: Video, prediction: Prediction, path: Path) -> None:
    """Write the video with the Grad-CAM heat map of its most probable class."""
    model = predictor.model
    class_index = int(prediction.mean.argmax())
    label = model.classes[class_index]
    tube = predictor.gradcam(video, class_index)
    crop_scale = model.options.clip_size / model.short_side

    def draw(index: int, frame: np.ndarray) -> np.ndarray:
        score = ClassScore(label, float(prediction.at(index)[class_index]))
        return draw_predictions(draw_gradcam(frame, tube.at(index), crop_scale), [score])

    write_video(video, path, draw)


def prediction_text(video: Video, prediction: Prediction, log: VideoLog) -> str:
    """Return a line for the video, a line with a bar for each of its top k classes, and events not yet printed."""
    scores = topk_classes(prediction.mean, log.classes, log.top)
    count = prediction.num_windows
    lines = [f"{video.name}: {prediction.num_frames} frames, {count} window{'s' if count > 1 else ''}"]
    width = max(len(score.label) for score in scores)
    for label, probability in scores:
        bar = "█" * round(BAR_LENGTH * probability)
        lines.append(f"  {label:<{width}}  {probability:.3f}  {bar}".rstrip())
    if log.threshold is not None and not isinstance(video, LiveVideo):
        lines += [f"  {span_text(*event)}" for event in log.events]
    return "\n".join(lines)


def prediction_json(video: Video, prediction: Prediction, log: VideoLog) -> dict[str, Any]:
    """Return the prediction as JSON values. Frames are counted from 0, `start` and `end` are seconds."""

    def score_json(score: ClassScore) -> dict[str, Any]:
        return {"class": score.label, "probability": round(score.probability, 6)}

    def topk(probabilities: np.ndarray) -> list[dict[str, Any]]:
        return [score_json(score) for score in topk_classes(probabilities, log.classes, log.top)]

    keys = ("first_frame", "last_frame", "start", "end", "topk")
    seconds = prediction.seconds.round(3).tolist()
    windows = zip(prediction.frames.tolist(), seconds, prediction.probabilities, strict=True)
    entry = {
        "video": video.name,
        "num_frames": prediction.num_frames,
        "decode_error": video.decode_error,
        "topk": topk(prediction.mean),
        "windows": [
            dict(zip(keys, (*first, *start, topk(row)), strict=True)) for first, start, row in windows
        ],
    }
    if log.threshold is not None:
        entry["events"] = [
            {"start": round(start, 3), "end": round(end, 3)} | score_json(score)
            for start, end, score in log.events
        ]
    return entry


def save_features(path: Path, classes: Sequence[str], results: Sequence[Result]) -> None:
    """Write an `.npz` with `features`, `probabilities`, `frames` (first, last), `videos` per window, and `classes`."""
    names = ("features", "probabilities", "frames")
    arrays = {
        name: np.concatenate([getattr(prediction, name) for _, prediction, _ in results]) for name in names
    }
    videos = [video.name for video, prediction, _ in results for _ in prediction.frames]
    save_arrays(path, **arrays, videos=np.array(videos), classes=np.array(classes))


def output_file_or_stdout(text: str) -> Path | str:
    """Parse the path of a file to write, or `-`."""
    return text if text == "-" else output_file(text)


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m train.predict", description=__doc__.split("\n\n")[1])
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="checkpoint, weights or zoo:NAME")
    text = "file, frame store, or folder of them; camera (0), address of a stream, or -: standard input"
    add("videos", nargs="+", metavar="VIDEO", help=text)
    add("--top", type=positive, default=5, metavar="K", help="number of classes to show (default: 5)")
    text = "write the predictions of all windows; -: to standard output"
    add("--json", type=output_file_or_stdout, metavar="FILE", help=text)
    text = "write the classes of all windows and videos as a table, row by row; -: to standard output"
    add("--csv", type=output_file_or_stdout, metavar="FILE", help=text)
    text = "find events: consecutive windows of one class with at least this probability"
    add("--events", type=fraction, metavar="P", help=text)
    text = "write events as subtitles (default of --events: 0); a folder for several videos"
    add("--srt", type=Path, metavar="SRT", help=text)
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
    add_weights_flags(parser)
    return parser


def predict_all(arguments: argparse.Namespace, device: torch.device, videos: Sequence[Video]) -> int:
    """Predict, print and draw one video after another; return the number of corrupt ones.

    The files of `--json` and `--features` are written at the end, also after an error.
    """
    drawn = arguments.overlay or arguments.gradcam
    if drawn and any(isinstance(video, LiveVideo) for video in videos):
        raise ValueError("--overlay and --gradcam read a video twice: record live video first")
    targets = ((arguments.overlay, ".mp4"), (arguments.gradcam, ".mp4"), (arguments.srt, ".srt"))
    outputs = zip(*(output_paths(target, videos, suffix) for target, suffix in targets), strict=True)
    info = WeightsInfo.from_arguments(arguments)
    model = load_inference_model(arguments.checkpoint, device, arguments.precision, info)
    classes, top = model.classes, arguments.top
    span = clip_span(model.options.clip_length, model.options.val_frame_interval)
    predictor = VideoPredictor(model, arguments.stride or span, arguments.batch_size)
    quiet = "-" in (arguments.json, arguments.csv)
    keep = bool(drawn or arguments.json or arguments.features)
    results: list[Result] = []
    table = open_text(arguments.csv)
    table.write(CSV_HEADER)
    try:
        for video, (overlay, heatmap, srt) in zip(videos, outputs, strict=True):
            prints = isinstance(video, LiveVideo) and not quiet
            try:
                with open_text(srt) as subtitles:
                    log = VideoLog(video.name, classes, top, arguments.events, table, subtitles, prints)
                    prediction = predictor.predict(video, log.follow, keep_windows=keep)
                log.write("video", 0, prediction.seconds[-1, 1], *topk_classes(prediction.mean, classes, top))
            except (VideoStreamError, FrameStoreError) as error:
                logger.error("%s", error)
                continue
            results.append((video, prediction, log))
            if video.decode_error:
                logger.warning("%s: decoding stopped early: %s", video.name, video.decode_error)
            if overlay is not None:
                write_overlay(video, prediction, classes, top, overlay)
            if heatmap is not None:
                write_gradcam(predictor, video, prediction, heatmap)
            if not quiet:
                print(prediction_text(*results[-1]))
    finally:
        table.close()
        text = json.dumps([prediction_json(*result) for result in results], indent=1)
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
    if arguments.json == arguments.csv == "-":
        parser.error("only one of --json and --csv can be written to standard output")
    with parser.one_line_errors():
        device, _ = choose_device(arguments.gpus, DistContext())
        with oom_as(OSError, f"{device}: out of memory; try a lower --batch-size"):
            num_corrupt = predict_all(arguments, device, open_videos(arguments.videos))
    return 1 if num_corrupt else 0


if __name__ == "__main__":
    sys.exit(main())
