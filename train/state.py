"""Everything that changes during a run, and its two beginnings: new, or as a checkpoint has it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from network.pretrained import load_weights
from train.checkpointing.checkpoint import naming_what_fails
from train.ema import WeightAverage
from train.input_norm import Normalisation
from train.metrics import zero_sums
from train.optimizer import make_optimiser, parameter_roles, restore_optimiser, saved_roles

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """Weights, momentum and the place in the run: `step` steps are done of the epoch after `epochs_done`.

    `sums` `(4,)` and `bad_samples` are those of that epoch so far, `best_top1` is the best validation's.
    `normalisation` is what the weights are trained with. With several processes all have the same but `sums`, which
    each keeps for its own clips.
    """

    network: nn.Module
    average: WeightAverage
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    normalisation: Normalisation
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
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "normalisation": self.normalisation.plain(),
            "generators": {"cpu": torch.get_rng_state()},
            "metrics": {
                "sums": sums.tolist(),
                "bad_samples": self.bad_samples,
                "best_top1": self.best_top1,
            },
        }


def new_state(
    network: nn.Module,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    *,
    weights: Path | None,
    layout: str,
    channel_order: str | None,
    fine_tune: bool,
    fine_tune_factor: float,
    optimiser: str,
    ema: float,
) -> TrainingState:
    """A state before the first step, its network on `device`, filled from a file of weights if one is given.

    Clips are normalised as those that the weights were trained on, in `channel_order` if that is not None.
    """
    filled: Sequence[str] = []
    normalisation = Normalisation()
    if weights is not None:
        report = load_weights(network, weights, layout)
        logger.info("%s", report)
        filled = report.loaded
        if report.normalisation is not None:
            with naming_what_fails(weights):
                normalisation = Normalisation.of(report.normalisation)
    normalisation = replace(normalisation, channel_order=channel_order or normalisation.channel_order)
    network.to(device)
    made = make_optimiser(network, parameter_roles(network, filled, fine_tune), fine_tune_factor, optimiser)
    return TrainingState(
        network=network,
        average=WeightAverage(network, made, ema),
        optimiser=made,
        scaler=scaler,
        normalisation=normalisation,
        sums=zero_sums(device),
    )


def resumed_state(
    network: nn.Module,
    scaler: torch.amp.GradScaler,
    device: torch.device,
    *,
    checkpoint: Mapping[str, Any],
    fine_tune_factor: float,
    optimiser: str,
    ema: float,
) -> TrainingState:
    """The state that a checkpoint holds, on `device`; ValueError where its weights are another network's."""
    trained = checkpoint.get("trained")
    try:
        network.load_state_dict((trained or checkpoint)["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit the network: {error}") from None
    network.to(device)
    roles = saved_roles(checkpoint["optimiser"])
    restored = make_optimiser(network, roles, fine_tune_factor, optimiser)
    restore_optimiser(restored, checkpoint["optimiser"])
    average = WeightAverage(network, restored, ema)
    if trained:
        average.restore(checkpoint["state_dict"], trained["averaged_steps"])
    if checkpoint["scaler"]:  # empty where the run so far was not in fp16
        scaler.load_state_dict(checkpoint["scaler"])
    torch.set_rng_state(checkpoint["generators"]["cpu"])
    metrics = checkpoint["metrics"]
    return TrainingState(
        network=network,
        average=average,
        optimiser=restored,
        scaler=scaler,
        normalisation=Normalisation.of(checkpoint["normalisation"]),
        sums=torch.tensor(metrics["sums"], dtype=torch.float64, device=device),
        epochs_done=checkpoint["epoch"],
        step=checkpoint["step"],
        bad_samples=metrics["bad_samples"],
        best_top1=metrics["best_top1"],
    )
