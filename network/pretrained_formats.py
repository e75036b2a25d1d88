"""Names and shapes of weights in other codebases, and the normalization that they were trained with."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

StateDict = Mapping[str, Tensor]


class CheckpointFormat(NamedTuple):
    """How to convert weights to our names and shapes, and their normalization, None if it is not fixed.

    `convert` is called with the weights and the `state_dict` of the network.
    """

    convert: Callable[[StateDict, StateDict], StateDict]
    normalization: Mapping[str, Any] | None


def _unchanged(weights: StateDict, own: StateDict) -> StateDict:
    return weights


def from_torchvision(weights: StateDict, own: StateDict) -> StateDict:
    """Convert names of torchvision.models.video: r2plus1d_18 has ours, the convolutions of r3d_18 are one level higher.

    Its networks do not pool after the stem, as ours with `stem_pool=False` (`--stem-pool False`): the same networks.
    """
    pattern = re.compile(r"(layer\d\.\d+\.conv[12]\.0)\.weight")
    return {pattern.sub(r"\1.0.weight", name): value for name, value in weights.items()}


def from_imagenet(weights: StateDict, own: StateDict) -> StateDict:
    """Inflate the weights of a 2D ResNet: a kernel `(O, I, H, W)` is repeated T times and divided by T.

    A clip of identical frames then has the features of the frame (Carreira & Zisserman, CVPR 2017, section 2.1).
    """
    inflated = {}
    for name_2d, value in weights.items():
        name = _name_in_3d(name_2d, own)
        if value.dim() == 4:
            length = own[name].shape[2] if name in own and own[name].dim() == 5 else 1
            inflated[name] = value.unsqueeze(2).expand(-1, -1, length, -1, -1) / length
        else:
            inflated[name] = value
    return inflated


def from_3d_resnets(weights: StateDict, own: StateDict) -> StateDict:
    """Convert names of 3D-ResNets-PyTorch, whose bottlenecks and (2+1)D networks have some other shapes than ours.

    A stem of 7 frames becomes one of 3, with the outer ones added to the nearest: a clip of equal frames has the same
    features.
    """
    converted = {_name_in_3d(name, own): value for name, value in weights.items()}
    kernel = converted.get("stem.0.weight", torch.empty(0))
    if kernel.shape[2:] == (7, 7, 7):
        parts = kernel.split([3, 1, 3], dim=2)
        converted["stem.0.weight"] = torch.cat([part.sum(dim=2, keepdim=True) for part in parts], dim=2)
    return converted


def _name_in_3d(name: str, own: StateDict) -> str:
    """Convert a name of 2D ResNets or of 3D-ResNets-PyTorch, whose _s and _t are the halves of (2+1)D convolutions."""
    name = re.sub(r"^conv1(_s)?\.", "stem.0.", name)
    name = re.sub(r"^bn1(_s)?\.", "stem.1.", name)
    name = re.sub(r"^conv1_t\.", "stem.3.", name)
    name = re.sub(r"^bn1_t\.", "stem.4.", name)
    name = re.sub(r"\.conv(\d)_s\.", r".conv\1.0.0.", name)
    name = re.sub(r"\.bn(\d)_s\.", r".conv\1.0.1.", name)
    name = re.sub(r"\.conv(\d)_t\.", r".conv\1.0.3.", name)
    name = re.sub(r"\.bn(\d)(_t)?\.", r".conv\1.1.", name)
    nested = re.sub(r"\.(conv\d)\.weight$", r".\1.0.0.weight", name)  # 3 x 3 x 3, also of bottlenecks
    return nested if nested in own else re.sub(r"\.(conv\d)\.weight$", r".\1.0.weight", name)


CHECKPOINT_FORMATS = {
    "own": CheckpointFormat(_unchanged, None),
    "torchvision": CheckpointFormat(
        from_torchvision,
        {"mean": [0.43216, 0.394666, 0.37645], "std": [0.22803, 0.22145, 0.216989], "channel_order": "rgb"},
    ),
    "3d-resnets": CheckpointFormat(
        from_3d_resnets,
        {"mean": [0.4345, 0.4051, 0.3775], "std": [0.2768, 0.2713, 0.2737], "channel_order": "rgb"},
    ),
    "imagenet": CheckpointFormat(
        from_imagenet, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "rgb"}
    ),
}


def detect_format(weights: StateDict, bare: bool) -> str:
    """Return the name of the format of weights, from their names and shapes.

    torchvision's r2plus1d_18 has the names of ours: `bare` weights (without anything else in the file) of a plain
    network with 400 classes are taken to be torchvision's, as our checkpoints hold more than weights.
    """

    def dimensions(name: str) -> int:
        return weights[name].dim() if name in weights else 0

    if dimensions("conv1.weight") == 4:
        return "imagenet"
    if dimensions("conv1.weight") == 5 or "conv1_s.weight" in weights:
        return "3d-resnets"
    kernel = weights.get("layer1.0.conv1.0.weight")
    if kernel is not None and kernel.shape[2:] == torch.Size((3, 3, 3)):
        return "torchvision"
    r2plus1d_18 = dimensions("stem.3.weight") == 5 and "layer1.2.conv1.1.weight" not in weights
    kinetics = "fc.weight" in weights and weights["fc.weight"].shape[:1] == (400,)
    recurrent = any(".sar." in name for name in weights)
    return "torchvision" if bare and r2plus1d_18 and kinetics and not recurrent else "own"
