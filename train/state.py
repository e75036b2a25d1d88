"""Everything that changes during a run, and its two beginnings: new, or as a checkpoint has it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from network.pretrained import load_weights
from train.checkpointing.checkpoint import error_context
from train.ema import ModelEma
from train.input_norm import ClipNormalizer
from train.metrics import zero_metric_sums
from train.optimizer import make_optimizer, param_roles, restore_optimizer, saved_roles

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Weights, momentum and the place in the run: `step` steps are done of the epoch after `epochs_done`.

    `sums` `(4,)` and `bad_samples` are those of that epoch so far, `best_top1` is the best validation's.
    `normalization` is what the weights are trained with. With several processes all have the same but `sums`, which
    each keeps for its own clips.
    """

    network: nn.Module
    average: ModelEma
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    normalization: ClipNormalizer
    sums: Tensor
    epochs_done: int = 0
    step: int = 0
    bad_samples: int = 0
    best_top1: float = -1.0

    def end_epoch(self) -> None:
        self.epochs_done += 1
        self.step = 0
        self.bad_samples = 0
        self.sums = torch.zeros_like(self.sums)

    def content(self, sums: Tensor) -> dict[str, Any]:
        """This state's part of a checkpoint, plain values and tensors (see train.checkpointing.checkpoint.KEYS); `sums` over all."""
        return {
            **self.average.content(),
            "epoch": self.epochs_done,
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "normalization": self.normalization.plain(),
            "generators": {"cpu": torch.get_rng_state()},
            "metrics": {
                "sums": sums.tolist(),
                "bad_samples": self.bad_samples,
                "best_top1": self.best_top1,
            },
        }


def init_state(
    network: nn.Module,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    *,
    weights: Path | None,
    layout: str,
    channel_order: str | None,
    fine_tune: bool,
    fine_tune_factor: float,
    optimizer: str,
    ema: float,
) -> TrainState:
    """A state before the first step, its network on `device`, filled from a file of weights if one is given.

    Clips are normalised as those that the weights were trained on, in `channel_order` if that is not None.
    """
    filled: Sequence[str] = []
    normalization = ClipNormalizer()
    if weights is not None:
        report = load_weights(network, weights, layout)
        logger.info("%s", report)
        filled = report.loaded
        if report.normalization is not None:
            with error_context(weights):
                normalization = ClipNormalizer.of(report.normalization)
    normalization = replace(normalization, channel_order=channel_order or normalization.channel_order)
    network.to(device)
    made = make_optimizer(network, param_roles(network, filled, fine_tune), fine_tune_factor, optimizer)
    return TrainState(
        network=network,
        average=ModelEma(network, made, ema),
        optimizer=made,
        scaler=scaler,
        normalization=normalization,
        sums=zero_metric_sums(device),
    )


def load_state(
    network: nn.Module,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    *,
    checkpoint: Mapping[str, Any],
    fine_tune_factor: float,
    optimizer: str,
    ema: float,
) -> TrainState:
    """The state that a checkpoint holds, on `device`; ValueError where its weights are another network's."""
    trained = checkpoint.get("trained")
    try:
        network.load_state_dict((trained or checkpoint)["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit the network: {error}") from None
    network.to(device)
    roles = saved_roles(checkpoint["optimizer"])
    restored = make_optimizer(network, roles, fine_tune_factor, optimizer)
    restore_optimizer(restored, checkpoint["optimizer"])
    average = ModelEma(network, restored, ema)
    if trained:
        average.restore(checkpoint["state_dict"], trained["ema_steps"])
    if checkpoint["scaler"]:  # empty where the run so far was not in fp16
        scaler.load_state_dict(checkpoint["scaler"])
    torch.set_rng_state(checkpoint["generators"]["cpu"])
    metrics = checkpoint["metrics"]
    return TrainState(
        network=network,
        average=average,
        optimizer=restored,
        scaler=scaler,
        normalization=ClipNormalizer.of(checkpoint["normalization"]),
        sums=torch.tensor(metrics["sums"], dtype=torch.float64, device=device),
        epochs_done=checkpoint["epoch"],
        step=checkpoint["step"],
        bad_samples=metrics["bad_samples"],
        best_top1=metrics["best_top1"],
    )
