"""Input normalization of uint8 clips."""

import pytest
import torch

from train.input_norm import ClipNormalizer


def test_red_is_the_last_channel_of_bgr_and_the_first_of_rgb() -> None:
    """The original normalized BGR frames as RGB; the published weights need that, others do not."""
    red = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    red[..., 2] = 255
    assert ClipNormalizer()(red)[0].amax(dim=(1, 2, 3)).argmax() == 2
    assert ClipNormalizer(channel_order="rgb")(red)[0].amax(dim=(1, 2, 3)).argmax() == 0


def test_defaults_are_those_of_the_published_weights() -> None:
    clips = torch.randint(0, 256, (2, 3, 5, 6, 3), dtype=torch.uint8)
    inputs = ClipNormalizer()(clips)
    expected = (clips.double() - torch.tensor([124.0, 117.0, 104.0], dtype=torch.double)) * 0.0167
    assert inputs.shape == (2, 3, 3, 5, 6)
    assert torch.allclose(inputs.permute(0, 2, 3, 4, 1).double(), expected, atol=1e-5)


@pytest.mark.parametrize("channel_order", ["bgr", "rgb"])
def test_memory_format_is_the_one_asked_for(channel_order: str) -> None:
    clips = torch.randint(0, 256, (2, 3, 5, 6, 3), dtype=torch.uint8)
    first, last = (ClipNormalizer(channel_order=channel_order, channels_last=last) for last in (False, True))
    assert first(clips).is_contiguous()
    assert last(clips).is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(first(clips), last(clips))
    assert first.to_dict() == last.to_dict()


def test_dict_round_trip() -> None:
    values = ClipNormalizer((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), "rgb").to_dict()
    assert values == {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "channel_order": "rgb"}
    assert ClipNormalizer.from_dict(values).to_dict() == values
