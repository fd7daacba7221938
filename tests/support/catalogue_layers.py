"""Every public layer with sizes and inputs drawn at random, made by one text for both libraries.

A layer is a strategy for (make, arrays): make(nn) is the module, arrays are its inputs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from support.cases import arrays, shapes
from support.catalogue import (
    SIDE,
    classified,
    filled,
    integers,
    planes,
    resized,
    spelled,
    wide,
)

LAYERS: dict[str, st.SearchStrategy] = {}
RUNS: dict[str, Callable] = {}  # how, where it is not module(*inputs)


def layer(name: str, run: Callable | None = None) -> Callable:
    """Note draw(...) -> (make, arrays) as the strategy for a layer."""

    def note(function: Callable) -> Callable:
        LAYERS[name] = st.composite(function)()
        if run is not None:
            RUNS[name] = run
        return function

    return note


ANY = shapes(min_dims=2, max_dims=4)


def simple(name: str, shape: Any = ANY, *args: Any) -> None:
    """A layer whose arguments do not depend on its input's shape."""
    given = shape if isinstance(shape, st.SearchStrategy) else st.just(shape)
    LAYERS[name] = given.flatmap(arrays).map(lambda x: (lambda n: getattr(n, name)(*args), [x]))


PLAIN = "GELU Hardswish LogSigmoid Mish ReLU ReLU6 SELU SiLU Sigmoid Tanh Identity Flatten"
for _name in PLAIN.split():
    simple(_name)
simple("Hardtanh", ANY, -0.7, 1.3)
simple("GLU", ANY.map(lambda s: (s[0], 2 * s[1], *s[2:])), 1)
simple("Unflatten", ANY.map(lambda s: (s[0], 2 * max(s[1], 1), *s[2:])), 1, (2, -1))
simple("Dropout2d", (2, 3, 1, 2), 0.0)
LAYERS["Upsample"] = resized().map(lambda drawn: (lambda n: n.Upsample(**drawn[1]), drawn[0]))
for _name, _args in {"ELU": (0.7,), "LeakyReLU": (0.2,), "Softplus": (2.0, 1.0), "Softmax": (1,),
                     "LogSoftmax": (-1,), "Dropout": (0.0,)}.items():  # fmt: skip
    simple(_name, ANY, *_args)
for _name in ("AdaptiveAvgPool1d", "AdaptiveAvgPool2d"):
    simple(_name, (2, 1, 5, 4)[: 2 + int(_name[-2])], 3)


def _width(name: str, make: Callable, dims: int = 1) -> None:
    """A layer over the last dimensions, of which all but the first are batches."""

    @layer(name)
    def drawn(draw):
        sizes = [draw(SIDE) + 1 for _ in range(dims)]
        lead = draw(shapes(min_dims=1, max_dims=2, min_side=1))
        return (lambda n: make(n, sizes)), filled(draw, (*lead, *sizes))


_width("Linear", lambda n, sizes: n.Linear(*sizes, 3))
_width("LayerNorm", lambda n, sizes: n.LayerNorm(sizes, eps=0.2), 2)
_width("RMSNorm", lambda n, sizes: n.RMSNorm(sizes, eps=0.2))


def _by_channel(name: str, make: Callable, least: int, most: int) -> None:
    @layer(name)
    def drawn(draw):
        sides = draw(shapes(min_dims=least, max_dims=most, min_side=1))
        return make, filled(draw, (draw(st.integers(2, 3)), 4, *sides))


_by_channel("BatchNorm1d", lambda n: n.BatchNorm1d(4, eps=0.2), 0, 1)
_by_channel("BatchNorm2d", lambda n: n.BatchNorm2d(4, eps=0.2, momentum=None), 2, 2)
_by_channel("GroupNorm", lambda n: n.GroupNorm(2, 4, eps=0.2), 1, 2)
_by_channel("PReLU", lambda n: n.PReLU(4), 0, 2)


def _windowed(name: str, dims: int, transposed: bool = False) -> None:
    @layer(name)
    def drawn(draw):
        (x, w, b), options = draw(planes(dims, weight=True, transposed=transposed))
        channels = x.shape[1], len(b)
        if not transposed:
            modes = ["zeros", "zeros", "reflect", "replicate", "circular"]
            options["padding_mode"] = draw(st.sampled_from(modes))
        return lambda n: getattr(n, name)(*channels, w.shape[2:], **options), [x]


_windowed("Conv1d", 1), _windowed("Conv2d", 2), _windowed("ConvTranspose2d", 2, True)
for _dims in (1, 2):
    for _name, _draw in (("MaxPool", wide(_dims)), ("AvgPool", planes(_dims))):
        LAYERS[f"{_name}{_dims}d"] = _draw.map(lambda drawn, name=f"{_name}{_dims}d": (
            lambda n: getattr(n, name)(**drawn[1]), drawn[0]))  # fmt: skip


@layer("Embedding")
def embedding(draw):
    return lambda n: n.Embedding(4, 2), [integers(draw, draw(shapes()), 4)]


# Recurrent


