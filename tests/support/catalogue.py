"""Every public operation with arguments drawn at random: one call that both libraries understand.

A case is a strategy for (arrays, options) and a call(m, *tensors, **options), m being minidist or
PyTorch with nn.functional as m.F. Where PyTorch spells it otherwise, `theirs` is its call.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import minidist as md
from minidist.nn import functional
from support.cases import SEEDS, arrays, broadcast_shapes, distinct, numbers, shapes

OURS = SimpleNamespace(**vars(md) | {"F": functional})
SIDE = st.integers(1, 3)


class Case(NamedTuple):
    draw: st.SearchStrategy
    call: Callable[..., Any]
    theirs: Callable[..., Any] | None = None
    smooth: bool = True  # False: finite differences in float64 cannot see its gradient


def of(*strategies, **options):
    """A strategy for arrays, with options that are strategies or values."""
    drawn = {k: v if isinstance(v, st.SearchStrategy) else st.just(v) for k, v in options.items()}
    return st.tuples(st.tuples(*strategies).map(list), st.fixed_dictionaries(drawn))


@st.composite
def drawn(draw, make):
    """make(draw) -> (arrays, options)."""
    return make(draw)


def filled(draw, *shapes, positive=False):
    """An array of each shape, in any layout."""
    return [draw(arrays(tuple(s), positive)) for s in shapes]


def integers(draw, shape, below):
    return np.random.default_rng(draw(SEEDS)).integers(0, max(below, 1), shape)


ANY, POSITIVE, DISTINCT = arrays(), arrays(positive=True), distinct()
MATRICES = arrays(shape=None).filter(lambda x: x.ndim >= 2)
INTS = shapes().flatmap(lambda s: SEEDS.map(lambda i: np.random.default_rng(i).integers(-4, 5, s)))
MASKS = INTS.map(lambda i: i > 0)


@st.composite
def pairs(draw, kind="float"):
    """Two arrays whose shapes broadcast."""
    both = filled(draw, *draw(broadcast_shapes()))
    return [(x * 3).astype("int64") for x in both] if kind == "int" else both, {}


@st.composite
def along(draw, x=ANY, name="dim", least=0):
    """An array and one of its dimensions."""
    x = draw(x.filter(lambda x: x.ndim >= least))
    n = max(x.ndim, 1)
    return [x], {name: draw(st.integers(-n, n - 1))}


@st.composite
def reduced(draw, x=DISTINCT, least=1, several=True):
    """An array, the dimensions to reduce (at least so many elements in each), and keepdim."""
    x = draw(x)
    n = max(x.ndim, 1)
    one, many = st.integers(-n, n - 1), st.lists(st.integers(0, n - 1), min_size=1, unique=True)
    dim = draw(one | many.map(tuple) if several and x.ndim else one)
    every = [x.shape[d] for d in (dim if isinstance(dim, tuple) else (dim,)) if x.ndim]
    keepdim = draw(st.booleans())
    dim = dim if np.prod(every) >= least or least < 2 else tuple(range(x.ndim))
    return [x], {"dim": dim, "keepdim": keepdim}


def function(name):
    """m.F.name(...) or m.name(...), whichever there is."""
    return lambda m, *xs, **o: getattr(m.F if hasattr(m.F, name) else m, name)(*xs, **o)


CASES: dict[str, Case] = {}


def case(name, draw, call=None, **rest):
    CASES[name] = Case(draw, call or function(name), **rest)


# Of one argument

OF_ANY = """
    abs asinh atan ceil clone cos cosh elu erf exp expm1 floor hardswish hardtanh leaky_relu
    logsigmoid mish neg relu selu sigmoid sign silu sin sinh softplus square tanh trunc
