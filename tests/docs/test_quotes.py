"""What the pages quote is what the code says: messages, formats, log lines and sizes."""

import re

import pytest

from data.video_transforms import validation_short_side
from network.flops import count_flops
from network.pretrained_formats import CHECKPOINT_FORMATS
from tests.commands import REPOSITORY
from tests.docs.markdown import PAGES
from train.callbacks import SpeedMonitor

MESSAGES = [  # the constant part of each
    "converted up to the damage, ",
    "files beside the videos: ",
    "frames after ",
    "are the same video: delete or rename one of the two",
    "does not work: ",
    "cannot write H.264 videos; install an ffmpeg with libx264",
    'quote a value with a comma: "turn, left"',
    ": has no rows",
    " classes of the training set; if its dictionary.json is older than the label files, remove it",
    "more than --max-missing ",
    ", or enlarge it (docker run --shm-size)",
    "the loss is not finite; a lower --lr-base or --clip-grad-norm may help",
    "rows repeat a video, used once, such as ",
    " in both, such as ",
    "copy the dictionary.json it was trained with",
    "not a file of weights: ",
    "open its address in a browser, and download the file there",
    "it is of another network; --allow-partial starts from it nonetheless",
    ": this is a plain ",
]


def squeeze(text: str) -> str:
    """Join string literals that are split over lines, and the lines of a page."""
    text = re.sub(r"""["']\s*\n\s*[rf]*["']""", "", text)
    return " ".join(text.split())


@pytest.mark.parametrize("message", MESSAGES)
def test_quoted_messages_are_those_of_the_code(message: str) -> None:
    sources = [
        path for package in ("data", "network", "train") for path in (REPOSITORY / package).rglob("*.py")
    ]
    for paths in (PAGES, sources):
        assert any(message.strip() in squeeze(path.read_text("utf-8")) for path in paths)


def test_log_lines_have_the_format_of_the_logger() -> None:
    rate = SpeedMonitor()._format("data", 701.0)
    assert rate == "r=7.01e+2"
    lines = [line for page in PAGES for line in page.read_text("utf-8").splitlines() if "INFO epoch" in line]
    speeds = [match[1] for line in lines if (match := re.search(r"Speed \((.*?)\)", line))]
    assert len(speeds) > 3
    for line in speeds:
        assert re.fullmatch(r"r=\S+ f=\S+( b=\S+)?", line)
        assert all(re.fullmatch(r"\w=\d\.\d\de[+-]\d", rate) for rate in line.split())


def test_formats_of_pretrained_weights_are_listed() -> None:
    page = (REPOSITORY / "docs/training.md").read_text("utf-8")
    assert re.findall(r"^\| `([\w-]+)` \| .* \| (?:RGB|as the file says.*) \|$", page, re.MULTILINE) == list(
        CHECKPOINT_FORMATS
    )


def test_sizes_of_validation() -> None:
    page = (REPOSITORY / "docs/export.md").read_text("utf-8")
    sizes = [tuple(map(int, pair)) for pair in re.findall(r"(\d+): (\d+)[,)]", page)]
    assert sizes == [(size, validation_short_side(size)) for size, _ in sizes]
    assert (256, 294) in sizes


def test_flops_without_pooling_after_the_stem() -> None:
    page = (REPOSITORY / "docs/networks.md").read_text("utf-8")
    flops = count_flops("srtg_r3d_34", 400, 16, 224, stem_pool=False)
    assert f"needs {flops / 1e9:.0f} GFLOPs" in page
