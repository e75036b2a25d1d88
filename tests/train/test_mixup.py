"""Mixup, CutMix and label smoothing: results, and that they repeat."""

import numpy as np
import pytest
import torch

from train.metrics import batch_metric_sums
from train.mixup import MixedBatch, MixupCutmix, mixed_metric_sums

LABELS = torch.tensor([0, 1, 2, 3, 4])


def numbered_clips() -> torch.Tensor:
    """Each clip is filled with its index."""
    return torch.arange(5.0)[:, None, None, None, None].expand(5, 3, 2, 12, 16).clone()


def test_mixup_blends_partners_with_weights_from_beta() -> None:
    lams = []
    for step in range(200):
        mixed = MixupCutmix(mixup=0.4).mix(numbered_clips(), LABELS, 1, step)
        assert torch.equal(mixed.labels_b, LABELS.flip(0))
        expected = mixed.lam * LABELS + (1 - mixed.lam) * LABELS.flip(0)
        assert torch.allclose(mixed.clips[:, 0, 0, 0, 0], expected, atol=1e-5)
        assert mixed.clips[1].unique().numel() == 1
        lams.append(mixed.lam)
    assert np.mean(lams) == pytest.approx(0.5, abs=0.1)
    assert np.var(lams) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.3)  # of Beta(0.4, 0.4)


def test_cutmix_pastes_one_box_into_all_frames_and_counts_its_pixels() -> None:
    lams = []
    for step in range(200):
        mixed = MixupCutmix(cutmix=1.0).mix(numbered_clips(), LABELS, 1, step)
        own = mixed.clips[0, 0, 0] == 0
        assert mixed.lam == pytest.approx(own.float().mean().item())
        assert all(torch.equal(frame == 0, own) for frame in mixed.clips[0].flatten(0, 1))
        pasted = (~own).nonzero()
        if len(pasted):
            sides = pasted.amax(dim=0) - pasted.amin(dim=0) + 1
            assert sides.prod() == len(pasted)
            assert set(mixed.clips[0].unique().tolist()) <= {0.0, 4.0}
        lams.append(mixed.lam)
    assert 0.55 < np.mean(lams) < 0.8  # boxes of half a frame on average, clipped at the edges


def test_with_both_on_each_step_does_one_of_them() -> None:
    both = MixupCutmix(mixup=0.4, cutmix=1.0)
    values = [both.mix(numbered_clips(), LABELS, 1, step).clips[0].unique().numel() for step in range(200)]
    assert 70 < values.count(2) < 130  # a box leaves two values, a blend one


def test_random_draws_depend_on_seed_epoch_and_step_only() -> None:
    clips, mixup = numbered_clips(), MixupCutmix(mixup=0.4, cutmix=1.0, seed=3)
    first = [mixup.mix(clips, LABELS, epoch, step) for epoch in (1, 2) for step in (0, 1)]
    again = [mixup.mix(clips, LABELS, epoch, step) for epoch in (1, 2) for step in (0, 1)]
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(first, again, strict=True))
    assert len({mixed.lam for mixed in first}) == 4
    assert MixupCutmix(mixup=0.4, cutmix=1.0, seed=4).mix(clips, LABELS, 1, 0).lam != first[0].lam
    assert torch.equal(clips, numbered_clips())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_that_of_soft_labels(smoothing: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 7)
    mixed = MixedBatch(numbered_clips(), LABELS, LABELS.flip(0), 0.3)
    one_hot = torch.eye(7)
    targets = 0.3 * one_hot[LABELS] + 0.7 * one_hot[LABELS.flip(0)]
    targets = (1 - smoothing) * targets + smoothing / 7
    expected = -(targets * logits.log_softmax(dim=1)).sum()
    loss = MixupCutmix(label_smoothing=smoothing).loss(logits, mixed)
    assert loss == pytest.approx(expected.item())


def test_correct_predictions_count_with_the_weight_of_their_label() -> None:
    logits = 10 * torch.eye(7)[[0, 1, 2, 1, 6]]  # clips 0 to 2 have their own label, clip 3 its partner's
    mixed = MixedBatch(numbered_clips(), LABELS, LABELS.flip(0), 0.75)
    clips, top1, _, loss = mixed_metric_sums(logits, mixed, torch.tensor(2.0)).tolist()
    assert (clips, loss) == (5, 2)
    assert top1 == pytest.approx(0.75 + 0.75 + 1 + 0.25)


def test_an_idle_rank_mixes_nothing() -> None:
    no_clips = torch.empty(0, 3, 0, 0, 0)
    for mixup in (MixupCutmix(mixup=1.0), MixupCutmix(cutmix=1.0)):
        mixed = mixup.mix(no_clips, LABELS[:0], 1, 0)
        assert mixed.clips is no_clips
        assert mixup.loss(torch.zeros(0, 7), mixed) == 0


def test_nothing_is_mixed_by_default() -> None:
    clips, logits = numbered_clips(), torch.randn(5, 7)
    mixed = MixupCutmix().mix(clips, LABELS, 1, 0)
    assert mixed.clips is clips
    assert mixed.lam == 1
    loss = torch.nn.functional.cross_entropy(logits, LABELS, reduction="sum")
    assert torch.equal(MixupCutmix().loss(logits, mixed), loss)
    assert torch.equal(mixed_metric_sums(logits, mixed, loss), batch_metric_sums(logits, LABELS, loss))
