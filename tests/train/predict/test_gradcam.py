"""Where a network looked, held against what is known of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from network import create_network
from tests.train.toy_task import CLASSES, OPTIONS, bright_network
from train.inference import InferenceModel
from train.input_norm import ClipNormalizer
from train.options import Options
from train.predict.gradcam import grad_cam, gradcam_stage, heatmap_over_time

CPU = torch.device("cpu")
FAMILIES = [
    "srtg_r3d_18",
    "r2plus1d_18",
    "srtg_ir_csn_50",
    "ip_csn_50",
    "r3dxt34_32d",
    "mtnet_xs_g8",
]


def trained_as(network: torch.nn.Module, classes: tuple[str, ...], options: Options) -> InferenceModel:
    return InferenceModel(
        path=Path("some.pth"),
        network=network.eval().requires_grad_(False),
        device=CPU,
        precision="fp32",
        classes=classes,
        options=options,
        normalization=ClipNormalizer(),
        epoch=1,
        dataset={},
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_attention_adds_up_to_what_speaks_for_the_class(name: str) -> None:
    """Of two branches, too, and through gates."""
    torch.manual_seed(0)
    options = {"gates": "soft"} if name.startswith("srtg") else {}
    trained = trained_as(create_network(name, 5, **options), tuple("abcde"), Options(network=name))
    clips = torch.randint(0, 256, (2, 8, 64, 64, 3), dtype=torch.uint8)
    logits = trained.logits(clips) - trained.network.fc.bias
    maps = grad_cam(trained, clips, 3, "layer4")
    assert maps.shape[2:] == (2, 2)
    torch.testing.assert_close(maps.mean(dim=(1, 2, 3)), logits[:, 3], rtol=1e-3, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in trained.network.parameters())
    assert not any(module.training for module in trained.network.modules())
    assert not any(module._forward_hooks for module in trained.network.modules())


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("stage", ["layer2", "layer4"])
def test_attention_points_to_what_the_network_looks_for(corner: tuple[int, int], stage: str) -> None:
    trained = trained_as(bright_network(), CLASSES, OPTIONS)
    clips = torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)
    row, column = (32 * side for side in corner)
    clips[:, :, row : row + 28, column : column + 28] = 255
    heat = grad_cam(trained, clips, CLASSES.index("bright"), stage)[0].mean(dim=0)
    half = len(heat) // 2
    quarters = heat.unfold(0, half, half).unfold(1, half, half).mean(dim=(2, 3))
    assert quarters[corner] > 0
    assert quarters.count_nonzero() == 1
    assert grad_cam(trained, clips, CLASSES.index("dark"), stage).abs().max() == 0


@pytest.mark.parametrize("name", ["ip_csn_50", "mtnet_xs_g8"])
def test_stage_has_enough_places(name: str) -> None:
    """At any size; below 28 pixels there are none that have."""
    trained = trained_as(create_network(name, 2), ("a", "b"), Options(network=name))
    for size, stage in ((24, "layer1"), (48, "layer1"), (64, "layer2"), (112, "layer3")):
        assert gradcam_stage(size) == stage
        clips = torch.zeros(1, 4, size, size, 3, dtype=torch.uint8)
        assert grad_cam(trained, clips, 0, stage).shape[2] in (size // 4, size // 8, 7)
    assert [gradcam_stage(size) for size in (223, 224, 284)] == ["layer3", "layer4", "layer4"]


def test_tube_goes_through_the_moments_of_all_windows() -> None:
    """Two windows of which the second begins within the first; 4 is the highest of the video."""
    maps = [np.array(values, np.float32).reshape(2, 1, 1) for values in ([1, 2], [4, -3])]
    tube = heatmap_over_time([(np.array([0, 2, 4, 6]), maps[0]), (np.array([4, 6, 8, 10]), maps[1])])
    assert tube.moments.tolist() == [1, 5, 5, 9]
    assert [float(tube.at(frame)[0, 0]) for frame in (0, 1, 2, 7, 9, 12)] == [0.25, 0.25, 0.3125, 0.5, 0, 0]


def test_nothing_that_speaks_for_the_class_is_cold_not_a_division_by_zero() -> None:
    tube = heatmap_over_time([(np.arange(4), np.full((1, 2, 2), -1, np.float32))])
    assert tube.at(2).tolist() == [[0, 0], [0, 0]]