"""
for _name in OF_ANY.split():
    case(_name, of(ANY))
for _name in "log log10 log1p log2 reciprocal rsqrt sqrt".split():  # noqa: SIM905
    case(_name, of(POSITIVE))
for _name in ("acos", "asin", "atanh"):
    case(_name, of(ANY.map(lambda x: x / 2.5)))
case("acosh", of(POSITIVE.map(lambda x: x + 1)))
case("tan", of(ANY.map(lambda x: x / 2)))
case("relu6", of(ANY.map(lambda x: x * 4)))
case("round", of(ANY, decimals=st.integers(0, 2)))
case("gelu", of(ANY, approximate=st.sampled_from(["none", "tanh"])))
case("cast", of(ANY), lambda m, x: x.float() * 2, smooth=False)
case("contiguous", of(ANY), lambda m, x: x.contiguous() * 1)

# Of two arguments and more

for _name in ("add", "sub"):
    case(_name, pairs(), lambda m, a, b, f=_name: getattr(m, f)(a, b, alpha=3))
for _name in "mul true_divide atan2 maximum minimum logaddexp".split():  # noqa: SIM905
    case(_name, pairs())
case("div", pairs(), lambda m, a, b: m.div(a, b) + m.div(a, b * 1.37, rounding_mode="floor")
     + m.div(a, b * 1.37, rounding_mode="trunc"))  # fmt: skip
for _name in ("clamp_min", "clamp_max"):
    case(_name, pairs(), lambda m, a, b, f=_name: getattr(m, f)(a, b + 0.013))
case("addcmul", pairs(), lambda m, a, b: m.addcmul(a + b, a, b, value=0.3))
case("addcdiv", pairs(), lambda m, a, b: m.addcdiv(a + b, b, a, value=-3))
case("nan_to_num", of(ANY.map(lambda x: np.where(x > 1, np.inf, x))), lambda m, x: m.nan_to_num(
    x, posinf=1.5), smooth=False)  # fmt: skip
case("pow", pairs(), lambda m, a, b: m.pow(a.abs(), b))
case("remainder", pairs(), lambda m, a, b: m.remainder(a, b.abs() + 7.3))
case(
    "floor_divide",
    pairs(),
    lambda m, a, b: m.floor_divide(a, b.abs() + 7.3),
    theirs=(lambda m, a, b: m.floor_divide(a.detach(), b.detach().abs() + 7.3) + 0 * (a + b)),
)
case("where", pairs(), lambda m, a, b: m.where(a > 0, a * 2, b))
case("lerp", pairs(), lambda m, a, b: m.lerp(a, b, 0.3))
case("clamp", pairs(), lambda m, a, b: m.clamp(a, -b.abs() - 0.013, b.abs() + 0.017))
case("masked_fill", pairs(), lambda m, a, b: (a * b).masked_fill(b > 0, 2.0))
case("masked_select", pairs(), lambda m, a, b: m.masked_select(a, b > 0))


@st.composite
def channels(draw):
    x = draw(ANY.filter(lambda x: x.ndim))
    count = draw(st.sampled_from([1, x.shape[1] if x.ndim > 1 else 1]))
    return [x, *filled(draw, (count,))], {}


case("prelu", channels())
case("swiglu", of(shapes(min_dims=1).flatmap(lambda s: arrays((*s[:-1], 2 * s[-1])))), None,
     theirs=lambda m, x: m.F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1])  # fmt: skip

case("glu", along(arrays().map(lambda x: np.repeat(x, 2, -1) if x.ndim else x[None].repeat(2))),
     lambda m, x, dim: m.F.glu(x))  # fmt: skip

# Reductions and orders

for _name in ("sum", "mean", "amax", "amin", "logsumexp"):
    case(_name, reduced())
for _name in ("var", "std"):
    spread = reduced(DISTINCT.filter(lambda x: x.size > 1), least=2)
    case(_name, spread, lambda m, x, f=_name, **o: getattr(m, f)(x, correction=0, **o))
case("norm", reduced(), lambda m, x, **o: m.norm(x + 1, 3, **o) + m.norm(x + 1, 2, **o))
for _name in ("prod", "median"):
    case(_name, reduced(several=False))
for _name in ("max", "min"):  # along a dimension and over all: two operations
    both = lambda m, x, f=_name, **o: (*getattr(m, f)(x, **o), getattr(m, f)(x))
    case(_name, reduced(several=False), both)
for _name in ("cumsum", "cumprod", "softmax", "log_softmax"):
    case(_name, along())
for _name in ("var_mean", "std_mean"):
    case(_name, of(DISTINCT.filter(lambda x: x.size > 1)), lambda m, x, f=_name: getattr(m, f)(x))
case("sort", along(DISTINCT), lambda m, x, dim: m.sort(x, dim=dim, descending=True))
case("topk", along(DISTINCT), lambda m, x, dim: m.topk(x, 1, dim))

# Shapes

case("reshape", of(ANY), lambda m, x: m.reshape(x, (x.shape[::-1])))
case("view", of(ANY.map(np.ascontiguousarray)), lambda m, x: x.view(x.shape[::-1]))
case("flatten", along(), lambda m, x, dim: m.flatten(x, dim))
case("permute", of(ANY), lambda m, x: m.permute(x, tuple(range(x.ndim))[::-1]))
case("transpose", along(), lambda m, x, dim: m.transpose(x, dim, 0))
case("t", of(ANY.filter(lambda x: x.ndim < 3)))
case("squeeze", along())
case("unsqueeze", along())
case("expand", along(), lambda m, x, dim: x.unsqueeze(dim).expand(
    *[4 if d == dim % (x.ndim + 1) else -1 for d in range(x.ndim + 1)]) if dim >= 0 else x.expand(
    2, *x.shape))  # fmt: skip
case("repeat", of(ANY), lambda m, x: x.repeat(2, *range(1, x.ndim + 1)))
case("flip", along(), lambda m, x, dim: m.flip(x, (dim,)))
case("roll", along(least=1), lambda m, x, dim: m.roll(x, 2, dim))


@st.composite
def bordered(draw):
    """Any dimensions with a number; (n, c, …) or (c, …) with their own edges, some of them cut."""
    mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
    if mode == "constant":
        x = draw(MATRICES)
        pad = (1, -min(1, x.shape[-1]), 0, 2)
        return [x], {"pad": pad, "mode": mode, "value": draw(st.floats(-2, 2))}
    dims = draw(st.integers(1, 3))
    sides = [draw(st.integers(3, 4)) for _ in range(dims)]
    lead = draw(shapes(min_dims=1, max_dims=2, min_side=1, max_side=2))
    least = 0 if mode == "circular" else -1
    pad = tuple(draw(st.integers(least, 2)) for _ in range(2 * dims))
    return filled(draw, (*lead, *sides)), {"pad": pad, "mode": mode}


case("pad", bordered())
case("cat", along(least=1), lambda m, x, dim: m.cat([x, x * 2, x[:1] if dim == 0 else x], dim))
case("stack", along(), lambda m, x, dim: m.stack([x, x * 2], dim))
case("split", along(least=1), lambda m, x, dim: m.split(x, 2, dim))
case("chunk", along(least=1), lambda m, x, dim: m.chunk(x, 2, dim))
case("unbind", along(least=1), function("unbind"))
for _name in ("tril", "triu"):
    case(_name, of(MATRICES, diagonal=st.integers(-2, 2)))
case("diagonal", of(MATRICES, offset=st.integers(-2, 2)))
case("diag", of(ANY.filter(lambda x: x.ndim in (1, 2)), diagonal=st.integers(-2, 2)))
case("movedim", along(), lambda m, x, dim: m.movedim(x, dim, 0))
case("unflatten", along(least=1), lambda m, x, dim: m.unflatten(x, dim, (1, x.shape[dim])))
case("narrow", along(least=1), lambda m, x, dim: m.narrow(x, dim, x.shape[dim] // 2, x.shape[dim]
                                                          - x.shape[dim] // 2))  # fmt: skip
case("select", along(arrays(shape=(2, 3, 1)), least=1), lambda m, x, dim: m.select(x, dim, -1))
case("tile", of(ANY), lambda m, x: m.tile(x, (2, 1)))
case("repeat_interleave", along(), lambda m, x, dim: m.repeat_interleave(
    x, 3) if not x.ndim else m.repeat_interleave(x, 2, dim=dim))  # fmt: skip
case("meshgrid", of(arrays((2,)), arrays((3,)), indexing=st.sampled_from(["ij", "xy"])))
case("hstack", of(ANY), lambda m, x: m.hstack([x, x * 2]))
case("vstack", of(ANY), lambda m, x: m.vstack([x, x * 2]))

# Indices


@st.composite
def picked(draw, sources=False):
    """An array, indices along a dimension of it, and an array for each of these indices."""
    shape = draw(shapes(min_dims=1, min_side=1))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    wanted = [draw(st.integers(0, n)) for n in shape]
    wanted[dim] = draw(st.integers(0, shape[dim]))
    where = np.sort(np.random.default_rng(draw(SEEDS)).random(shape).argsort(dim), dim)
    index = integers(draw, wanted, shape[dim]) if sources != "once" else where[
        tuple(map(slice, wanted))]  # fmt: skip
    return [*filled(draw, shape), *(filled(draw, wanted) if sources else []), index], {"dim": dim}


@st.composite
def taken(draw):
    """An array and indices along a dimension of it; their other sizes broadcast."""
    shape = draw(shapes(min_dims=1, min_side=1))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    at, wanted = dim % len(shape), draw(st.integers(0, 3))
    x, i = ([n if d == at or draw(st.booleans()) else 1 for d, n in enumerate(shape)] for _ in "xi")
    i[at] = wanted
    return [*filled(draw, x), integers(draw, i, shape[at])], {"dim": dim}


@st.composite
def rows_of(draw, source=False):
    shape = draw(shapes(min_dims=1, min_side=1))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    index = integers(draw, draw(st.integers(0, 4)), shape[dim])
    wanted = [len(index) if d == dim % len(shape) else n for d, n in enumerate(shape)]
    return [*filled(draw, shape, *[wanted] * source), index], {"dim": dim}


INDEXED = {
    "an int": lambda x, i: x[-1],
    "slices": lambda x, i: x[1:, ::2],
    "None": lambda x, i: x[:, None, ..., None],
    "an array": lambda x, i: x[i],
    "apart": lambda x, i: x[i, :, i],
    "an int, then an array": lambda x, i: x[0, :, i],
    "arrays": lambda x, i: x[:, i % 2, i],
    "a mask": lambda x, i: x[x > 0],
    "a mask of rows": lambda x, i: x[:, x[0, :, 0] > 0],
}
case("getitem", of(arrays((3, 2, 3)), arrays((2, 2)).map(lambda a: (a > 0) * 2),
                   how=st.sampled_from(list(INDEXED))),
     lambda m, x, i, how: INDEXED[how](x, i))  # fmt: skip
case("take_along_dim", taken(), lambda m, x, i, dim: m.take_along_dim(x, i, dim))
case("gather", picked(), lambda m, x, i, dim: m.gather(x, dim, i))
case("scatter_add", picked(True), lambda m, x, s, i, dim: m.scatter_add(x, dim, i, s))
case("scatter", picked("once"), lambda m, x, s, i, dim: m.scatter(x, dim, i, s))
case("index_select", rows_of(), lambda m, x, i, dim: m.index_select(x, dim, i))
case("index_add", rows_of(True), lambda m, x, s, i, dim: m.index_add(x, dim, i, s, alpha=2))
case(
    "embedding",
    drawn(lambda draw: ([integers(draw, draw(shapes()), 4), *filled(draw, (4, 2))], {})),
)


# Products


@st.composite
def sized(draw, letters, **options):
    """Arrays whose shapes are spelled by letters, each a size of its own: "ij jk"."""
    sizes = {c: draw(st.integers(0, 3)) for c in sorted(set(letters)) if c != " "}
    found = filled(draw, *([sizes[c] for c in term] for term in letters.split()))
    return found, {k: draw(v) for k, v in options.items()}


case("matmul", st.sampled_from(["ij jk", "j jk", "ij j", "j j", "bij jk", "bij bjk", "cbij bjk",
                                "ij bjk", "j bjk", "cbij j"]).flatmap(sized))  # fmt: skip
case("mm", sized("ij jk"))
case("bmm", sized("bij bjk"))
case("dot", sized("i i"))
case("mv", sized("ij j"))
case("outer", sized("i j"))
case("addmm", sized("ik ij jk"), lambda m, *x: m.addmm(*x, beta=2, alpha=0.5))
case("baddbmm", st.sampled_from(["bik bij bjk", "ik bij bjk", "k bij bjk"]).flatmap(sized),
     lambda m, *x: m.baddbmm(*x, beta=2, alpha=0.5))  # fmt: skip
DIMS = {"ijk jkl": 2, "ij jk": 1, "i j": 0, "ikj jlk": ([1, 2], [2, 0]), "i i": ([0], [-1])}
case("tensordot", st.sampled_from(list(DIMS)).flatmap(lambda s: sized(s, dims=st.just(DIMS[s]))))
case("linear", st.sampled_from(["i oi o", "bi oi o", "bci oi o", "bi oi"]).flatmap(sized))
EQUATIONS = ["ij,jk->ik", "ij,jk", "bij,bjk->bik", "ij->ji", "ij->", "...i,...i", "i,j->ij",
             "...ij,...jk->...ik", "bhqd,bhkd->bhqk", "ij,ij->i", "ij,jk,kl->il"]  # fmt: skip
case("einsum", st.sampled_from(EQUATIONS).flatmap(lambda e: sized(
    e.split("->")[0].replace("...", "b").replace(",", " "), equation=st.just(e))),
    lambda m, *x, equation: m.einsum(equation, *x))  # fmt: skip
case("normalize", along(), lambda m, x, dim: m.F.normalize(x, dim=dim))
case("cosine_similarity", sized("bi bi"), lambda m, a, b: m.F.cosine_similarity(a, b))

# Windows


@st.composite
def planes(draw, dims, weight=False, transposed=False):
    """(n, c, *sides), and a weight and a bias for groups of its channels."""
    groups, n = draw(st.integers(1, 2)), draw(SIDE)
    c, o = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel = [draw(SIDE) for _ in range(dims)]
    sides = [k + draw(st.integers(2, 4)) for k in kernel]
    stride, padding = draw(st.integers(1, 2)), draw(st.integers(0, 1))
    options = {"stride": stride, "padding": padding, "groups": groups}
    if not weight:
        kernel = [max(k, 2) for k in kernel]
        return filled(draw, (n, c, *sides)), {"kernel_size": tuple(kernel)} | {
            k: options[k] for k in ("stride", "padding")}  # fmt: skip
    first, second = (c, o) if transposed else (o, c)
    options |= (
        {"output_padding": stride - 1} if transposed else {"dilation": draw(st.integers(1, 2))}
    )
    options["padding"] = options["padding"] if transposed else options["padding"] + 1
    return filled(draw, (n, c, *sides), (first, second // groups, *kernel), (o,)), options


@st.composite
def wide(draw, dims):
    n, c, *sides = (draw(SIDE) for _ in range(2 + dims))
    x = draw(distinct((n, c, *(s + 3 for s in sides))))
    return [x], {"kernel_size": 2, "stride": draw(st.integers(1, 3)), "padding": draw(
        st.integers(0, 1)), "ceil_mode": draw(st.booleans())}  # fmt: skip


for _dims in (1, 2):
    case(f"conv{_dims}d", planes(_dims, weight=True))
    case(f"max_pool{_dims}d", wide(_dims))
    case(f"avg_pool{_dims}d", planes(_dims))
    case(f"adaptive_avg_pool{_dims}d", of(arrays((2, 1, *(5, 4)[:_dims])),
                                          output_size=st.integers(1, 4)))  # fmt: skip


@st.composite
def resized(draw):
    """(n, c, …) to other sizes or by other scales."""
    mode = draw(st.sampled_from(["nearest", "linear", "bilinear"]))
    dims = {"linear": 1, "bilinear": 2}.get(mode) or draw(st.integers(1, 3))
    to = draw(st.sampled_from(["size", "scale_factor"]))
    one = st.integers(1, 6) if to == "size" else st.sampled_from([0.75, 1.5, 2.0, 2.5])
    options = {"mode": mode, to: tuple(draw(one) for _ in range(dims))}
    if mode != "nearest":
        options["align_corners"] = draw(st.sampled_from([None, True, False]))
    return filled(draw, (draw(SIDE), 2, *(draw(st.integers(2, 4)) for _ in range(dims)))), options


case("interpolate", resized())
case("conv_transpose2d", planes(2, weight=True, transposed=True))

# Attention


@st.composite
def heads(draw, kind):
    """q, k and v under "none", "causal", "mask" (True: look) or "float"; or "grouped" heads."""
    b, s, t, d, e = (draw(SIDE) for _ in range(5))
    a = 2
    options = {"is_causal": kind == "causal", "scale": draw(st.sampled_from([None, 0.3]))}
    qkv = filled(draw, (b, a, s, d), (b, a, t, d), (b, a, t, e))
    if kind == "grouped":
        qkv[1:] = [x[:, :1] for x in qkv[1:]]
        options["enable_gqa"] = True
    if kind == "float":
        qkv += filled(draw, (s, t))
    if kind == "mask":
        qkv.append(np.random.default_rng(draw(SEEDS)).random((b, 1, s, t)) < 0.7)
        qkv[-1][..., 0] = True
    return qkv, options


KINDS = st.sampled_from(["none", "causal", "mask", "float", "grouped"])
case("scaled_dot_product_attention", KINDS.flatmap(heads))
case("packed_attention", drawn(lambda draw: (filled(draw, (draw(SIDE), draw(SIDE), 12)),
                                             {"is_causal": draw(st.booleans())})),
     lambda m, x, is_causal: m.F.packed_attention(x, 2, is_causal),
     theirs=lambda m, x, is_causal: m.F.scaled_dot_product_attention(
         *(p.unflatten(2, (2, 2)).transpose(1, 2) for p in x.chunk(3, 2)), is_causal=is_causal,
     ).transpose(1, 2).flatten(2))  # fmt: skip


def rotated(m, x):
    """Turn pairs of features (0, 1), (2, 3), … by position · 10000^(-2i/d)."""
    s, d = x.shape[-2:]
    angles = m.arange(s)[:, None] * 10000.0 ** (-m.arange(0, d, 2, dtype=m.float64) / d)
    cos, sin, a, b = angles.cos().to(x.dtype), angles.sin().to(x.dtype), x[..., 0::2], x[..., 1::2]
    return m.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


case(
    "rotary_embedding",
    drawn(lambda draw: (filled(draw, (*draw(shapes(max_dims=2)), draw(SIDE), 2 * draw(SIDE))), {})),
    theirs=rotated,
)
case("dropout", of(ANY, p=st.sampled_from([0.0, 1.0])), lambda m, x, p: m.F.dropout(x, p) * 1)
case("dropout2d", of(arrays((2, 3, 2, 1)), p=st.sampled_from([0.0, 1.0])),
     lambda m, x, p: m.F.dropout2d(x, p) * 1)  # fmt: skip

# Norms


@st.composite
def normed(draw, affine):
    """(n, c, …), of which c = 4, and affine arrays of the shape that is named."""
    x = draw(arrays((draw(st.integers(2, 3)), 4, *draw(shapes(max_dims=2, min_side=1)))))
    shape = x.shape[1:] if affine == "last" else (4,)
    options = {"normalized_shape": shape} if affine == "last" else {}
    return [x, *filled(draw, shape, shape)], {**options, "eps": draw(st.sampled_from([0.1, 0.5]))}


case("layer_norm", normed("last"), lambda m, x, w, b, **o: m.F.layer_norm(
    x, weight=w, bias=b, **o))  # fmt: skip
case("rms_norm", normed("last"), lambda m, x, w, b, **o: m.F.rms_norm(x, weight=w, **o) * b)
case("group_norm", normed("channels"), lambda m, x, w, b, eps: m.F.group_norm(x, 2, w, b, eps))
case("batch_norm", normed("channels"), lambda m, x, w, b, eps: m.F.batch_norm(
    x, None, None, w, b, training=True, eps=eps))  # fmt: skip

# Losses

REDUCTION = st.sampled_from(["mean", "sum", "none"])


@st.composite
def compared(draw, kind="any"):
    """Input and target of one shape: any numbers, or probabilities away from 0 and 1."""
    x, t = filled(draw, *[draw(shapes(min_side=1))] * 2)
    x, t = ((1 + np.tanh(a)) / 2 for a in (x, t)) if kind != "any" else (x, t)
    x = np.log(x) if kind == "log" else x
    return [x, t], {"reduction": draw(REDUCTION)}


for _name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"):
    case(_name, compared())
case("binary_cross_entropy", compared("chance"))
case("kl_div", compared("log"))
case("binary_cross_entropy_with_logits", compared(), lambda m, x, t, reduction: (
    m.F.binary_cross_entropy_with_logits(x, t.sigmoid(), reduction=reduction)))  # fmt: skip


@st.composite
def classified(draw):
    """Logits (n, 4, …), classes of which some are ignored, and a weight for each class."""
    n, rest = draw(SIDE), draw(shapes(max_dims=2, min_side=1))
    target = integers(draw, (n, *rest), 4)
    target.flat[1:][target.flat[1:] == 3] = -100
    weight = np.abs(numbers((4,), draw(SEEDS)))
    x = np.ascontiguousarray(*filled(draw, (n, 4, *rest)))  # PyTorch's nll_loss wants it so
    return [x, target], {"weight": weight, "reduction": draw(REDUCTION)}


def classes(m, name, x, target, weight, reduction, **options):
    weight = m.tensor(weight).to(x.dtype)
    return getattr(m.F, name)(x, target, weight, reduction=reduction, **options)


case("nll_loss", classified(), lambda m, x, t, **o: classes(m, "nll_loss", x, t, **o))
case("cross_entropy", classified(), lambda m, x, t, **o: classes(
    m, "cross_entropy", x, t, label_smoothing=0.1, **o))  # fmt: skip


@st.composite
def rows_of_classes(draw):
    """Rows, a linear layer to 5 classes, and the rows' classes, some of them ignored."""
    n, h = draw(SIDE), draw(SIDE)
    target = integers(draw, (n,), 5)
    target[1:][target[1:] == 4] = -100
    return [*filled(draw, (n, h), (5, h)), target], {"reduction": draw(REDUCTION)}


