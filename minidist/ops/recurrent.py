"""Recurrent layers over packed rows: a whole sequence is one operation."""

from ..autograd.tape import Joint
from ..kernels import arrays as xp
from ..kernels import recurrent as kernel
from .op import differentiable, want_one_dtype


@differentiable(autocast="lower_precision_fp")
def _recurrent(x, h0, c0, w_ih, w_hh, b_ih, b_hh, kind, sizes, need_x, ranks):
    rows = xp.ascontiguousarray(x)
    states, saved = kernel.forward(kind, rows, h0, c0, w_ih, w_hh, b_ih, b_hh, sizes, ranks)
    vjp = Joint(lambda g: kernel.backward(g, saved, need_x))
    vjp.split = lambda g, now: _split(g, saved, need_x)
    return states, vjp


def _split(g, saved, need_x):
    first, gates = kernel.backward_input(g, saved, need_x)
    return [*first, *4 * [None]], lambda: [*3 * [None], *kernel.backward_weight(*gates)]


def recurrent(kind, x, h0, c0, w_ih, w_hh, b_ih=None, b_hh=None, *, sizes, ranks=None):
    """One layer, one direction: rows x (n, in) -> states (n, h), the last h (b, h) and c (b, h).

    kind is RNN_TANH, RNN_RELU, LSTM or GRU; h0, c0 (b, h) or None for zeros. Step t holds a row
    for each of sizes[t] sequences, longest first; n = sum(sizes), b = sizes[0].
    With `ranks` (kernels/recurrent.py) the weights and biases are those of this rank's units.
    """
    want_one_dtype(kind, x, h0, c0, w_ih, w_hh, b_ih, b_hh)
    weights, sizes = (w_ih, w_hh, b_ih, b_hh), tuple(sizes)
    value = _recurrent(x, h0, c0, *weights, kind, sizes, x.requires_grad, ranks)
    n, b = x.shape[0], sizes[0]
    y = value[:n] if kind == "LSTM" else value
    last = y[n - b :] if sizes[-1] == b else take_rows(y, kernel.ends(sizes))
    return y, last, value[n:] if kind == "LSTM" else None


def backwards(x, sizes):
    """Rows x (n, ...) with every sequence from its end to its start."""
    return take_rows(x, kernel.reversal(sizes))


@differentiable(autocast="fallthrough")
def take_rows(x, index):
    """x[index] for rows that are all different: index (m,), x (n, ...) -> (m, ...)."""
    shape, index = x.shape, xp.at_home_of(x, index)

    def vjp(g):
        whole = xp.zeros(shape, g.dtype)
        whole[index] = g
        return whole

    return x[index], vjp


@differentiable(autocast="fallthrough")
def put_rows(x, index, n, value):
    """The transpose of take_rows: x (m, ...) at rows `index` of (n, ...), `value` elsewhere."""
    whole, index = xp.full_like(x, value, shape=(n, *x.shape[1:])), xp.at_home_of(x, index)
    whole[index] = x
    return whole, lambda g: g[index]
