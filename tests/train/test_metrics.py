"""Metrics with known values."""

import math

import torch

from train.metrics import batch_metric_sums, compute_metrics, zero_metric_sums

NO_LOSS = torch.tensor(0.0)


def test_means_are_over_clips_not_batches() -> None:
    """The original averaged running averages: it reported 0.75 for 0.46."""
    sums = zero_metric_sums(torch.device("cpu"))
    sums += batch_metric_sums(torch.eye(8)[:1], torch.tensor([0]), torch.tensor(1.0))  # correct
    sums += batch_metric_sums(torch.eye(8)[1:4], torch.tensor([7, 7, 7]), torch.tensor(9.0))
    metrics = compute_metrics(sums)
    assert metrics.top1 == 0.25
    assert metrics.loss == (1 + 9) / 4


def test_top5_counts_the_five_best() -> None:
    metrics = compute_metrics(batch_metric_sums(torch.arange(8.0).repeat(8, 1), torch.arange(8), NO_LOSS))
    assert (metrics.top1, metrics.top5) == (1 / 8, 5 / 8)


def test_top5_of_three_classes_is_1() -> None:
    """The original could not train on fewer than five."""
    sums = batch_metric_sums(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), NO_LOSS)
    assert compute_metrics(sums).top5 == 1.0


def test_metrics_of_no_clips_are_nan() -> None:
    assert all(math.isnan(value) for value in compute_metrics(zero_metric_sums(torch.device("cpu"))))


def test_logits_that_are_not_finite_are_not_correct() -> None:
    """They counted as the first classes, so a diverged network could be the best of a run."""
    logits = torch.tensor([[float("nan")] * 8, [9.0, *[0.0] * 7], [float("inf"), *[0.0] * 7]])
    metrics = compute_metrics(batch_metric_sums(logits, torch.zeros(3, dtype=torch.long), NO_LOSS))
    assert metrics.top1 == metrics.top5 == 1 / 3
