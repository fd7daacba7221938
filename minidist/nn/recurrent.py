"""RNN, LSTM and GRU, and their cells: PyTorch's names, weights and equations.

Ready to be split: each weight (gates·hidden, in) is, read as (gates, hidden, in), one row for each
hidden unit of each gate; kernels/recurrent.py says what ranks that hold ranges must exchange.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..amp.autocast import is_autocast_enabled
from ..kernels import arrays as xp
from ..kernels.recurrent import GATES
from ..ops import cat
from ..ops.dropout import keep_mask
from ..ops.recurrent import backwards, recurrent
from ..tensor.dtypes import DEFAULT, DTypeLike
from ..tensor.tensor import Tensor
from . import init
from .layers import empty
from .module import Module
from .utils.rnn import PackedSequence

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
SHOWN = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0,
         "bidirectional": False}  # fmt: skip


def _each(states: Any, f: Callable[[Tensor], Tensor]) -> Any:
    """f of h, of (h, c), or of nothing."""
    if isinstance(states, tuple | list):
        return tuple(map(f, states))
    return None if states is None else f(states)


class _Recurrent(Module):
    """What layers and cells share. `mode` is PyTorch's name for the kind."""

    mode: str
    input_size: int
    hidden_size: int

    def _add_weights(self, suffix: str, into: int, hidden: int, bias: bool, dtype: Any) -> None:
        """weight_ih (gates·h, in), weight_hh (gates·h, h), two biases (gates·h)."""
        rows = GATES[self.mode] * hidden
        for name, shape in zip(WEIGHTS, [(rows, into), (rows, hidden), (rows,), (rows,)]):
            wanted = bias or name.startswith("weight")
            setattr(self, name + suffix, empty(*shape, dtype=dtype) if wanted else None)

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(h)."""
        for p in self.parameters():
            init.uniform_(p, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def _weights(self, suffix: str) -> list[Tensor | None]:
        return [getattr(self, name + suffix) for name in WEIGHTS]

    def _given(self, hx: Any, *want: int) -> list[Any]:
        """h0 and c0 of the wanted shape, or None."""
        given = [] if hx is None else list(hx) if isinstance(hx, tuple | list) else [hx]
        count, shapes = 2 if self.mode == "LSTM" else 1, [h.shape for h in given]
        if given and shapes != [want] * count:
            raise RuntimeError(f"{self.mode}: states {shapes}: want {count} of shape {want}")
        return [*given, None, None][:2]

    def _states(self, last: list[Tensor]) -> Any:
        return tuple(last) if self.mode == "LSTM" else last[0]

    def extra_repr(self) -> str:
        changed = (f", {k}={v}" for k, d in SHOWN.items() if (v := getattr(self, k, d)) != d)
        return f"{self.input_size}, {self.hidden_size}" + "".join(changed)


class RNNBase(_Recurrent):
    """Layers of one kind over whole sequences.

    Input (s, b, in), (b, s, in) with batch_first, (s, in) without a batch, or a PackedSequence;
    states (layers·directions, b, h), zeros unless given. Returns the output of the last layer
    (s, b, directions·h), in the input's form, and the last states.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        dtype: DTypeLike = DEFAULT, name: str = "rnn",
    ):  # fmt: skip
        """`name` keys the masks of the dropout between layers."""
        if min(hidden_size, num_layers) < 1:
            raise ValueError(f"hidden_size {hidden_size}, num_layers {num_layers}: want > 0")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout = {dropout}: want 0 <= dropout <= 1")
        if dropout and num_layers == 1:
            warnings.warn("dropout is applied between layers: there is only one", stacklevel=2)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        self.bidirectional, self.name = bidirectional, name
        self._directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            into = hidden_size * len(self._directions) if layer else input_size
            for suffix in self._directions:
                self._add_weights(f"_l{layer}{suffix}", into, hidden_size, bias, dtype)
        self.reset_parameters()

    def forward(self, input: Any, hx: Any = None) -> Any:
        if isinstance(input, PackedSequence):
            return self._run(input, hx)
        if input.ndim not in (2, 3):
            raise ValueError(f"{self.mode}: input {input.shape}: want (s, b, in) or (s, in)")
        axis = 0 if self.batch_first else 1
        if input.ndim == 2:
            y, last = self(input.unsqueeze(axis), _each(hx, lambda h: h.unsqueeze(1)))
            return y.squeeze(axis), _each(last, lambda h: h.squeeze(1))
        x = input.transpose(0, 1) if self.batch_first else input
        s, b, width = x.shape
        if not s:
            raise RuntimeError(f"{self.mode}: input {input.shape} has no steps")
        rows, last = self._run(PackedSequence(x.reshape(s * b, width), Tensor(xp.full(s, b))), hx)
        y = rows.data.reshape(s, b, rows.data.shape[1])
        return y.transpose(0, 1) if self.batch_first else y, last

    def _run(self, packed: PackedSequence, hx: Any) -> tuple[PackedSequence, Any]:
        rows, batch_sizes, order, back = packed
        if rows.shape[-1] != self.input_size:
            raise RuntimeError(f"{self.mode}: input_size {self.input_size}, got {rows.shape[-1]}")
        dtype = next(self.parameters()).dtype
        if rows.dtype != dtype and not is_autocast_enabled():
            dtypes = f"{rows.dtype.name} input, {dtype.name} weights"
            raise ValueError(f"{self.mode}: {dtypes}: convert one with .to()")
        sizes: list[int] = batch_sizes.data.tolist()
        last: list[list[Tensor]] = []
        count = self.num_layers * len(self._directions)
        given = self._given(hx, count, sizes[0], self.hidden_size)
        if order is not None:
            given = [_each(h, lambda h: h[:, order.data]) for h in given]
        for layer in range(self.num_layers):
            rows = self._drop(rows, sizes, order, layer) if layer else rows
            outputs = []
            for suffix in self._directions:
                states = [None if h is None else h[len(last)] for h in given]
                weights = self._weights(f"_l{layer}{suffix}")
                x = backwards(rows, sizes) if suffix else rows
                y, *ends = recurrent(self.mode, x, *states, *weights, sizes=sizes)
                outputs.append(backwards(y, sizes) if suffix else y)
                last.append([v.unsqueeze(0) for v in ends if v is not None])
            rows = cat(outputs, 1) if suffix else y
        final = self._states([cat(v) for v in zip(*last)])
        final = final if back is None else _each(final, lambda h: h[:, back.data])
        return PackedSequence(rows, *packed[1:]), final

    def _drop(self, rows: Tensor, sizes: list[int], order: Tensor | None, layer: int) -> Tensor:
        """Dropout by masks (b, s, h), a sample's own, brought into the order of the rows."""
        if not self.training or not self.dropout:
            return rows
        b, width = sizes[0], rows.shape[1]
        keep = keep_mask(f"{self.name}.{layer}", (b, len(sizes), width), 1 - self.dropout)
        keep = (keep if order is None else keep[order.data]).swapaxes(0, 1)
        mask = keep[xp.arange(b) < xp.array(sizes)[:, None]].astype(rows.dtype)
        mask = Tensor(mask / (1 - self.dropout) if self.dropout < 1 else mask, dtype=rows.dtype)
        return rows * mask.to(rows.device)


