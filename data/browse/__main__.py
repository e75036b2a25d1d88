"""python -m data.browse DATASET [-o clips.png] [--video clips.mp4] [--classes NAME...] [--clips 2]

Draw the first training clips of each class in an epoch, exactly as the network gets them, as a contact sheet and
optionally as a video. The sheet lists what was sampled: frames, crop, flip and augmentations. Flags that training also
has mean the same here; without --random-seed and --epoch these are the clips of a run's first epoch.
"""

import argparse  # PYTHON_ARGCOMPLETE_OK
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.batch_sampler import ClipSpec, clip_seed, epoch_order
from data.browse.contact_sheet import ShownClip, draw_sheet, draw_video
from data.clip_batch import collate
from data.common.cli import OneLineParser, Values, boolean, choice, frame_rate, not_negative, positive
from data.ffmpeg.video_files import DEFAULT_FPS
from data.frame_store import FrameStore, FrameStoreError
from data.label_files import find_label_sets
from data.video_iterator import TrainDataset
from data.video_list import DatasetSplits, load_dataset
from data.video_sampler import START_DISTRIBUTIONS
from data.video_transforms import AUGMENTATION_TABLES, ENGINES, augment_batch

MAX_CLASSES = 20  # shown without --classes


def first_of_classes(
    dataset: DatasetSplits, classes: Sequence[str], clips: int, seed: int, epoch: int
) -> list[int]:
    """Return the indices of the first `clips` training videos of each class in an epoch, class by class."""
    order = epoch_order(len(dataset.train), seed, epoch)
    labels = dataset.train.labels[order]
    numbers = [dataset.classes.index(name) for name in classes]
    return [int(index) for number in numbers for index in order[np.flatnonzero(labels == number)[:clips]]]


def load_clip(dataset: DatasetSplits, clips: TrainDataset, spec: ClipSpec) -> ShownClip:
    """Return a training clip and what was sampled for it; as in training, of another video where one is corrupt."""
    sample = clips[spec]
    if sample.clip is None:
        raise FrameStoreError(sample.bad[0].reason)
    folder = dataset.train.folder(sample.index)
    frames, params = clips.sample(folder, spec)
    label = dataset.classes[sample.label]
    times = FrameStore(folder).times()
    ends = frame_ends(np.asarray(frames.indices) / DEFAULT_FPS if times is None else times[frames.indices])
    batch = collate([sample])
    shown = augment_batch(batch.clips, batch.augmentations, spec.size)[0].numpy()
    return ShownClip(label, folder.name, shown, list(frames.indices), params, ends, times)


def frame_ends(times: np.ndarray) -> np.ndarray:
    """Return when each frame of a clip gives way to the next, in seconds from the start of the clip.

    `times` are those in the video. The last frame, and one before an earlier frame, stay as long as the others.
    """
    steps = np.diff(times, append=-1)
    later = steps[steps > 0]
    return np.where(steps >= 0, steps, np.median(later) if len(later) else 1 / DEFAULT_FPS).cumsum()


def collect(options: argparse.Namespace) -> list[ShownClip]:
    """Return the clips to draw. Raises ValueError and OSError for wrong options and unreadable datasets."""
    sets = find_label_sets(options.dataset, options.labels)
    files = next((found for found in sets if options.variant in (None, found.variant)), None)
    if files is None:
        raise ValueError(f"{options.dataset}: no label files {options.variant or ''} found")
    spec = files.spec
    place = (options.dataset, spec, files.variant, files.folder)
    dataset = load_dataset(*place, num_classes=None, max_missing=1.0, may_be_empty=True)
    unknown = [name for name in options.classes or () if name not in dataset.classes]
    if unknown:
        raise ValueError(f"--classes {unknown[0]}: not one of the {len(dataset.classes)} classes")
    clips = TrainDataset(
        dataset.train,
        intervals=options.train_frame_interval,
        base_length=options.clip_length,
        clip_size=options.clip_size,
        short_side=options.short_side or spec.short_side,
        augment=options.augment,
        flip=spec.flip if options.flip is None else options.flip,
        augment_table=options.augment_table,
        frame_sampling=options.frame_sampling,
        target_fps=options.target_fps,
    )
    chosen = options.classes or dataset.classes[:MAX_CLASSES]
    seed, epoch = options.random_seed, options.epoch
    length, size = options.shape or (options.clip_length, options.clip_size)
    indices = first_of_classes(dataset, chosen, options.clips, seed, epoch)
    if not indices:
        raise ValueError(f"{options.dataset}: no training videos of {', '.join(map(repr, chosen))}")
    specs = [ClipSpec(index, length, size, clip_seed(seed, epoch, index)) for index in indices]
    return [load_clip(dataset, clips, spec) for spec in specs]


def _shape(text: str) -> tuple[int, int]:
    length, _, size = text.partition("x")
    return positive(length), positive(size)


def make_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m data.browse", description=(__doc__ or "").split("\n\n")[1])
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="folder that holds jpg/")
    add("-o", "--output", type=Path, default=Path("clips.png"), help="contact sheet (default: clips.png)")
    add("--video", type=Path, help="also write an MP4 of the same clips")
    add("--clips", type=positive, default=2, metavar="N", help="clips per class (default: 2)")
    add("--classes", nargs="+", metavar="NAME", help=f"(default: the first {MAX_CLASSES})")
    add("--labels", type=Path, help="folder of the label files (default: as in training)")
    add("--variant", "--split", "--fold", help="variant of the dataset (default: the first with label files)")
    add("--epoch", type=positive, default=1, metavar="N", help="epoch of the run (default: 1)")
    text = "shape of a step in a cycle, such as 4x112 (default: the base shape)"
    add("--shape", type=_shape, metavar="LENGTHxSIZE", help=text)
    add("--clip-length", type=positive, default=16, metavar="N", help="frames per clip (default: 16)")
    add("--clip-size", type=positive, default=224, metavar="N", help="pixels (default: 224)")
    text = "frames are scaled to it before cropping (default: the dataset's)"
    add("--short-side", type=positive, metavar="N", help=text)
    add("--train-frame-interval", action=Values, nargs="+", default=[2], metavar="N", help="(default: 2)")
    add("--target-fps", type=frame_rate, metavar="FPS", help="(default: all frames)")
    add("--frame-sampling", type=choice(*START_DISTRIBUTIONS), default="uniform", help="(default: uniform)")
    add("--augment", type=choice(*ENGINES), default="fused", help="(default: fused)")
    add("--augment-table", type=choice(*AUGMENTATION_TABLES), default="full", help="(default: full)")
    text = "(default: the dataset's)"
    add("--flip", type=boolean, nargs="?", const=True, metavar="True|False", help=text)
    add("--no-flip", dest="flip", action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add("--random-seed", type=not_negative, default=1, metavar="N", help="(default: 1)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    with parser.one_line_errors():
        clips = collect(options)
        length, size = clips[0].frames.shape[:2]
        title = f"{options.dataset.resolve().name}: {length}x{size}x{size}, augment {options.augment}"
        title += f", epoch {options.epoch}, seed {options.random_seed}"
        draw_sheet(options.output, clips, title)
        print(f"{options.output}: {len(clips)} clips of {len({clip.label for clip in clips})} classes")
        if options.video:
            seconds = draw_video(options.video, clips)
            print(f"{options.video}: the same clips, each at its own speed, repeated for {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
