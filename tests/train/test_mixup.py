"""Smoothing and mixing: what comes out, and that it comes out again."""

import numpy as np
import pytest
import torch

from train.metrics import batch_metric_sums
from train.mixup import Mixed, MixupCutmix, mixed_sums

LABELS = torch.tensor([0, 1, 2, 3, 4])


def painted() -> torch.Tensor:
    """Each clip filled with its number."""
    return torch.arange(5.0)[:, None, None, None, None].expand(5, 3, 2, 12, 16).clone()


def test_mixup_adds_partners_by_their_shares() -> None:
    shares = []
    for step in range(200):
        mixed = MixupCutmix(mixup=0.4).mix(painted(), LABELS, 1, step)
        assert torch.equal(mixed.others, LABELS.flip(0))
        expected = mixed.share * LABELS + (1 - mixed.share) * LABELS.flip(0)
        assert torch.allclose(mixed.clips[:, 0, 0, 0, 0], expected, atol=1e-5)
        assert mixed.clips[1].unique().numel() == 1
        shares.append(mixed.share)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.3)  # of Beta(0.4, 0.4)


def test_cutmix_pastes_one_box_in_all_frames_and_counts_its_pixels() -> None:
    shares = []
    for step in range(200):
        mixed = MixupCutmix(cutmix=1.0).mix(painted(), LABELS, 1, step)
        own = mixed.clips[0, 0, 0] == 0
        assert mixed.share == pytest.approx(own.float().mean().item())
        assert all(torch.equal(frame == 0, own) for frame in mixed.clips[0].flatten(0, 1))
        pasted = (~own).nonzero()
        if len(pasted):
            sides = pasted.amax(dim=0) - pasted.amin(dim=0) + 1
            assert sides.prod() == len(pasted)
            assert set(mixed.clips[0].unique().tolist()) <= {0.0, 4.0}
        shares.append(mixed.share)
    assert 0.55 < np.mean(shares) < 0.8  # boxes of half a picture on average, less what its edges clip


def test_both_take_turns() -> None:
    both = MixupCutmix(mixup=0.4, cutmix=1.0)
    kinds = [both.mix(painted(), LABELS, 1, step).clips[0].unique().numel() for step in range(200)]
    assert 70 < kinds.count(2) < 130  # a box leaves two values, a sum one


def test_randomness_is_of_the_place_alone() -> None:
    one = MixupCutmix(mixup=0.4, cutmix=1.0, seed=3)
    clips = painted()
    first = [one.mix(clips, LABELS, epoch, step) for epoch in (1, 2) for step in (0, 1)]
    again = [one.mix(clips, LABELS, epoch, step) for epoch in (1, 2) for step in (0, 1)]
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(first, again, strict=True))
    assert len({mixed.share for mixed in first}) == 4
    other = MixupCutmix(mixup=0.4, cutmix=1.0, seed=4).mix(clips, LABELS, 1, 0)
    assert other.share != first[0].share
    assert torch.equal(clips, painted())


def test_loss_is_that_of_soft_labels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 7)
    mixed = Mixed(painted(), LABELS, LABELS.flip(0), 0.3)
    one_hot = torch.eye(7)
    targets = 0.3 * one_hot[LABELS] + 0.7 * one_hot[LABELS.flip(0)]
    smooth = 0.9 * targets + 0.1 / 7
    for target, smoothing in ((targets, 0.0), (smooth, 0.1)):
        expected = -(target * logits.log_softmax(dim=1)).sum()
        assert MixupCutmix(label_smoothing=smoothing).loss(logits, mixed) == pytest.approx(expected.item())


def test_hits_count_by_the_share_of_their_label() -> None:
    logits = 10 * torch.eye(7)[[0, 1, 2, 1, 6]]  # clips 0 to 2 say their own label, clip 3 its partner's
    mixed = Mixed(painted(), LABELS, LABELS.flip(0), 0.75)
    clips, top1, _, loss = mixed_sums(logits, mixed, torch.tensor(2.0)).tolist()
    assert (clips, loss) == (5, 10)
    assert top1 == pytest.approx(0.75 + 0.75 + 1 + 0.25)


def test_a_process_without_clips_mixes_nothing() -> None:
    """It sits out a step: its clips have no size to cut boxes of."""
    none = torch.empty(0, 3, 0, 0, 0)
    for mixing in (MixupCutmix(mixup=1.0), MixupCutmix(cutmix=1.0)):
        mixed = mixing.mix(none, LABELS[:0], 1, 0)
        assert mixed.clips is none
        assert mixing.loss(torch.zeros(0, 7), mixed) == 0


def test_nothing_is_done_by_default() -> None:
    clips = painted()
    mixed = MixupCutmix().mix(clips, LABELS, 1, 0)
    assert mixed.clips is clips
    assert mixed.share == 1
    logits = torch.randn(5, 7)
    loss = torch.nn.functional.cross_entropy(logits, LABELS, reduction="sum")
    assert torch.equal(MixupCutmix().loss(logits, mixed), loss)
    assert torch.equal(mixed_sums(logits, mixed, loss), batch_metric_sums(logits, LABELS, loss))
