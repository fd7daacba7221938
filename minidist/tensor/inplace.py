"""Changes in place: x[index] = value, and an operation's result written over its first argument."""

from ..autograd.modes import is_grad_enabled
from ..autograd.tape import new_node, source
from ..autograd.versions import mark_changed, owner
from ..kernels import arrays as xp
from ..kernels.half_precision import as_dtype, wide
from ..ops.elementwise import to_fill
from ..ops.index import steps
from ..ops.op import unbroadcast
from . import views
from .dtypes import fitting, is_floating
from .generator import numbers_of
from .tensor import Tensor


def setitem(x, index, value, name="setitem"):
    """x[index] = value, for every index that getitem knows; of repeated places the last wins."""
    views.refuse_leaf(x, name)
    value = _fit(value, x, name)
    sources = [source(x), source(value)] if is_grad_enabled() else [None]
    way = _write(x, index, _plain(value), name)
    if any(sources):
        vjps = _rest(way), _written(x.shape, way, xp.shape(_plain(value)))
        views.rewrite_history(x, new_node(name, sources, vjps, x.shape))
    return x


def _plain(value):
    """The array of a tensor."""
    return value.data if isinstance(value, Tensor) else value


def _fit(value, x, name):
    """A tensor converted to x's dtype and device if necessary; or a number that fits the dtype."""
    if isinstance(value, int | float | xp.number):
        return fitting(name, value, x.dtype)
    if not isinstance(value, Tensor) or (value.dtype == x.dtype and xp.gpu() is None):
        return value
    return value.to(x.device, x.dtype) if value.is_cuda != x.is_cuda else value.to(x.dtype)


def _into(array, way):
    """The view of an array that all steps but the last lead to."""
    for step in way[:-1]:
        array = array[step if ... in step else (*step, ...)]  # of one element too, a view
    return array


def _write(x, index, array, name):
    """Write, and return the way there: see steps()."""
    try:
        way = steps(index, x.ndim)
        way[-1] = xp.index_of(x.data, way[-1])
        if xp.on_gpu(x.data) and isinstance(array, xp.ndarray):
            array = xp.at_home_of(x.data, array)
        _into(x.data, way)[way[-1]] = array
    except (ValueError, TypeError, OverflowError) as error:
        why = f"into {x.shape}: {error}" if getattr(x.data.flags, "writeable", True) else (
            "more than one element of it refers to a single memory location (expand), or the "
            "memory is read-only: clone() it first"
        )  # fmt: skip
        raise RuntimeError(f"{name}: {why}") from None
    except IndexError as error:
        raise IndexError(f"{name}: {error} (into a tensor of shape {x.shape})") from None
    mark_changed(x.data, name)
    return way


def _rest(way):
    """The cotangent of what is not written over."""

    def vjp(g):
        g = g.copy()
        _into(g, way)[way[-1]] = 0
        return g

    return vjp


def _written(shape, way, value_shape):
    """The cotangent of the value: what was written and then stayed, summed where it broadcast."""
    index = way[-1]
    once = not any(isinstance(p, xp.ndarray) for p in index)

    def vjp(g):
        part = wide(xp.asarray(_into(g, way)[index]))
        if not once:
            order = xp.arange(part.size).reshape(part.shape)
            last = _into(xp.empty(shape, int), way)
            last[index] = order
            part = part * (last[index] == order)
        kept = value_shape[max(0, len(value_shape) - part.ndim) :]  # leading 1s may be too many
        return as_dtype(xp.asarray(unbroadcast(part, kept).reshape(value_shape)), g.dtype)

    return vjp


def in_place(operation, name):
    """operation(x, ...) as x.name(...), which writes the result into x and returns x."""

    def method(x, *args, **options):
        views.refuse_leaf(x, name)
        tracked = is_grad_enabled() and any(map(source, (x, *args, *options.values())))
        own = lambda argument: _apart(argument, x) if tracked else argument
        y = operation(*map(own, (x, *args)), **{k: own(v) for k, v in options.items()})
        if y.shape != x.shape:
            raise RuntimeError(
                f"{name}: output with shape {x.shape} doesn't match the broadcast shape {y.shape}"
            )
        if not xp.can_cast(y.dtype, x.dtype, "same_kind"):
            raise RuntimeError(
                f"{name}: result type {y.dtype.name} can't be cast to {x.dtype.name}, that of "
                "the tensor that is written to"
            )
        if tracked and not y.requires_grad:
            return setitem(x, ..., y, name)
        y = y.to(x.dtype)
        _write(x, ..., y.data, name)
        if tracked and y.node is not x.node:
            y.node.name = name
            views.rewrite_history(x, y.node)
        return x

    method.__name__, method.__doc__ = name, f"{operation.__name__}, written into the tensor."
    return method


def _apart(argument, x):
    """The argument, its values copied if they are about to be written over."""
    if not isinstance(argument, Tensor) or owner(argument.data) is not owner(x.data):
        return argument
    copy = Tensor.of(argument.data.copy())
    copy.node, copy.wants_grad = source(argument), argument.requires_grad
    return copy


def fill_(x, value):
    """Every element becomes value, a number or a tensor without dimensions."""
    if xp.ndim(_plain(value)):
        raise RuntimeError(f"fill_: a value of shape {xp.shape(_plain(value))}: want one number")
    if isinstance(value, int | float):
        value = fitting("fill_", value, x.dtype, floats=True)
    return setitem(x, ..., value, "fill_")


def zero_(x):
    return setitem(x, ..., 0, "zero_")


def copy_(x, source):
    """The values of another tensor, broadcast, in x's own dtype."""
    return setitem(x, ..., source, "copy_")


def masked_fill_(x, mask, value):
    """value where the mask, which broadcasts to x, is True."""
    if mask.dtype != bool:
        raise RuntimeError(f"masked_fill_: the mask is {mask.dtype.name}: want bool")
    if xp.ndim(_plain(value)):
        raise RuntimeError(f"masked_fill_: a value of shape {value.shape}: want one number")
    try:
        where = xp.broadcast_to(_plain(mask), x.shape)
    except ValueError:
        raise RuntimeError(
            f"masked_fill_: mask {mask.shape} does not broadcast to {x.shape}"
        ) from None
    return setitem(x, where, to_fill("masked_fill_", value, x), "masked_fill_")


def _want_floats(name, x):
    if not is_floating(x.data):
        raise NotImplementedError(f"{name} of {x.dtype.name}: draw with randint, and copy_() it")


def uniform_(x, a=0.0, b=1.0, *, generator=None):
    """Every element drawn evenly from [a, b), from the default stream or a generator."""
    _want_floats("uniform_", x)
    return setitem(x, ..., numbers_of(generator).random(x.shape) * (b - a) + a, "uniform_")


def normal_(x, mean=0.0, std=1.0, *, generator=None):
    """Every element drawn from the normal distribution, from the default stream or a generator."""
    _want_floats("normal_", x)
    numbers = numbers_of(generator).standard_normal(x.shape)
    return setitem(x, ..., numbers * std + mean, "normal_")
