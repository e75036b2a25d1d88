"""How many clips precise BatchNorm statistics are taken from."""

import pytest

from train.options import Options
from train.plan import count_batchnorm_clips


@pytest.mark.parametrize(
    ("precise_bn", "num_videos", "relative_flops", "clips"),
    [
        (0, 10**6, 1.0, 0),
        (1024, 10**6, 0.5, 1024),
        (1024, 4000, 0.5, 600),  # a tenth of an epoch: 0.3 * 0.5 * 4000 forward passes
        (1000, 10**6, 0.5, 1000 // 8 * 8),  # full batches of 8
        (1024, 40, 0.5, 8),  # at least one
        (1024, 5, 0.5, 5),
    ],
)
def test_at_most_a_tenth_of_an_epoch_in_full_batches(
    precise_bn: int, num_videos: int, relative_flops: float, clips: int
) -> None:
    options = Options(batch_size=8, precise_bn=precise_bn)
    assert count_batchnorm_clips(options, num_videos, relative_flops) == clips