case("linear_cross_entropy", rows_of_classes(), lambda m, x, w, t, reduction: (
    m.F.linear_cross_entropy(x, w, t, reduction=reduction)))  # fmt: skip


@st.composite
def spelled(draw):
    """Log-probabilities (t, n, 4) and labels that fit into them."""
    t, n, s = draw(st.integers(5, 7)), draw(SIDE), draw(st.integers(0, 2))
    return [*filled(draw, (t, n, 4)), integers(draw, (n, s), 3) + 1], {"reduction": draw(REDUCTION)}


case("ctc_loss", spelled(), lambda m, x, labels, reduction: m.F.ctc_loss(
    x.log_softmax(2), labels, m.tensor([x.shape[0]] * x.shape[1]),
    m.tensor([labels.shape[1]] * x.shape[1]), reduction=reduction))  # fmt: skip

# Without gradients

PLAIN: dict[str, Case] = {}
for _name in ("argmax", "argmin"):
    PLAIN[_name] = Case(reduced(several=False), function(_name))
PLAIN["argsort"] = Case(along(DISTINCT), function("argsort"))
for _name in ("all", "any"):
    PLAIN[_name] = Case(reduced(arrays(), several=True), function(_name))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor"):
    PLAIN[_name] = Case(pairs(), function(_name))
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    PLAIN[_name] = Case(pairs("int"), function(_name))
PLAIN["bitwise_not"] = Case(of(INTS), function("bitwise_not"))
for _name in ("isfinite", "isinf", "isnan", "logical_not", "nonzero", "count_nonzero"):
    PLAIN[_name] = Case(of(ANY.map(lambda x: np.where(x > 1, np.nan, x))), function(_name))
