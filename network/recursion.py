"""Squeeze and recursion with a temporal gate: what `srtg_` adds to a network.

Stergiou & Poppe, "Learn to cycle: time-consistent feature discovery for action recognition", Pattern
Recognition Letters 2021, section 3. All clips of a batch are treated at once; nothing waits for the device.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

# Attribute (that of published weights), class, and the biases of the last layer with which outputs start near
# one, in PyTorch's order of gates: input, forget, cell, output for the LSTM; reset, update, new for the GRU.
_CELLS: dict[str, tuple[str, type[nn.RNNBase], Sequence[float]]] = {
    "lstm": ("lstm", nn.LSTM, (3.0, 1.0, 2.0, 3.0)),
    "gru": ("op", nn.GRU, (0.0, -2.0, 2.0)),
}


def _closeness(a: Tensor, b: Tensor) -> Tensor:
    """`(B, C, T)` twice -> `(B, T, T)`: at [t, i] minus the squared distance of frames a_t and b_i.

    Differences first, as `|a|^2 + |b|^2 - 2ab` would lose equal frames to rounding.
    """
    return -(a.unsqueeze(3) - b.unsqueeze(2)).square().sum(dim=1)


def _return_closeness(a: Tensor, b: Tensor) -> Tensor:
    """From each frame of a to its soft nearest neighbour s in b, and from there to all frames of a.

    `(B, C, T)` twice -> `(B, T, T)`: at [t, j] minus the squared distance of s_t and frame j of a.
    """
    if a.dim() != 3 or a.shape != b.shape:
        raise ValueError(f"expected two sequences (B, C, T), got {tuple(a.shape)} and {tuple(b.shape)}")
    dtype = torch.promote_types(a.dtype, torch.float32)  # squares of 1e3 leave the range of fp16
    a, b = a.to(dtype), b.to(dtype)
    weights = _closeness(a, b).softmax(dim=2)  # (B, T, T)
    # No matrix product: autocast would round it to half precision.
    nearest = (weights.unsqueeze(1) * b.unsqueeze(2)).sum(dim=3)  # (B, C, T)
    return _closeness(nearest, a)


def _cycles(a: Tensor, b: Tensor) -> Tensor:
    closeness = _return_closeness(a, b)
    own = closeness.diagonal(dim1=1, dim2=2)  # (B, T)
    return (own >= closeness.amax(dim=2)).all(dim=1)


@torch.no_grad()
def cycle_consistent(a: Tensor, b: Tensor) -> Tensor:
    """Which clips are cycle-consistent in both directions: two sequences `(B, C, T)` -> bool `(B,)`.

    From a to b: for every t, the frame of a that is nearest to the soft nearest neighbour of a_t in b is a_t
    itself (another frame at the same distance does not matter). No gradient flows through the decision.
    """
    return _cycles(a, b) & _cycles(b, a)


def _log_return_probability(a: Tensor, b: Tensor) -> Tensor:
    own = _return_closeness(a, b).log_softmax(dim=2).diagonal(dim1=1, dim2=2)  # (B, T)
    return own.logsumexp(dim=1) - math.log(own.shape[1])


def soft_consistency(a: Tensor, b: Tensor) -> Tensor:
    """How cycle-consistent clips are, differentiably: two sequences `(B, C, T)` -> p in [0, 1], `(B,)`.

    From a to b: the probability to come back to frame t, averaged over t. p is the geometric mean of both
    directions, in logarithms, where a probability that underflows keeps a finite gradient.
    """
    return ((_log_return_probability(a, b) + _log_return_probability(b, a)) / 2).exp()


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """Full precision within; meta tensors, which only have shapes, know no autocast that could be off."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class SqueezeRecursion(nn.Module):
    """Multiply features by what a recurrent network makes of their means over each frame.

    Args:
        channels: of the features, and of both recurrent layers.
        cell: "lstm" (SRTG) or "gru" (MTNet).
        gates: False: always multiply. True: only clips whose pooled input and recurrent output, h, are
            cycle-consistent. "soft": multiply by 1 + p (h - 1), with p their soft consistency.
        init: "identity" starts with outputs near 1; "default" is PyTorch's, which starts near 0, so that each
            block scales its features by about 0.1.
    """

    def __init__(
        self, channels: int, cell: str = "lstm", gates: bool | str = False, init: str = "identity"
    ) -> None:
        super().__init__()
        if cell not in _CELLS:
            raise ValueError(f"cell is {cell!r}, and must be one of {', '.join(_CELLS)}")
        if gates not in (False, True, "soft"):
            raise ValueError(f"gates is {gates!r}, and must be False, True or 'soft'")
        if init not in ("identity", "default"):
            raise ValueError(f"recursion_init is {init!r}, and must be 'identity' or 'default'")
        self.gates = gates
        self.cell_name, cell_class, biases = _CELLS[cell]
        self.add_module(self.cell_name, cell_class(channels, channels, num_layers=2))
        if init == "identity":
            self._init_identity(biases)

    @property
    def cell(self) -> nn.RNNBase:
        """The two recurrent layers."""
        return getattr(self, self.cell_name)

    @torch.no_grad()
    def _init_identity(self, biases: Sequence[float]) -> None:
        for part, bias in zip(self.cell.bias_ih_l1.chunk(len(biases)), biases, strict=True):
            part.fill_(bias)
        self.cell.bias_hh_l1.zero_()

    def _recur(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, C, T, H, W)` -> pooled input and recurrent output, both `(B, C, T)`, of the weights' type."""
        # A DataParallel replica's weights are separate copies; the cell wants them in one piece.
        if getattr(self, "_is_replica", False):
            self.cell.flatten_parameters()
        with _without_autocast(x.device):  # the decisions of gates hang on small differences
            pooled = x.mean(dim=(3, 4), dtype=self.cell.weight_ih_l0.dtype)
            outputs, _ = self.cell(pooled.permute(2, 0, 1))  # (T, B, C)
        return pooled, outputs.permute(1, 2, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """`(B, C, T, H, W)` -> the same shape; openings `(B,)`, bool, or p if soft, None without gates."""
        pooled, recurrent = self._recur(x)
        opening = None
        if self.gates == "soft":
            opening = soft_consistency(pooled, recurrent)
            recurrent = 1 + opening[:, None, None] * (recurrent - 1)
        elif self.gates:
            opening = cycle_consistent(pooled, recurrent)
            recurrent = torch.where(opening[:, None, None], recurrent, 1.0)
        return x * recurrent[..., None, None].to(x.dtype), opening
