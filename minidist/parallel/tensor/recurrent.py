"""Tensor-parallel LSTM and GRU: each rank has the gates of its hidden units.

Hidden units meet in the product with W_hh alone. So a rank has the rows of its units in each gate
of W_ih and W_hh, keeps its units of c to itself, and gathers h before every step: an all-gather of
(b, h) a step and layer, and a reduce-scatter on the way back. Where a linear layer sends once a
sequence, this sends at every step: it pays when the weights are large, or do not fit.
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
from ..layout import Part, shares


def _steps(x: Tensor) -> list[Tensor]:
    """x[0], x[1], …, by halves: backward then fills log2(s) arrays as large as x, and not s."""
    half = len(x) // 2
    return [*_steps(x[:half]), *_steps(x[half:])] if half else [x[0]]


class _TensorParallelRNN(nn.Module):
    """Layers in one direction, with the parameters' names and first values of the whole `kind`.

    Input (s, b, in), or (b, s, in) with batch_first, and states (layers, b, h) are whole on every
    rank, and so are the output (s, b, h) and the last states.
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
        whole = self.kind(input_size, hidden_size, num_layers, bias, dtype=dtype)
        index = shares(self.gates * hidden_size, self.comm, blocks=self.gates)
        self.units = len(index) // self.gates  # this rank's
        self.parts: dict[str, Part] = {}
        for name, p in whole.named_parameters():
            part = self.parts[name] = Part(p.shape, 0, index, self.comm)
            setattr(self, name, nn.Parameter(Tensor.of(part.of(p.data))))

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
        """Whole x (s, b, in) -> the whole output (s, b, h) and the whole last states (b, h)."""
        w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{n}_l{layer}", None) for n in WEIGHTS)
        zeros = Tensor.of(xp.zeros_like(x.data, shape=(x.shape[1], self.units)))
        mine = [zeros if h is None else communication.scatter(h, self.comm, 1) for h in states]
        outputs: list[Tensor] = []
        for a in _steps(F.linear(communication.copy(x, self.comm), w_ih, b_ih)):
            m = F.linear(communication.all_gather(mine[0], self.comm, -1), w_hh, b_hh)
            mine = self._step(chunk(a, self.gates, -1), chunk(m, self.gates, -1), *mine)
            outputs.append(mine[0])
        y = communication.gather(stack(outputs), self.comm, -1)
        return [y, y[-1], *(communication.gather(c, self.comm, -1) for c in mine[1:])]

    def _step(self, a: Any, m: Any, *mine: Tensor) -> list[Tensor]:
        """This rank's next states, of its gates' parts from x and from the whole h."""
        raise NotImplementedError


class TensorParallelLSTM(_TensorParallelRNN):
    """nn.LSTM of which this rank has the four gates of its hidden units; states are (h, c)."""

    kind, gates = nn.LSTM, 4

    def _step(self, a: Any, m: Any, *mine: Tensor) -> list[Tensor]:
        i, f, g, o = (p + q for p, q in zip(a, m))
        c = F.sigmoid(f) * mine[1] + F.sigmoid(i) * F.tanh(g)
        return [F.sigmoid(o) * F.tanh(c), c]


class TensorParallelGRU(_TensorParallelRNN):
    """nn.GRU of which this rank has the three gates of its hidden units; its state is h."""

    kind, gates = nn.GRU, 3

    def _step(self, a: Any, m: Any, *mine: Tensor) -> list[Tensor]:
        r, z = F.sigmoid(a[0] + m[0]), F.sigmoid(a[1] + m[1])
        n = F.tanh(a[2] + r * m[2])
        return [(1 - z) * n + z * mine[0]]
