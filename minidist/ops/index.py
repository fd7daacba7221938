"""Picking elements by index, and putting them back where they were: each is the other's VJP."""

from ..kernels import arrays as xp
from ..kernels.embedding import put_back
from ..kernels.half_precision import wide
from ..tensor.dtypes import fitting
from ..tensor.tensor import Tensor
from .elementwise import logical_and
from .op import axes_of, differentiable, is_integer, want_one_dtype


@differentiable(autocast="fallthrough", moves_only=True)
def _getitem(x, index):
    shape, once = x.shape, all(map(_picks_once, index))
    index = xp.index_of(x, index)

    def vjp(g):
        if not once:
            return put_back(g, index, shape)
        whole = xp.zeros(shape, g.dtype)
        whole[index] = g
        return whole

    y = x[index]
    if isinstance(y, xp.generic):  # NumPy copies a single element; with "..." it returns a view
        y = x[(*index, ...)]
    return y, vjp


def _is_array(part) -> bool:
    return isinstance(part, xp.ndarray)


def _picks_once(part) -> bool:
    return not _is_array(part) or part.dtype == bool


def _plain(part):
    """An index without Tensors and lists: an int, a slice, None, an ellipsis or an array."""
    if type(part) in (int, slice):
        return part
    part = part.data if isinstance(part, Tensor) else part
    if isinstance(part, list | tuple | range):
        part = xp.asarray(part, None if len(part) else xp.int64)
    elif isinstance(part, bool | xp.bool_):
        part = xp.asarray(part)  # x[True] is x[None]
    if not _is_array(part):
        return int(part) if isinstance(part, xp.integer) else part
    if part.dtype.kind not in "bi":
        raise IndexError(f"an index of {part.dtype.name}: convert with .long(), or .bool() a mask")
    return int(part) if part.dtype != bool and not part.ndim else part


def steps(index, ndim):
    """The indices that, one after the other, mean `index` of a tensor of so many dimensions.

    As in PyTorch, ints and slices choose first: x[0, :, [1, 2]] is x[0][:, [1, 2]].
    """
    if type(index) in (int, slice):
        return [(index,)]
    parts = [_plain(p) for p in (index if isinstance(index, tuple) else (index,))]
    others = [p for p in parts if not _is_array(p)]
    if len(others) == len(parts) or all(p == slice(None) for p in others):
        return [tuple(parts)]
    stays = lambda p: [slice(None)] * (p.ndim if p.dtype == bool else 1)
    first = [q for p in parts for q in (stays(p) if _is_array(p) else [p])]
    idle = sum(p is not None for p in first) > ndim  # an ellipsis for no dimension
    left = (p for p in parts if not isinstance(p, int) and not (idle and p is ...))
    then = tuple(p if _is_array(p) or p is ... else slice(None) for p in left)
    return [then] if all(p in (..., slice(None)) for p in first) else [tuple(first), then]


def getitem(input, index):
    """input[index]: ints, slices, None, an ellipsis, integer arrays and boolean masks."""
    y = input
    try:
        for step in steps(index, input.ndim):
            y = _getitem(y, step)
    except IndexError as error:
        raise IndexError(f"{error} (indexing a tensor of shape {input.shape})") from None
    return y


# Along one dimension


def places(axis, index):
    """The fancy index of the elements that an index array names along an axis."""
    with xp.beside(index):
        grid = list(xp.ix_(*map(xp.arange, index.shape)))
    grid[axis] = index
    return tuple(grid)


def pick(x, axis, index):
    """x's elements at an index array along an axis, without checks; x may be 0-d."""
    return _getitem(x, places(axis, index)) if x.ndim else x.reshape(index.shape).clone()


def checked(name, x, dim, index, *sources):
    """The axis, after the index is found fit to gather from x and to scatter the sources there."""
    axis = axes_of((dim,), x.ndim)[0]
    if index.dtype.kind != "i":
        raise RuntimeError(f"{name}: an index of {index.dtype.name}: convert with .long()")
    for other in (x, *sources):
        free = axis if other is x else None
        wide = (n > m and d != free for d, (n, m) in enumerate(zip(index.shape, other.shape)))
        if index.ndim != other.ndim or any(wide):
            raise RuntimeError(
                f"{name} along {dim}: index {index.shape} for {other.shape}: want as many "
                "dimensions, and none larger (but dim itself)"
            )
    if xp.outside(index, x.shape[axis]):
        raise RuntimeError(
            f"{name}: indices {index.min()} to {index.max()}, but dimension {dim} has only "
            f"{x.shape[axis]} elements"
        )
    return axis


def gather(input, dim, index):
    """For dim 1: y[i, j] = x[i, index[i, j]], of index's shape."""
    if not input.ndim:
        return gather(input.reshape(1), dim, index.reshape(-1)).reshape(index.shape)
    return pick(input, checked("gather", input, dim, index.data), index.data)


def take_along_dim(input, indices, dim=None):
    """As gather, but all other dimensions broadcast; without dim, both tensors are flattened.

    Along dim, negative indices count from the end.
    """
    if indices.dtype != xp.int64:
        raise RuntimeError(f"take_along_dim: {indices.dtype.name} indices: convert with .long()")
    if dim is None:
        return gather(input.reshape(-1), 0, indices.reshape(-1))
    if input.ndim != indices.ndim or not input.ndim:
        raise (RuntimeError if input.ndim else IndexError)(
            f"take_along_dim along {dim}: indices {indices.shape} for {input.shape}: want as many "
            "dimensions, one or more"
        )
    axis = axes_of((dim,), input.ndim)[0]
    indices = _from_the_front(indices, input.shape[axis])
    rest = [tuple(1 if d == axis else n for d, n in enumerate(t.shape)) for t in (input, indices)]
    try:
        shape = xp.broadcast_shapes(*rest)
    except ValueError:
        raise RuntimeError(
            f"take_along_dim along {dim}: {input.shape} and {indices.shape} do not broadcast"
        ) from None
    spread = lambda t: t.expand(*(-1 if d == axis else n for d, n in enumerate(shape)))
    return gather(spread(input), axis, spread(indices))


