"""Tensor-parallel LSTM and GRU: each rank has the gates of its hidden units.

How it works:
1. Hidden units meet only in the product with W_hh. So a rank has the rows of its units in each gate
   of W_ih and W_hh, and its units of the cell state c are used on this rank alone.
2. Before every step the ranks gather h: an all-gather of (b, h) a step and layer in forward, and a
   reduce-scatter in backward.
3. A linear layer communicates once a sequence, and this layer at every step: it pays when the
   weights are large, or do not fit on one rank.

Shapes: s steps, b sequences, i input features, h hidden units, G gates (4 or 3), t ranks.
"""

from __future__ import annotations

from typing import Any

from ... import nn
from ...comm import Communicator
from ...comm.comm_self import CommSelf
from ...kernels import arrays as xp
from ...nn import functional as F
from ...nn.recurrent import WEIGHTS
from ...ops import chunk, communication, stack
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import ParallelLayer, shard_indices, shard_parameter


def _steps(x: Tensor) -> list[Tensor]:
    """x[0], x[1], …, cut in halves: backward then fills log2(s) arrays as large as x, not s."""
    half = len(x) // 2
    return [*_steps(x[:half]), *_steps(x[half:])] if half else [x[0]]


class _TensorParallelRNN(ParallelLayer):
    """Layers in one direction, with the parameter names and initial weights of the full `kind`.

    Input (s, b, i), or (b, s, i) with batch_first, and states (layers, b, h) are replicated, and so
    are the output (s, b, h) and the last states.
    """

    kind: type[nn.LSTM] | type[nn.GRU]
    gates: int
    shown = ("*input_size", "*hidden_size", "num_layers", "bias", "batch_first")

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, *, comm: Communicator | None = None,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm = comm or CommSelf()
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first = bias, batch_first
        full = self.kind(input_size, hidden_size, num_layers, bias, dtype=dtype)
        index = shard_indices(self.gates * hidden_size, self.comm, blocks=self.gates)
        self.units = len(index) // self.gates  # this rank's, h/t
        for name, p in full.named_parameters():
            # (Gh/t, i), (Gh/t, h) or (Gh/t,)
            setattr(self, name, shard_parameter(self, name, p, 0, index, self.comm))

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        self._check(input)
        x = input.transpose(0, 1) if self.batch_first else input
        states = self._given(hx, (self.num_layers, x.shape[1], self.hidden_size))
        last: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            x, *ends = self._layer(layer, x, *(None if h is None else h[layer] for h in states))
            last.append(ends)
        final = [stack(ends) for ends in zip(*last)]
        y = x.transpose(0, 1) if self.batch_first else x
        return y, tuple(final) if len(final) > 1 else final[0]

    def _check(self, input: Tensor) -> None:
        name = type(self).__name__
        if input.ndim != 3 or input.shape[2] != self.input_size:
            form = "(b, s, in)" if self.batch_first else "(s, b, in)"
            raise ValueError(
                f"{name}: input {input.shape}: want {form} with in = {self.input_size}, whole on "
                "every rank; for one sequence add a batch with unsqueeze"
            )
        if not input.shape[int(self.batch_first)]:
            raise ValueError(f"{name}: input {input.shape} has no steps: want at least one")

    def _given(self, hx: Any, want: tuple[int, ...]) -> list[Tensor | None]:
        """The whole states of the wanted shape, or nothing."""
        count = 2 if self.kind is nn.LSTM else 1
        given = [] if hx is None else list(hx) if isinstance(hx, tuple | list) else [hx]
        if given and [h.shape for h in given] != [want] * count:
            raise ValueError(
                f"{type(self).__name__}: states {[h.shape for h in given]}: want {count} of shape "
                f"{want}, whole on every rank, or none for zeros"
            )
        return given or [None] * count

    def _layer(self, layer: int, x: Tensor, *states: Tensor | None) -> list[Tensor]:
        """x (s, b, i) -> the output (s, b, h) and the last states (b, h), all replicated."""
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{n}_l{layer}", None) for n in WEIGHTS)
        zeros = Tensor.of(xp.zeros_like(x.data, shape=(x.shape[1], self.units)))
        # (b, h/t) each: h, and for an LSTM c
        local = [zeros if h is None else communication.scatter(h, self.comm, 1) for h in states]
        outputs: list[Tensor] = []
        gates = F.linear(communication.copy(x, self.comm), w_ih, b_ih)  # (s, b, Gh/t)
        for a in _steps(gates):
            h = communication.all_gather(local[0], self.comm, -1)  # (b, h)
            m = F.linear(h, w_hh, b_hh)  # (b, Gh/t)
            local = self._step(chunk(a, self.gates, -1), chunk(m, self.gates, -1), *local)
            outputs.append(local[0])
        y = communication.gather(stack(outputs), self.comm, -1)  # (s, b, h)
        return [y, y[-1], *(communication.gather(c, self.comm, -1) for c in local[1:])]

    def _step(self, a: Any, m: Any, *local: Tensor) -> list[Tensor]:
        """This rank's next states (b, h/t), from its gates' terms in x (a) and in h (m)."""
        raise NotImplementedError


class TensorParallelLSTM(_TensorParallelRNN):
    """nn.LSTM of which this rank has the four gates of its hidden units; states are (h, c)."""

    kind, gates = nn.LSTM, 4

    def _step(self, a: Any, m: Any, *local: Tensor) -> list[Tensor]:
        i, f, g, o = (p + q for p, q in zip(a, m))
        c = F.sigmoid(f) * local[1] + F.sigmoid(i) * F.tanh(g)
        return [F.sigmoid(o) * F.tanh(c), c]


class TensorParallelGRU(_TensorParallelRNN):
    """nn.GRU of which this rank has the three gates of its hidden units; its state is h."""

    kind, gates = nn.GRU, 3

    def _step(self, a: Any, m: Any, *local: Tensor) -> list[Tensor]:
        r, z = F.sigmoid(a[0] + m[0]), F.sigmoid(a[1] + m[1])
        n = F.tanh(a[2] + r * m[2])
        return [(1 - z) * n + z * local[0]]