def _recurrent(name: str) -> None:
    @layer(name)
    def drawn(draw):
        s, b, i, h = (draw(SIDE) for _ in range(4))
        how = {"num_layers": draw(st.integers(1, 2)), "bidirectional": draw(st.booleans()),
               "batch_first": draw(st.booleans())}  # fmt: skip
        return lambda n: getattr(n, name)(i, h, **how), filled(draw, (s, b, i))

    @layer(f"{name}Cell")
    def cell(draw):
        b, i, h = (draw(SIDE) for _ in range(3))
        return lambda n: getattr(n, f"{name}Cell")(i, h), filled(draw, (b, i))


_recurrent("RNN"), _recurrent("LSTM"), _recurrent("GRU")

# Attention


@layer("MultiheadAttention", run=lambda module, x, y: module(x, y, y))
def attention(draw):
    s, t, b = (draw(SIDE) for _ in range(3))
    return lambda n: n.MultiheadAttention(4, 2), filled(draw, (s, b, 4), (t, b, 4))


def _transformer(name: str, inputs: int, wrap: str = "") -> None:
    @layer(name)
    def drawn(draw):
        b, *lengths = (draw(SIDE) for _ in range(1 + inputs))
        how = {"norm_first": draw(st.booleans()), "batch_first": True}

        def make(n):
            kind = name if not wrap else f"{name}Layer"
            one = getattr(n, kind)(4, 2, 3, 0.0, "gelu", 0.2, **how)
            return getattr(n, wrap)(one, 2) if wrap else one

        return make, filled(draw, *((b, s, 4) for s in lengths))


for _name, _inputs in (("TransformerEncoder", 1), ("TransformerDecoder", 2)):
    _transformer(f"{_name}Layer", _inputs)
    _transformer(_name, _inputs, wrap=_name)


@layer("Transformer")
def transformer(draw):
    b, s, t = (draw(SIDE) for _ in range(3))
    how = {"norm_first": draw(st.booleans()), "activation": "gelu", "layer_norm_eps": 0.2}
    make = lambda n: n.Transformer(4, 2, 1, 1, 3, 0.0, **how)
    return make, filled(draw, (s, b, 4), (t, b, 4))


# Containers


def _linears(n):
    return n.Linear(2, 3), n.Tanh(), n.Linear(3, 2)


@layer("Sequential")
def sequential(draw):
    named = draw(st.booleans())
    make = lambda n: n.Sequential(OrderedDict(zip("abc", _linears(n)))) if named else (
        n.Sequential(*_linears(n)))  # fmt: skip
    return make, filled(draw, (draw(SIDE), 2))


@layer("ModuleList", run=lambda module, x: module[2](module[1](module[0](x))))
def module_list(draw):
    return lambda n: n.ModuleList(_linears(n)), filled(draw, (draw(SIDE), 2))


@layer("ModuleDict", run=lambda module, x: module["c"](module["b"](module["a"](x))))
def module_dict(draw):
    return lambda n: n.ModuleDict(dict(zip("abc", _linears(n)))), filled(draw, (draw(SIDE), 2))


def _weights(n):
    return [n.Linear(k, k + 1).weight.data for k in (2, 3)]


@layer("ParameterList", run=lambda module, x: x @ module[0].T @ module[1].T)
def parameter_list(draw):
    return lambda n: n.ParameterList(map(n.Parameter, _weights(n))), filled(draw, (draw(SIDE), 2))


@layer("ParameterDict", run=lambda module, x: x @ module["b"].T @ module["a"].T)
def parameter_dict(draw):
    make = lambda n: n.ParameterDict(zip("ba", map(n.Parameter, _weights(n))))
    return make, filled(draw, (draw(SIDE), 2))


# Losses

LOSSES = "MSELoss L1Loss HuberLoss SmoothL1Loss BCELoss KLDivLoss BCEWithLogitsLoss"
for _name in LOSSES.split():

    @layer(_name, run=lambda module, x, y: module(x.sigmoid(), y.sigmoid()))
    def loss(draw, name=_name):
        how = {"reduction": draw(st.sampled_from(["sum", "none"]))}
        shape = draw(shapes(min_side=1))
        return lambda n: getattr(n, name)(**how), filled(draw, shape, shape)


for _name in ("NLLLoss", "CrossEntropyLoss"):
    LAYERS[_name] = classified().map(lambda drawn, name=_name: (
        lambda n: getattr(n, name)(ignore_index=-100, reduction="sum"), drawn[0]))  # fmt: skip


def _ctc(module, x, labels):
    lengths = [x.shape[0]] * x.shape[1], [labels.shape[1]] * x.shape[1]
    return module(x.log_softmax(2), labels, *(x.new_zeros(len(n)).long() + n[0] for n in lengths))


LAYERS["CTCLoss"] = spelled().map(lambda drawn: (lambda n: n.CTCLoss(), drawn[0]))
RUNS["CTCLoss"] = _ctc


def flat(result) -> list:
    """All tensors of a result, nested or not."""
    if isinstance(result, tuple | list):
        return [t for part in result for t in flat(part)]
    return [] if result is None else [result]


def run(name, module, *inputs):
    return flat(RUNS.get(name, lambda module, *x: module(*x))(module, *inputs))
