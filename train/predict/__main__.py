"""python -m train.predict CHECKPOINT VIDEO... [--top 5] [--json FILE] [--overlay OUT.mp4] [--gradcam OUT.mp4]

What a trained network says about videos: files, frame stores, or folders of either, of any length and size. A window of
the clips that it was validated on slides over each; the video's probabilities are the mean of its windows'.

`--overlay` draws each window's answers onto the video, `--gradcam` where in space and time the network found what
speaks for its answer (Grad-CAM). A file that is damaged is watched as far as it decodes.
"""

import argparse
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import coloredlogs
import numpy as np

from data.common.atomic_io import atomic_write, save_arrays
from data.common.cli import OneLineParser, not_negative, output_file, positive
from data.ffmpeg import Video, VideoStreamError, find_videos, written_video
from data.frame_store import FrameStoreError
from data.video_sampler import clip_span
from train.inference import InferenceModel, load_inference_model
from train.options import PRECISIONS
from train.parallel.devices import choose_device, oom_as
from train.parallel.distributed import DistContext
from train.predict.overlay import draw_gradcam, draw_predictions
from train.predict.predictor import ClassScore, Prediction, VideoPredictor, topk_classes

logger = logging.getLogger(__name__)

BAR = 20  # letters of a probability of 1
OTHER_FORMATS = (
    ".avi",
    ".flv",
    ".gif",
    ".m4v",
    ".mkv",
    ".mov",
    ".mpeg",
    ".mpg",
    ".ts",
    ".webm",
    ".webp",
    ".wmv",
)
Watched = Sequence[tuple[Video, Prediction]]


def output_paths(target: Path | None, videos: Sequence[Video]) -> Sequence[Path | None]:
    """Where each video's drawing goes: `target`, an .mp4, for a single one; else `<its name>.mp4` in that folder.

    Where names are not enough, with its folder's name before it, and its ending after it.

    ValueError where `target` is not fit for that, two videos would go to one file, or one would be written over.
    """
    if target is None:
        return [None] * len(videos)
    paths = [target] if len(videos) == 1 and is_mp4(target) else _paths_in(target, videos)
    there = [path for path in paths if path.exists()]
    over = next((path for path in there if any(path.samefile(video.path) for video in videos)), None)
    if over is not None:
        raise ValueError(f"{over}: is one of the videos, which would be lost; draw to another place")
    return paths


def is_mp4(path: Path) -> bool:
    return path.suffix.lower() == ".mp4"


def _paths_in(target: Path, videos: Sequence[Video]) -> list[Path]:
    if is_mp4(target):
        raise ValueError(f"{target}: {len(videos)} videos need a folder, not one .mp4")
    if target.suffix.lower() in OTHER_FORMATS and not target.is_dir():
        raise ValueError(f"{target}: must end with .mp4, or be a folder")
    names = [
        [video.path.stem for video in videos],
        [f"{video.path.parent.name}_{video.path.stem}" for video in videos],
        [f"{video.path.parent.name}_{video.path.name}" for video in videos],
    ]
    chosen = next((each for each in names if len(set(each)) == len(each)), None)
    if chosen is None:
        twice = next(name for name in names[-1] if names[-1].count(name) > 1)
        raise ValueError(f"{target / twice}.mp4: two of the videos would go there, give them to two commands")
    return [target / f"{name}.mp4" for name in chosen]


def draw_video(video: Video, path: Path, draw: Callable[[int, np.ndarray], np.ndarray]) -> None:
    """The video again, of the same size, each frame, with its index, drawn upon."""
    frames = video.frames()
    first = next(frames)
    with written_video(path, *first.shape[:2], video.rate) as writer:
        writer.write(draw(0, first))
        for index, frame in enumerate(frames, start=1):
            writer.write(draw(index, frame))


def draw_overlay(watcher: VideoPredictor, video: Video, prediction: Prediction, path: Path, top: int) -> None:
    classes = watcher.trained.classes
    draw_video(
        video,
        path,
        lambda index, frame: draw_predictions(frame, topk_classes(prediction.at(index), classes, top)),
    )


def draw_attention_video(watcher: VideoPredictor, video: Video, prediction: Prediction, path: Path) -> None:
    """Where it found what speaks for the video's most probable class."""
    options = watcher.trained.options
    number = int(prediction.overall().argmax())
    label = watcher.trained.classes[number]
    tube = watcher.attention(video, number)
    seen = options.clip_size / max(options.short_side, options.clip_size)

    def draw(index: int, frame: np.ndarray) -> np.ndarray:
        answer = ClassScore(label, float(prediction.at(index)[number]))
        return draw_predictions(draw_gradcam(frame, tube.at(index), seen), [answer])

    draw_video(video, path, draw)


def as_text(video: Video, prediction: Prediction, classes: Sequence[str], top: int) -> str:
    """A line for the video, and one for each of its best classes, with a bar."""
    best = topk_classes(prediction.overall(), classes, top)
    count = len(prediction.frames)
    lines = [f"{video.path}: {prediction.n_frames} frames, {count} window{'s' if count > 1 else ''}"]
    width = max(len(answer.label) for answer in best)
    lines += [
        f"  {label:<{width}}  {share:.3f}  {'█' * round(BAR * share)}".rstrip() for label, share in best
    ]
    return "\n".join(lines)