def _mode(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"RNN: nonlinearity {nonlinearity!r}: want 'tanh' or 'relu'")
    return f"RNN_{nonlinearity.upper()}"


class RNN(RNNBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu (Elman 1990)."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
        *args: Any, **kwargs: Any,
    ):  # fmt: skip
        self.nonlinearity, self.mode = nonlinearity, _mode(nonlinearity)
        super().__init__(input_size, hidden_size, num_layers, *args, **kwargs)


class LSTM(RNNBase):
    """c' = f·c + i·g, h' = o·tanh(c'); states are (h, c) (Hochreiter & Schmidhuber 1997)."""

    mode = "LSTM"


class GRU(RNNBase):
    """h' = (1 - z)·n + z·h, n = tanh(W_in x + b_in + r·(W_hn h + b_hn)) (Cho et al. 2014)."""

    mode = "GRU"


class RNNCellBase(_Recurrent):
    """One step: input (b, in) or (in,), states (b, h) or (h,), zeros unless given -> states."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: DTypeLike = DEFAULT
    ):
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._add_weights("", input_size, hidden_size, bias, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        if input.ndim not in (1, 2):
            raise ValueError(f"{self.mode} cell: input {input.shape}: want (b, in) or (in,)")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"{self.mode} cell: input {input.shape} for {self.input_size}")
        if input.ndim == 1:
            states = self(input.unsqueeze(0), _each(hx, lambda h: h.unsqueeze(0)))
            return _each(states, lambda h: h.squeeze(0))
        h0, c0 = self._given(hx, len(input), self.hidden_size)
        _, *last = recurrent(self.mode, input, h0, c0, *self._weights(""), sizes=[len(input)])
        return self._states(last)


class RNNCell(RNNCellBase):
    """One step of RNN."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        **options: Any,
    ):  # fmt: skip
        self.nonlinearity, self.mode = nonlinearity, _mode(nonlinearity)
        super().__init__(input_size, hidden_size, bias, **options)


class LSTMCell(RNNCellBase):
    """One step of LSTM."""

    mode = "LSTM"


class GRUCell(RNNCellBase):
    """One step of GRU."""

    mode = "GRU"
