"""From uint8 clips to the network's input."""

import torch

from train.input_norm import ClipNormalizer


def test_pure_red_lands_in_the_last_channel_of_bgr_and_the_first_of_rgb() -> None:
    """The original normalised BGR frames as if they were RGB; its weights need that, others do not."""
    red = torch.zeros(1, 2, 4, 4, 3, dtype=torch.uint8)
    red[..., 2] = 255
    assert ClipNormalizer()(red)[0].amax(dim=(1, 2, 3)).argmax() == 2
    assert ClipNormalizer(channel_order="rgb")(red)[0].amax(dim=(1, 2, 3)).argmax() == 0


def test_numbers_are_those_of_the_published_weights() -> None:
    clips = torch.randint(0, 256, (2, 3, 5, 6, 3), dtype=torch.uint8)
    result = ClipNormalizer()(clips)
    expected = (clips.double() - torch.tensor([124.0, 117.0, 104.0], dtype=torch.double)) * 0.0167
    assert result.shape == (2, 3, 3, 5, 6)
    assert torch.allclose(result.permute(0, 2, 3, 4, 1).double(), expected, atol=1e-5)


def test_result_is_channels_last_in_memory() -> None:
    result = ClipNormalizer()(torch.zeros(2, 4, 8, 8, 3, dtype=torch.uint8))
    assert result.is_contiguous(memory_format=torch.channels_last_3d)
