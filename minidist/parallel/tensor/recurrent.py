"""Tensor-parallel LSTM and GRU: each rank has the gates of its hidden units.

How it works:
1. Hidden units meet only in the product with W_hh. So a rank has the rows of its units in each gate
   of W_ih and W_hh, and its units of the cell state c are used on this rank alone.
2. After every step the ranks gather h: an all-gather of (b, h) a step and layer in forward, and a
   reduce-scatter in backward. All else is the text of nn.LSTM and nn.GRU (kernels/recurrent.py).
3. A linear layer communicates once a sequence, and this layer at every step: it pays when the
   weights are large, or do not fit on one rank.

Shapes: s steps, b sequences, i input features, h hidden units, G gates (4 or 3), t ranks.
"""

from __future__ import annotations

from typing import Any

from ... import nn
from ...comm import Communicator, all_gather, reduce_scatter, shard_bounds
from ...comm.comm_self import CommSelf
from ...kernels import arrays as xp
from ...kernels.recurrent import GATES, Ranks
from ...nn.recurrent import WEIGHTS
from ...ops import communication, stack
from ...ops.recurrent import recurrent
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import ParallelLayer, shard_indices, shard_parameter


def _ranks(comm: Communicator, units: int) -> Ranks | None:
    """How this rank, which has its share of the hidden units, meets the others' (None: alone)."""
    if comm.size == 1:
        return None
    bounds = shard_bounds(units, comm.size)
    counts = [stop - start for start, stop in bounds]

    def gather(own: xp.ndarray) -> xp.ndarray:
        """(b, h/t) -> (b, h); collectives join and cut rows, so the units are made rows."""
        return all_gather(comm, xp.ascontiguousarray(own.T), counts).T

    def scatter(terms: xp.ndarray) -> xp.ndarray:
        """(b, h) -> (b, h/t)."""
        return reduce_scatter(comm, xp.ascontiguousarray(terms.T), "sum", "auto", counts).T

    return Ranks(slice(*bounds[comm.rank]), gather, scatter)


class _TensorParallelRNN(ParallelLayer):
    """Layers in one direction, with the parameter names and initial weights of the full `kind`.

    Input (s, b, i), or (b, s, i) with batch_first, and states (layers, b, h) are replicated, and so
    are the output (s, b, h) and the last states.
    """

    kind: type[nn.LSTM] | type[nn.GRU]
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
        gates = GATES[full.mode]
        index = shard_indices(gates * hidden_size, self.comm, blocks=gates)
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
        weights = (getattr(self, f"{name}_l{layer}", None) for name in WEIGHTS)
        s, b, width = x.shape
        rows = communication.copy(x, self.comm).reshape(s * b, width)
        h0, c0 = [*states, None][:2]
        ranks = _ranks(self.comm, self.hidden_size)
        y, *last = recurrent(self.kind.mode, rows, h0, c0, *weights, sizes=[b] * s, ranks=ranks)
        return [y.reshape(s, b, self.hidden_size), *(end for end in last if end is not None)]


class TensorParallelLSTM(_TensorParallelRNN):
    """nn.LSTM. This rank has the four gates of its hidden units; the states are (h, c)."""

    kind = nn.LSTM


class TensorParallelGRU(_TensorParallelRNN):
    """nn.GRU. This rank has the three gates of its hidden units; the state is h."""

    kind = nn.GRU
