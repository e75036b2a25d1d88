"""How others name and shape their weights, and what their networks expect of clips."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

StateDict = Mapping[str, Tensor]


class Layout(NamedTuple):
    """`convert` turns weights into our names and shapes, given the network's own `state_dict`.

    `normalization` is what such networks were trained with, None where that varies.
    """

    name: str
    convert: Callable[[StateDict, StateDict], StateDict]
    normalization: Mapping[str, Any] | None


def _unchanged(weights: StateDict, own: StateDict) -> StateDict:
    return weights


def from_torchvision(weights: StateDict, own: StateDict) -> StateDict:
    """Names of torchvision.models.video: those of r2plus1d_18 are ours, r3d_18's convolutions lie one level higher.

    Its networks do not pool after the stem; ours do, so what is loaded is a start for training, not the same network.
    """
    deeper = re.compile(r"(layer\d\.\d+\.conv[12]\.0)\.weight")
    return {deeper.sub(r"\1.0.weight", name): value for name, value in weights.items()}


def from_imagenet(weights: StateDict, own: StateDict) -> StateDict:
    """A 2D ResNet's weights over time: a kernel `(O, I, H, W)` is repeated T times and divided by T.

    So a clip of equal frames gets the features of its frame (Carreira & Zisserman, CVPR 2017, section 2.1).
    """
    inflated = {}
    for name, value in weights.items():
        target = _name_in_3d(name, own)
        if value.dim() == 4:
            length = own[target].shape[2] if target in own and own[target].dim() == 5 else 1
            value = value.unsqueeze(2).expand(-1, -1, length, -1, -1)  # noqa: PLW2901
            if target in own and value.shape == own[target].shape:  # others are not loaded, and may be huge
                value = value / length  # noqa: PLW2901
        inflated[target] = value
    return inflated


def _name_in_3d(name: str, own: StateDict) -> str:
    stem = re.fullmatch(r"(conv|bn)1\.(\w+)", name)
    if stem:
        return f"stem.{0 if stem[1] == 'conv' else 1}.{stem[2]}"
    block = re.fullmatch(r"(layer\d\.\d+)\.(conv|bn)(\d)\.(\w+)", name)
    if not block:
        return name
    place, kind, number, what = block.groups()
    if kind == "bn":
        return f"{place}.conv{number}.1.{what}"
    cube = f"{place}.conv{number}.0.0.{what}"
    return cube if cube in own else f"{place}.conv{number}.0.{what}"


CHECKPOINT_FORMATS = {
    layout.name: layout
    for layout in (
        Layout("own", _unchanged, None),
        Layout(
            "torchvision",
            from_torchvision,
            {
                "means": [0.43216, 0.394666, 0.37645],
                "deviations": [0.22803, 0.22145, 0.216989],
                "channel_order": "rgb",
            },
        ),
        Layout(
            "imagenet",
            from_imagenet,
            {"means": [0.485, 0.456, 0.406], "deviations": [0.229, 0.224, 0.225], "channel_order": "rgb"},
        ),
    )
}


def detect_format(weights: StateDict, content: Any) -> Layout:
    """The layout that a file's weights have, from their names and shapes.

    Names alone do not tell torchvision's r2plus1d_18 from ours: a plain network's bare weights for 400 classes are
    taken for torchvision's, as ours are wrapped with what they were trained on.
    """
    if _dimensions(weights, "conv1.weight") == 4:
        return CHECKPOINT_FORMATS["imagenet"]
    cube = weights.get("layer1.0.conv1.0.weight")
    if cube is not None and cube.shape[2:] == torch.Size((3, 3, 3)):
        return CHECKPOINT_FORMATS["torchvision"]
    bare = content.keys() == weights.keys()
    factorised = _dimensions(weights, "stem.3.weight") == 5 and "layer1.2.conv1.1.weight" not in weights
    kinetics = "fc.weight" in weights and weights["fc.weight"].shape[:1] == (400,)
    recurrent = any(".sar." in name for name in weights)
    return CHECKPOINT_FORMATS["torchvision" if bare and factorised and kinetics and not recurrent else "own"]


def _dimensions(weights: StateDict, name: str) -> int | None:
    return weights[name].dim() if name in weights else None
