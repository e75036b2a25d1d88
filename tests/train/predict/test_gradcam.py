"""Grad-CAM maps against what is known of a network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from network import create_network
from tests.train.toy_task import CLASSES, OPTIONS, brightness_network
from train.inference import InferenceModel
from train.input_norm import ClipNormalizer
from train.options import Options
from train.predict.gradcam import grad_cam, gradcam_stage, heatmap_over_time


def make_model(network: nn.Module, classes: tuple[str, ...], options: Options) -> InferenceModel:
    return InferenceModel(
        path=Path("some.pth"),
        network=network.eval().requires_grad_(False),
        device=torch.device("cpu"),
        precision="fp32",
        classes=classes,
        options=options,
        normalization=ClipNormalizer(),
        epoch=1,
        dataset={},
    )


@pytest.mark.parametrize("name", ["srtg_tiny", "r2plus1d_18", "ip_csn_50", "r3dxt34_32d", "mtnet_xs_g8"])
def test_mean_of_the_last_stages_map_is_the_logit_without_bias(name: str) -> None:
    """Holds for each family, also through gates and for the two branches of MTNet."""
    torch.manual_seed(0)
    options = {"gates": "soft"} if name.startswith("srtg") else {}
    model = make_model(create_network(name, 5, **options), tuple("abcde"), Options(network=name))
    clips = torch.randint(0, 256, (2, 8, 64, 64, 3), dtype=torch.uint8)
    logits = model.logits(clips) - model.network.fc.bias
    maps = grad_cam(model, clips, 3, "layer4")
    assert maps.shape[2:] == (2, 2)
    torch.testing.assert_close(maps.mean(dim=(1, 2, 3)), logits[:, 3], rtol=1e-3, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not any(module.training for module in model.network.modules())


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("stage", ["layer2", "layer4"])
def test_map_is_positive_where_the_evidence_is(corner: tuple[int, int], stage: str) -> None:
    model = make_model(brightness_network(), CLASSES, OPTIONS)
    clips = torch.zeros(1, 4, 64, 64, 3, dtype=torch.uint8)
    row, column = (32 * side for side in corner)
    clips[:, :, row : row + 28, column : column + 28] = 255
    heat = grad_cam(model, clips, CLASSES.index("bright"), stage)[0].mean(dim=0)
    half = len(heat) // 2
    quarters = heat.unfold(0, half, half).unfold(1, half, half).mean(dim=(2, 3))
    assert quarters[corner] > 0
    assert quarters.count_nonzero() == 1
    assert grad_cam(model, clips, CLASSES.index("dark"), stage).abs().max() == 0


@pytest.mark.parametrize(
    ("size", "stage"), [(24, "layer1"), (64, "layer2"), (112, "layer3"), (224, "layer4")]
)
def test_stage_is_the_deepest_with_a_map_of_seven(size: int, stage: str) -> None:
    """Below 28 pixels no stage has that many."""
    assert gradcam_stage(size) == stage
    clips = torch.zeros(1, 2, size, size, 3, dtype=torch.uint8)
    map_size = grad_cam(make_model(brightness_network(), CLASSES, OPTIONS), clips, 0, stage).shape[2]
    assert map_size == {24: 6, 64: 8, 112: 7, 224: 7}[size]


def test_heatmaps_are_interpolated_over_the_times_of_all_windows() -> None:
    """Two overlapping windows; 4 is the maximum of the video."""
    maps = [np.array(values, np.float32).reshape(2, 1, 1) for values in ([1, 2], [4, -3])]
    tube = heatmap_over_time([(np.array([0, 2, 4, 6]), maps[0]), (np.array([4, 6, 8, 10]), maps[1])])
    assert tube.times.tolist() == [1, 5, 5, 9]
    assert [float(tube.at(frame)[0, 0]) for frame in (0, 1, 2, 7, 9, 12)] == [0.25, 0.25, 0.3125, 0.5, 0, 0]


def test_heatmap_without_evidence_is_zero() -> None:
    tube = heatmap_over_time([(np.arange(4), np.full((1, 2, 2), -1, np.float32))])
    assert tube.at(2).tolist() == [[0, 0], [0, 0]]