PLAIN["isclose"] = Case(pairs(), lambda m, a, b: m.isclose(a, b, rtol=0.5))
PLAIN["allclose"] = Case(pairs(), lambda m, a, b: m.tensor(m.allclose(a, b, rtol=0.9)))
PLAIN["equal"] = Case(of(ANY), lambda m, x: m.tensor([m.equal(x, x * 1), m.equal(x, x + 1)]))
PLAIN["one_hot"] = Case(of(INTS.map(abs)), lambda m, i: m.F.one_hot(i, 6))
PLAIN["unique"] = Case(of(INTS), lambda m, i: m.unique(i, return_counts=True))
PLAIN["bincount"] = Case(of(INTS.filter(lambda i: i.ndim == 1).map(abs)), function("bincount"))
# What is drawn at random, where chance has one outcome alone
PLAIN["bernoulli"] = Case(of(ANY.map(lambda x: (x > 0) * 1.0)), lambda m, x: m.bernoulli(
    x.detach()))  # fmt: skip
PLAIN["multinomial"] = Case(of(st.integers(0, 3).map(lambda i: np.eye(4)[[i, 2]])),
                            lambda m, x: m.multinomial(x.detach(), 1))  # fmt: skip
PLAIN["normal"] = Case(of(ANY), lambda m, x: m.normal(1.5, 0.0, tuple(x.shape)).to(x.dtype))

EVERY = CASES | PLAIN
few = settings(max_examples=5, suppress_health_check=list(HealthCheck))


def outputs(result) -> tuple:
    return tuple(result) if isinstance(result, tuple | list) else (result,)
