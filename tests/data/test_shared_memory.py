"""What batches in flight take of shared memory."""

import pytest

from data.batch_sampler import BatchShape
from data.clip_loader import choose_prefetch_factor, shared_memory_bytes


def test_clips_cost_their_own_pixels_of_shared_memory() -> None:
    """The original needed 86 GB; 8 workers stay under 2 GiB here."""
    shapes = [BatchShape(48, 16, 224), BatchShape(1536, 4, 80), BatchShape(384, 8, 112)]
    assert shared_memory_bytes(shapes, workers=8) < 2 * 2**30
    assert shared_memory_bytes(shapes, workers=0) == 0
    assert shared_memory_bytes(shapes[:1], workers=1) == 3 * 48 * 16 * 224 * 224 * 3


def test_fewer_batches_are_held_ready_where_shared_memory_is_small(caplog: pytest.LogCaptureFixture) -> None:
    shapes = [BatchShape(48, 16, 224), BatchShape(1536, 4, 80)]
    one, two = (shared_memory_bytes(shapes, 4, prefetch) for prefetch in (1, 2))
    assert [choose_prefetch_factor(shapes, 4, free=free) for free in (10 * two, two)] == [2, 2]
    assert caplog.text == ""
    assert choose_prefetch_factor(shapes, 4, free=two - 1) == 1
    assert "workers hold 1 batches ready, not 2" in caplog.text
    with pytest.raises(ValueError, match="4 workers need .* lower --workers"):
        choose_prefetch_factor(shapes, 4, free=one - 1)
    assert shared_memory_bytes(shapes, 8, choose_prefetch_factor(shapes, 8, free=10**12)) < 2e9
    assert choose_prefetch_factor(shapes, 0, free=0) == 2
    assert choose_prefetch_factor(shapes, 4, processes=2, free=2 * two - 1) == 1
