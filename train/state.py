"""The state of a run: everything that changes while training, new or loaded from a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from network.pretrained import load_weights
from network.published import weights_path
from train.checkpointing.checkpoint import error_context
from train.ema import ModelEma
from train.input_norm import ClipNormalizer
from train.metrics import zero_metric_sums
from train.optimizer import make_optimizer, param_roles, restore_optimizer, saved_param_roles
from train.options import Options

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """The state of a run after `epochs_done` epochs and `step` steps of the next.

    `sums` `(4,)` and `bad_samples` are those of that epoch so far. All ranks have the same state but for `sums`, which
    each counts for its own clips.
    """

    network: nn.Module
    ema: ModelEma
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    normalization: ClipNormalizer
    sums: Tensor
    epochs_done: int = 0
    step: int = 0
    bad_samples: int = 0
    best_top1: float = -1.0

    @property
    def gate_names(self) -> list[str]:
        """The blocks that have gates, such as `layer1.0`."""
        return cast("list[str]", self.network.gate_names)

    def end_epoch(self) -> None:
        """Count an epoch and reset what belongs to it."""
        self.epochs_done += 1
        self.step = 0
        self.bad_samples = 0
        self.sums = torch.zeros_like(self.sums)

    def state_dict(self, sums: Tensor) -> dict[str, Any]:
        """Return the state's entries of a checkpoint; `sums` are those of all ranks."""
        return {
            **self.ema.checkpoint_entries(),
            "epoch": self.epochs_done,
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "normalization": self.normalization.to_dict(),
            "generators": {"cpu": torch.get_rng_state()},
            "metrics": {"sums": sums.tolist(), "bad_samples": self.bad_samples, "best_top1": self.best_top1},
        }

    def load_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load a checkpoint, also the global generator. Raises ValueError if its weights do not fit the network."""
        trained = checkpoint["trained"] or {"state_dict": checkpoint["state_dict"], "ema_steps": 0}
        try:
            self.network.load_state_dict(trained["state_dict"])
        except RuntimeError as error:
            raise ValueError(f"its weights do not fit the network: {error}") from None
        self.ema.restore(checkpoint["state_dict"], trained["ema_steps"])
        restore_optimizer(self.optimizer, checkpoint["optimizer"])
        if checkpoint["scaler"]:  # empty unless the run was in fp16
            self.scaler.load_state_dict(checkpoint["scaler"])
        torch.set_rng_state(checkpoint["generators"]["cpu"])
        metrics = checkpoint["metrics"]
        self.sums += torch.tensor(metrics["sums"], dtype=torch.float64, device=self.sums.device)
        self.epochs_done, self.step = checkpoint["epoch"], checkpoint["step"]
        self.bad_samples, self.best_top1 = metrics["bad_samples"], metrics["best_top1"]


def init_state(
    options: Options, network: nn.Module, device: torch.device, checkpoint: Mapping[str, Any] | None = None
) -> TrainState:
    """Return the state of a checkpoint, or a new one, with pretrained weights if `options` name them."""
    if checkpoint is None:
        loaded, normalization = _load_pretrained(options, network)
        roles = param_roles(network, loaded, options.fine_tune)
    else:
        normalization = ClipNormalizer.from_dict(checkpoint["normalization"])
        roles = saved_param_roles(checkpoint["optimizer"])
    network.to(device)
    optimizer = make_optimizer(network, roles, options.fine_tune_factor, options.optimizer)
    state = TrainState(
        network=network,
        ema=ModelEma(network, optimizer, options.ema_decay),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=options.precision == "fp16"),
        normalization=replace(normalization, channels_last=bool(options.channels_last)),
        sums=zero_metric_sums(device),
    )
    if checkpoint is not None:
        state.load_state_dict(checkpoint)
    return state


def _load_pretrained(options: Options, network: nn.Module) -> tuple[Sequence[str], ClipNormalizer]:
    """Return the names of the loaded tensors, if any, and the normalization of their network's input.

    `options.channel_order` replaces its channel order if that is not None.
    """
    loaded: Sequence[str] = []
    normalization = ClipNormalizer()
    if options.pretrained_3d is not None:
        report = load_weights(network, weights_path(options.pretrained_3d), options.pretrained_format)
        logger.info("%s", report)
        if warning := report.check(options.network, options.allow_partial):
            logger.warning("%s", warning)
        loaded = report.loaded
        if report.normalization is not None:
            with error_context(options.pretrained_3d):
                normalization = ClipNormalizer.from_dict(report.normalization)
    elif options.freeze_batchnorm:
        logger.warning("--freeze-batchnorm: without --pretrained-3d, BatchNorm layers do not normalize")
    return loaded, replace(normalization, channel_order=options.channel_order or normalization.channel_order)
