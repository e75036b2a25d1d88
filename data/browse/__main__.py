"""python -m data.browse DATASET [-o clips.png] [--video clips.mp4] [--classes NAME...] [--clips 2]

Draw training clips exactly as the network gets them in an epoch, the first ones of each class, as a contact sheet and
perhaps as a video, with what was drawn at random written beside: frames, crop, mirror, augmentations. The flags that
training has too mean the same here; without --random-seed and --epoch these are the clips of a run's first epoch.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.batch_sampler import ClipSpec, clip_seed, epoch_order
from data.browse.contact_sheet import ShownClip, draw_sheet, draw_video
from data.common.cli import OneLineParser, Values, boolean, choice, not_negative, positive
from data.datasets import CUSTOM, SPECS
from data.frame_store import FrameStoreError
from data.label_files import AnnotationSet, find_label_sets
from data.video_iterator import TrainDataset
from data.video_list import Dataset, load_dataset
from data.video_sampler import START_DISTRIBUTIONS

SETS = {"own" if spec is CUSTOM else name: spec for name, spec in SPECS.items()}
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def choose_label_set(root: Path, labels: Path | None, name: str | None, variant: str | None) -> AnnotationSet:
    """The label files that are meant: of the set and variant if named, else the only ones, or the first of a set's."""
    sets = find_label_sets(root, labels)
    names = sorted({next(name for name, spec in SETS.items() if spec is found.spec) for found in sets})
    meant = [found for found in sets if name is None or found.spec is SETS[name]]
    meant = [found for found in meant if variant in (None, found.variant)]
    if not meant:
        asked = " ".join(["label files", *(name or "").split(), *(variant or "").split()])
        raise ValueError(f"{root}: has no {asked}; it has {', '.join(names) or 'none'}")
    if len({found.spec.name for found in meant}) > 1:
        raise ValueError(
            f"{meant[0].folder}: holds label files of {', '.join(names)}; --set says which are meant"
        )
    return meant[0]


def first_of_classes(
    dataset: Dataset, classes: Sequence[str], clips: int, seed: int, epoch: int
) -> list[int]:
    """The training videos of each class that an epoch draws first, class by class."""
    order = epoch_order(len(dataset.train), seed, epoch)
    labels = dataset.train.labels[order]
    numbers = [dataset.classes.index(name) for name in classes]
    return [int(index) for number in numbers for index in order[np.flatnonzero(labels == number)[:clips]]]


def shown_clip(dataset: Dataset, clips: TrainDataset, request: ClipSpec) -> ShownClip:
    """The clip that training gets for a request, also where another video takes the place of one that is unreadable."""
    sample = clips[request]
    if sample.clip is None:
        raise FrameStoreError(sample.bad[0].reason)
    folder = dataset.train.folder(sample.index)
    indices, draw = clips.drawn(request._replace(index=sample.index))
    return ShownClip(dataset.classes[sample.label], folder.name, sample.clip.numpy(), indices, draw)


def collect(arguments: argparse.Namespace) -> list[ShownClip]:
    """Raises ValueError and OSError for what is asked for in vain."""
    files = choose_label_set(arguments.dataset, arguments.labels, arguments.set, arguments.variant)
    spec, variant = files.spec, files.variant
    dataset = load_dataset(arguments.dataset, spec, variant, files.folder, num_classes=None, max_missing=1.0)
    unknown = [name for name in arguments.classes or () if name not in dataset.classes]
    if unknown:
        raise ValueError(f"--classes {unknown[0]}: is not one of the {len(dataset.classes)} classes")
    clips = TrainDataset(
        dataset.train,
        intervals=arguments.train_frame_interval,
        base_length=arguments.clip_length,
        clip_size=arguments.clip_size,
        short_side=arguments.short_side or spec.short_side,
        augment=arguments.augment,
        flip=spec.flip if arguments.flip is None else arguments.flip,
        frame_sampling=arguments.frame_sampling,
    )
    chosen = arguments.classes or dataset.classes[: arguments.max_classes]
    seed, epoch = arguments.random_seed, arguments.epoch
    length, size = arguments.shape or (arguments.clip_length, arguments.clip_size)
    indices = first_of_classes(dataset, chosen, arguments.clips, seed, epoch)
    if not indices:
        raise ValueError(f"{arguments.dataset}: has no training videos of {', '.join(map(repr, chosen))}")
    return [
        shown_clip(dataset, clips, ClipSpec(index, length, size, clip_seed(seed, epoch, index)))
        for index in indices
    ]


def title_of(arguments: argparse.Namespace, clip: ShownClip) -> str:
    length, size = clip.frames.shape[:2]
    run = f"epoch {arguments.epoch}, seed {arguments.random_seed}"
    return f"{arguments.dataset.resolve().name}: {length}x{size}x{size}, augment {arguments.augment}, {run}"


def _shape(text: str) -> tuple[int, int]:
    length, _, size = text.partition("x")
    return positive(length), positive(size)


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m data.browse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset", type=Path, metavar="DATASET", help="the folder that holds jpg/")
    add("-o", "--output", type=Path, default=Path("clips.png"), help="the picture (default: clips.png)")
    add("--video", type=Path, help="also an MP4 of the same clips")
    add("--clips", type=positive, default=2, help="of each class (default: 2)")
    add("--classes", nargs="+", metavar="NAME", help="which (default: the first ones)")
    add("--max-classes", type=positive, default=20, help="where none are named (default: 20)")
    add("--labels", type=Path, help="folder of the label files (default: as in training)")
    add("--set", choices=SETS, help="whose label files, where there are several")
    add("--variant", "--split", help="of its label files (default: the first that is there)")
    add("--epoch", type=positive, default=1, help="of the run (default: 1)")
    add(
        "--shape",
        type=_shape,
        metavar="LENGTHxSIZE",
        help="of a step in a cycle, such as 4x112 (default: the base)",
    )
    add("--clip-length", type=positive, default=16, help="frames of a clip (default: 16)")
    add("--clip-size", type=positive, default=224, help="pixels (default: 224)")
    add(
        "--short-side",
        type=positive,
        help="that frames are scaled to before the crop (default: the data set's)",
    )
    add("--train-frame-interval", action=Values, nargs="+", default=[2], metavar="N", help="(default: 2)")
    add("--frame-sampling", type=choice(*START_DISTRIBUTIONS), default="uniform", help="(default: uniform)")
    add("--augment", type=choice("fused", "imgaug", "none"), default="fused", help="(default: fused)")
    add("--flip", type=boolean, nargs="?", const=True, metavar="True|False", help="(default: the data set's)")
    add("--no-flip", dest="flip", action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add("--random-seed", type=not_negative, default=1, help="(default: 1)")
    add("--tile", type=positive, default=128, help="pixels at which frames are shown (default: 128)")
    add("--fps", type=positive, default=10, help="frames a second of the video (default: 10)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.output.suffix.lower() not in ENDINGS:
        parser.error(f"--output {arguments.output}: must end with one of {', '.join(ENDINGS)}")
    try:
        clips = collect(arguments)
        draw_sheet(arguments.output, clips, title_of(arguments, clips[0]), tile=arguments.tile)
        print(f"{arguments.output}: {len(clips)} clips of {len({clip.label for clip in clips})} classes")
        if arguments.video:
            draw_video(arguments.video, clips, tile=arguments.tile, fps=arguments.fps)
            print(f"{arguments.video}: the same clips, {arguments.fps} frames a second")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
