"""Squeeze and recursion with a temporal gate: the recurrent branch that `srtg_` networks add to each block.

Stergiou & Poppe, "Learn to cycle: time-consistent feature discovery for action recognition", Pattern Recognition
Letters 2021, section 3. All clips of a batch are computed at once, without waiting for the device.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

# cell -> (attribute, which is in the names of published weights; class; biases of the last layer that give outputs near
# one, in PyTorch's order of the cell's gates: input, forget, cell, output of an LSTM; reset, update, new of a GRU)
CELLS: dict[str, tuple[str, Callable[..., nn.RNNBase], tuple[float, ...]]] = {
    "lstm": ("lstm", nn.LSTM, (3.0, 1.0, 2.0, 3.0)),
    "gru": ("op", nn.GRU, (0.0, -2.0, 2.0)),
}


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the negative squared distances of frames: two `(B, C, T)` -> `(B, T, T)`, [t, i] for a_t and b_i."""
    # not |a|^2 + |b|^2 - 2ab, in which rounding hides that frames are equal
    return -(a.unsqueeze(3) - b.unsqueeze(2)).square().sum(dim=1)


def _return_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Return the similarity of frames of a to the soft nearest neighbours, in b, of frames of a.

    Two sequences `(B, C, T)` -> `(B, T, T)`: [t, j] for a_j and the soft nearest neighbour of a_t.
    """
    if a.dim() != 3 or a.shape != b.shape:
        raise ValueError(f"expected two sequences (B, C, T), got {tuple(a.shape)} and {tuple(b.shape)}")
    dtype = torch.promote_types(a.dtype, torch.float32)  # squares of 1e3 overflow fp16
    a, b = a.to(dtype), b.to(dtype)
    weights = _similarity(a, b).softmax(dim=2)  # (B, T, T)
    # not a matrix product, which autocast would round to half precision
    nearest = (weights.unsqueeze(1) * b.unsqueeze(2)).sum(dim=3)  # (B, C, T)
    return _similarity(nearest, a)


@torch.no_grad()
def consistent_one_way(a: Tensor, b: Tensor) -> Tensor:
    """Return which clips are cycle-consistent from a to b: two sequences `(B, C, T)` -> bool `(B,)`.

    For every t, the frame of a that is nearest to the soft nearest neighbour of a_t in b must be a_t itself (another
    frame at the same distance does not matter).
    """
    similarity = _return_similarity(a, b)
    own = similarity.diagonal(dim1=1, dim2=2)  # (B, T)
    return (own >= similarity.amax(dim=2)).all(dim=1)


def cycle_consistent(a: Tensor, b: Tensor) -> Tensor:
    """Return which clips are cycle-consistent in both directions: two sequences `(B, C, T)` -> bool `(B,)`.

    The decision has no gradient.
    """
    return consistent_one_way(a, b) & consistent_one_way(b, a)


def _log_return_probability(a: Tensor, b: Tensor) -> Tensor:
    own = _return_similarity(a, b).log_softmax(dim=2).diagonal(dim1=1, dim2=2)  # (B, T)
    return own.logsumexp(dim=1) - math.log(own.shape[1])


def soft_consistency(a: Tensor, b: Tensor) -> Tensor:
    """Return how cycle-consistent clips are, differentiably: two sequences `(B, C, T)` -> p in [0, 1], `(B,)`.

    From a to b: the probability of returning to frame t, averaged over t. p is the geometric mean of both directions,
    computed in logarithms, where a probability that underflows has a finite gradient.
    """
    return ((_log_return_probability(a, b) + _log_return_probability(b, a)) / 2).exp()


class SqueezeRecursion(nn.Module):
    """Multiplication of features by the output of a two-layer recurrent network that sees their mean over each frame.

    Args:
        channels: of the features, and of both recurrent layers.
        cell: "lstm" (SRTG) or "gru" (MTNet).
        gates: False: always multiply. True: multiply only clips whose pooled input and recurrent output, h, are
            cycle-consistent. "soft": multiply by 1 + p (h - 1), with p their soft consistency.
        init: "identity" starts with outputs near 1; "default" is PyTorch's, which starts near 0, so that each block
            scales its features by about 0.1.
    """

    def __init__(
        self, channels: int, cell: str = "lstm", gates: bool | str = False, init: str = "identity"
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell is {cell!r}, and must be one of {', '.join(CELLS)}")
        if gates not in (False, True, "soft"):
            raise ValueError(f"gates is {gates!r}, and must be False, True or 'soft'")
        if init not in ("identity", "default"):
            raise ValueError(f"recursion_init is {init!r}, and must be 'identity' or 'default'")
        self.gates = gates
        self.cell_name, cell_class, biases = CELLS[cell]
        self.add_module(self.cell_name, cell_class(channels, channels, num_layers=2))
        if init == "identity":
            self._init_identity(biases)

    @property
    def cell(self) -> nn.RNNBase:
        """The two recurrent layers."""
        return getattr(self, self.cell_name)

    @torch.no_grad()
    def _init_identity(self, biases: tuple[float, ...]) -> None:
        parts = self.cell.get_parameter("bias_ih_l1").chunk(len(biases))
        for part, bias in zip(parts, biases, strict=True):
            part.fill_(bias)
        self.cell.get_parameter("bias_hh_l1").zero_()

    def _recur(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, C, T, H, W)` -> pooled input and recurrent output, both `(B, C, T)`, in the dtype of the weights."""
        # A replica of DataParallel has no parameters, but separate copies of them; cuDNN needs them in one piece.
        if not list(self.cell.parameters()):
            self.cell.flatten_parameters()
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device)  # not on the meta device
        # no half precision: the decisions of gates depend on small differences
        with torch.autocast(device, enabled=False) if autocast else nullcontext():
            pooled = x.mean(dim=(3, 4), dtype=self.cell.all_weights[0][0].dtype)
            outputs, _ = self.cell(pooled.permute(2, 0, 1))  # (T, B, C)
        return pooled, outputs.permute(1, 2, 0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features of the shape of x, `(B, C, T, H, W)`, and gate values `(B,)`.

        Gate values are bool, or p for soft gates, or None without gates.
        """
        pooled, recurrent = self._recur(x)
        gate_values = None
        if self.gates == "soft":
            gate_values = soft_consistency(pooled, recurrent)
            recurrent = 1 + gate_values[:, None, None] * (recurrent - 1)
        elif self.gates:
            gate_values = cycle_consistent(pooled, recurrent)
            recurrent = torch.where(gate_values[:, None, None], recurrent, 1.0)
        return x * recurrent[..., None, None].to(x.dtype), gate_values
