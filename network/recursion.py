"""Squeeze and recursion with a temporal gate: the recurrent branch that `srtg_` networks add to each block.

Stergiou & Poppe, "Learn to cycle: time-consistent feature discovery for action recognition", Pattern Recognition
Letters 2021, section 3. All clips of a batch are computed at once, without waiting for the device.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RecurrentCell(nn.RNNBase):
    """Two recurrent layers, from the frames of clips `(T, B, C)` to as many outputs, with PyTorch's names of weights.

    PyTorch's own kernels need few launches on a GPU. For torch.compile, which rejects them (`nn.LSTM`, `nn.GRU`), the
    layers are also written out in plain operations.
    """

    kernel: Callable[..., tuple[Tensor, ...]]  # PyTorch's own function
    step: Callable[..., tuple[Tensor, Tensor]]  # returns the next output and memory, of which a GRU has none

    def __init__(self, channels: int) -> None:
        super().__init__(type(self).__name__, channels, channels, num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        # not is_compiling(), which is also true in torch.export: it can keep the kernel
        return self.unrolled(x) if torch.compiler.is_dynamo_compiling() else self.fused(x)

    def unrolled(self, x: Tensor) -> Tensor:
        for weight_ih, weight_hh, bias_ih, bias_hh in self.all_weights:
            inputs = F.linear(x, weight_ih, bias_ih)  # of all frames at once
            # with a product of zeros for the first frame: all weights get a gradient from clips of one frame too
            output = memory = x.new_zeros(x.shape[1:])
            outputs = []
            for frame in inputs.unbind():
                output, memory = self.step(frame, F.linear(output, weight_hh, bias_hh), output, memory)
                outputs.append(output)
            x = torch.stack(outputs)
        return x

    def fused(self, x: Tensor) -> Tensor:
        # A replica of DataParallel has no parameters, but separate copies of them; cuDNN needs them in one piece.
        if not list(self.parameters()):
            self.flatten_parameters()
        zeros = x.new_zeros(2, x.shape[1], self.hidden_size)
        state = (zeros, zeros) if self.mode == "LSTM" else zeros
        weights = [weight for layer in self.all_weights for weight in layer]
        _disable_rnn_tf32()
        try:
            outputs = self.kernel(x, state, weights, True, 2, 0.0, self.training, False, False)[0]
        finally:
            _restore_rnn_tf32()
        if outputs.grad_fn is not None:  # the backward pass needs the setting of the forward pass
            outputs.grad_fn.register_prehook(_disable_rnn_tf32)
            outputs.grad_fn.register_hook(_restore_rnn_tf32)
        return outputs


def _disable_rnn_tf32(*_: object) -> None:
    """Let cuDNN compute recurrent layers in full fp32: the decisions of gates depend on small differences."""
    torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]  # no such stub


def _restore_rnn_tf32(*_: object) -> None:
    # as of convolutions: where both differ, reading torch.backends.cudnn.allow_tf32 is an error
    torch.backends.cudnn.rnn.fp32_precision = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]


class LSTM(RecurrentCell):
    """Hochreiter & Schmidhuber, "Long short-term memory", Neural Computation 1997, as `nn.LSTM`."""

    kernel = staticmethod(torch.lstm)

    @staticmethod
    def step(inputs: Tensor, recurrent: Tensor, output: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        in_gate, forget_gate, new, out_gate = (inputs + recurrent).chunk(4, dim=1)
        memory = torch.addcmul(forget_gate.sigmoid() * memory, in_gate.sigmoid(), new.tanh())
        return out_gate.sigmoid() * memory.tanh(), memory


class GRU(RecurrentCell):
    """Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014, as `nn.GRU`."""

    kernel = staticmethod(torch.gru)

    @staticmethod
    def step(inputs: Tensor, recurrent: Tensor, output: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        reset_in, update_in, new_in = inputs.chunk(3, dim=1)
        reset, update, new = recurrent.chunk(3, dim=1)
        new = torch.addcmul(new_in, (reset_in + reset).sigmoid(), new).tanh()
        return torch.lerp(new, output, (update_in + update).sigmoid()), memory


# cell -> (attribute, which is in the names of published weights; class; biases of the last layer that give outputs near
# one, in PyTorch's order of the cell's gates: input, forget, cell, output of an LSTM; reset, update, new of a GRU)
CELLS: dict[str, tuple[str, type[RecurrentCell], tuple[float, ...]]] = {
    "lstm": ("lstm", LSTM, (3.0, 1.0, 2.0, 3.0)),
    "gru": ("op", GRU, (0.0, -2.0, 2.0)),
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
        self.add_module(self.cell_name, cell_class(channels))
        if init == "identity":
            self._init_identity(biases)

    @property
    def cell(self) -> RecurrentCell:
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
        # no half precision: the decisions of gates depend on small differences (the meta device has no autocast)
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            dtype = self.cell.all_weights[0][0].dtype
            # not mean(), whose gradient is written out for all pixels before it is added to that of the product
            total = x.sum(dim=(3, 4), dtype=torch.float64 if dtype == torch.float64 else torch.float32)
            pooled = (total / (x.shape[3] * x.shape[4])).to(dtype)
            outputs = self.cell(pooled.permute(2, 0, 1))  # (T, B, C)
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
        return x * recurrent.unflatten(2, (-1, 1, 1)).to(x.dtype), gate_values
