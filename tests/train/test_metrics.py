"""Known answers, uneven batches."""

import math

import torch

from train.metrics import averages, batch_metric_sums, zero_metric_sums


def test_averages_weigh_clips_not_batches() -> None:
    """The original averaged running averages: 0.75 was reported where 0.46 was true."""
    sums = zero_metric_sums(torch.device("cpu"))
    right = torch.eye(8)[:1] * 9
    wrong = torch.eye(8)[1:4] * 9
    sums += batch_metric_sums(right, torch.tensor([0]), torch.tensor(1.0))
    sums += batch_metric_sums(wrong, torch.tensor([7, 7, 7]), torch.tensor(3.0))
    result = averages(sums)
    assert result.top1 == 0.25
    assert result.loss == (1 + 3 * 3) / 4


def test_top5_counts_the_five_best() -> None:
    logits = torch.arange(8.0).repeat(8, 1)
    result = averages(batch_metric_sums(logits, torch.arange(8), torch.tensor(0.0)))
    assert result.top1 == 1 / 8
    assert result.top5 == 5 / 8


def test_three_classes_have_a_top5() -> None:
    """The original could not train on fewer than five."""
    result = averages(batch_metric_sums(torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.tensor(0.0)))
    assert result.top5 == 1.0


def test_nothing_counted_is_no_number() -> None:
    assert all(math.isnan(value) for value in averages(zero_metric_sums(torch.device("cpu"))))


def test_answers_that_are_no_numbers_are_no_hits() -> None:
    """They counted for the first classes, and a network that had nothing but those could be the best of a run."""
    logits = torch.tensor([[float("nan")] * 8, [9.0, *[0.0] * 7], [float("inf"), *[0.0] * 7]])
    sums = batch_metric_sums(logits, torch.zeros(3, dtype=torch.long), torch.tensor(0.0))
    assert averages(sums).top1 == averages(sums).top5 == 1 / 3