def _from_the_front(indices, size):
    """Negative ones count from the end."""
    i = indices.data
    return Tensor(xp.where((i < 0) & (i >= -size), i + size, i))


@differentiable(autocast="promote")
def _add_at(x, source, grid):
    y = x.copy()
    xp.add.at(y, grid, source)
    return y, lambda g: g, lambda g: g[grid]


def scatter_add(input, dim, index, src):
    """For dim 1: y = x, then y[i, index[i, j]] += src[i, j]."""
    if not input.ndim:
        rows = input.reshape(1), dim, index.reshape(-1), src.reshape(-1)
        return scatter_add(*rows).reshape(())
    want_one_dtype("scatter_add", input, src)
    grid = places(checked("scatter_add", input, dim, index.data, src), index.data)
    return _add_at(input, _getitem(src, tuple(map(slice, index.shape))), grid)


def index_select(input, dim, index):
    """The slices of input along dim that a vector of indices names."""
    axis = axes_of((dim,), input.ndim)
    i, size = index.data.reshape(-1), input.shape[axis[0]] if axis else 1
    if i.dtype.kind != "i":
        raise RuntimeError(f"index_select: an index of {i.dtype.name}: convert with .long()")
    if index.ndim > 1 or xp.outside(i, size):
        raise IndexError(f"index_select: {index} for size {size}: want a vector of 0 to {size - 1}")
    return _getitem(input, (slice(None),) * axis[0] + (i,)) if axis else input.clone()


def masked_select(input, mask):
    """The elements where the mask is true, in one row; both broadcast."""
    if mask.dtype != bool:
        raise RuntimeError(f"masked_select: a mask of {mask.dtype.name}: want bool")
    shape = logical_and(input, mask).shape
    return _getitem(input.expand(shape), (xp.broadcast_to(mask.data, shape),))


def bincount(input, weights=None, minlength=0):
    """How often 0, 1, 2, … stand in a vector, or the sums of their weights."""
    if input.ndim != 1 or not is_integer(input) or (input.data < 0).any():
        raise RuntimeError(f"bincount of {input.dtype.name} {input.shape}: want integers (n), >= 0")
    if weights is None:
        return Tensor(xp.bincount(input.data, None, minlength))
    dtype = "float32" if weights.dtype == "float32" else "float64"
    return Tensor(xp.bincount(input.data, wide(weights.data), minlength).astype(dtype))


def scatter(input, dim, index, src=None, *, value=None):
    """For dim 1: y = x, then y[i, index[i, j]] = src[i, j], or = src, a number."""
    src = value if src is None else src
    if not input.ndim:
        rows = (t.reshape(-1) if isinstance(t, Tensor) else t for t in (index, src))
        return scatter(input.reshape(1), dim, *rows).reshape(())
    sources = [src] if isinstance(src, Tensor) else []
    want_one_dtype("scatter", input, *sources)
    if not sources:
        src = fitting("scatter", src, input.dtype, floats=True)
    axis, y = checked("scatter", input, dim, index.data, *sources), input.clone()
    y[places(axis, index.data)] = src[tuple(map(slice, index.shape))] if sources else src
    return y


def index_add(input, dim, index, source, *, alpha=1):
    """y = x, then y[index[i]] += alpha·source[i] along dim."""
    at = (*axes_of((dim,), source.ndim), 0)[0]
    if (
        index.shape != (source.shape or (1,))[at : at + 1]
        or input.ndim != source.ndim
        or any(n != m for d, (n, m) in enumerate(zip(input.shape, source.shape)) if d != at)
    ):
        raise (RuntimeError if index.ndim < 2 else IndexError)(
            f"index_add along {dim}: index {index.shape}, source {source.shape} for {input.shape}: "
            "want one index for each slice of the source, and equal sizes elsewhere"
        )
    spread = index.reshape([-1 if d == at else 1 for d in range(source.ndim)]).expand(source.shape)
    return input.scatter_add(dim, spread, source if alpha == 1 else source * alpha)


def nonzero(input, *, as_tuple=False):
    """The indices of what is not 0, one row an element; or one vector a dimension, to index by."""
    x = xp.atleast_1d(input.data) if as_tuple else input.data
    found = Tensor(xp.argwhere(wide(x)))
    return found.unbind(1) if as_tuple else found


def one_hot(tensor, num_classes=-1):
    """(...) class numbers -> (..., num_classes): 1 at the number, 0 elsewhere."""
    i = tensor.data
    if i.dtype != xp.int64 or (num_classes < 0 and not i.size):
        raise RuntimeError(f"one_hot of {i.dtype.name} {i.shape}: want int64, or give num_classes")
    count = int(i.max()) + 1 if num_classes < 0 else num_classes
    if xp.outside(i, count):
        raise RuntimeError(f"one_hot: {i.min()} to {i.max()} are not classes 0 to {count - 1}")
    with xp.beside(i):
        return Tensor((i[..., None] == xp.arange(count)).astype(xp.int64))


argwhere = nonzero