def as_plain(video: Video, prediction: Prediction, classes: Sequence[str], top: int) -> dict[str, Any]:
    """For JSON. Frames are counted from 0."""

    def plain(probabilities: np.ndarray) -> list[dict[str, Any]]:
        best = topk_classes(probabilities, classes, top)
        return [{"class": label, "probability": round(share, 6)} for label, share in best]

    windows = zip(prediction.frames.tolist(), prediction.probabilities, strict=True)
    return {
        "video": str(video.path),
        "frames": prediction.n_frames,
        "complaint": video.complaint,
        "top": plain(prediction.overall()),
        "windows": [
            {"first": first, "last": last, "top": plain(shares)} for (first, last), shares in windows
        ],
    }


def save_features(path: Path, classes: Sequence[str], watched: Watched) -> None:
    """An `.npz` with a row a window: `features`, `probabilities`, `frames` (first, last), `videos`; and `classes`."""
    predictions = [prediction for _, prediction in watched]
    names = [str(video.path) for video, _ in watched]
    save_arrays(
        path,
        features=np.concatenate([prediction.features for prediction in predictions]),
        probabilities=np.concatenate([prediction.probabilities for prediction in predictions]),
        frames=np.concatenate([prediction.frames for prediction in predictions]),
        videos=np.repeat(names, [len(prediction.frames) for prediction in predictions]),
        classes=np.array(classes),
    )


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m train.predict", description=__doc__.split("\n\n")[1])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="what training saved")
    parser.add_argument(
        "videos", type=Path, nargs="+", metavar="VIDEO", help="a file, a frame store, or a folder of them"
    )
    parser.add_argument("--top", type=positive, default=5, help="classes to name (default: 5)")
    parser.add_argument(
        "--json",
        type=lambda text: text if text == "-" else output_file(text),
        metavar="FILE",
        help="each window's answers; -: to standard output instead",
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="MP4", help="the answers on the video; a folder for several"
    )
    parser.add_argument("--gradcam", type=Path, metavar="MP4", help="where it looked; a folder for several")
    parser.add_argument(
        "--features", type=output_file, metavar="NPZ", help="what the head sees, a row a window"
    )
    parser.add_argument(
        "--stride", type=positive, help="frames from window to window (default: one begins where one ends)"
    )
    parser.add_argument("--batch-size", type=positive, default=4, help="windows at a time (default: 4)")
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: fp16 on a GPU, fp32 on the CPU)")
    parser.add_argument("--gpus", type=not_negative, help="0 is the CPU (default: a GPU if there is one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    coloredlogs.install(level="INFO", fmt="%(levelname)s %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal has the letters of bars and names
        sys.stdout.reconfigure(errors="replace")
    watched: list[tuple[Video, Prediction]] = []
    try:
        videos = find_videos(arguments.videos)
        drawings = [output_paths(target, videos) for target in (arguments.overlay, arguments.attention)]
        pairs = ((one, other) for one, other in zip(*drawings, strict=True) if one and other)
        twice = next((one for one, other in pairs if one.resolve() == other.resolve()), None)
        if twice is not None:
            raise ValueError(f"{twice}: --overlay and --gradcam need a place each")
        device, _ = choose_device(arguments.gpus, DistContext())
        short = f"{device}: has too little memory left for the network; does something else run there?"
        with oom_as(OSError, short):
            trained = load_inference_model(arguments.checkpoint, device, arguments.precision)
        try:
            with oom_as(OSError, "out of memory; a lower --batch-size may help"):
                for done in _watch(arguments, trained, videos, *drawings):
                    watched.append(done)
        except BaseException:
            if watched:  # before the one at which it stopped
                _write_what_there_is(arguments, trained, watched)
            raise
        _write_tables(arguments, trained, watched)
    except KeyboardInterrupt:
        logger.error("stopped; what was not finished is not there")
        return 130
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0 if len(watched) == len(videos) else 1


def _watch(
    arguments: argparse.Namespace,
    trained: InferenceModel,
    videos: Sequence[Video],
    overlays: Sequence[Path | None],
    attentions: Sequence[Path | None],
) -> Iterator[tuple[Video, Prediction]]:
    """Watch, print and draw one after the other; those that cannot be read are logged."""
    span = clip_span(trained.options.clip_length, trained.options.val_frame_interval)
    watcher = VideoPredictor(trained, arguments.stride or span, arguments.batch_size)
    for video, overlay, attention in zip(videos, overlays, attentions, strict=True):
        try:
            prediction = watcher.predict(video)
        except (VideoStreamError, FrameStoreError) as error:
            logger.error("%s", error)
            continue
        if video.complaint:
            logger.warning("%s: watched as far as it decodes, %s", video.path, video.complaint)
        if arguments.json != "-":
            print(as_text(video, prediction, trained.classes, arguments.top))
        yield video, prediction
        if overlay is not None:
            draw_overlay(watcher, video, prediction, overlay, arguments.top)
        if attention is not None:
            draw_attention_video(watcher, video, prediction, attention)


def _write_what_there_is(arguments: argparse.Namespace, trained: InferenceModel, watched: Watched) -> None:
    """For who stops: an error of this is logged, as it is not why."""
    try:
        _write_tables(arguments, trained, watched)
    except (OSError, ValueError) as error:
        logger.error("%s", error)


def _write_tables(arguments: argparse.Namespace, trained: InferenceModel, watched: Watched) -> None:
    if arguments.json:
        rows = [as_plain(*pair, trained.classes, arguments.top) for pair in watched]
        to_terminal = arguments.json == "-"  # which may not have all letters
        text = json.dumps(rows, indent=1, ensure_ascii=to_terminal) + "\n"
        sys.stdout.write(text) if to_terminal else atomic_write(arguments.json, text)
    if arguments.features and watched:
        save_features(arguments.features, trained.classes, watched)


if __name__ == "__main__":
    sys.exit(main())
